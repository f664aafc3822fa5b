"""`RolePredict`: a predictor that keeps its role's LM and adapter under any optimizer and in any host program."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.programs._adapter import CompactAdapter
from divcon.programs._arguments import require_instance, require_whole_number
from divcon.programs._endpoints import ForeignEndpoint, require_endpoint, require_lm, require_served, shown_endpoint
from divcon.programs._ledger import CallRecorder, record_usage, recording_calls
from divcon.programs._streaming import shown_by_field
from divcon.signatures import (
    Conclude,
    DivconError,
    Subquestions,
    SubquestionsError,
    ends_in_answer,
    is_ended,
    read_answer,
)


class NotPickled(DivconError, TypeError):
    """A program was pickled, which would write its LMs' keys into the pickle."""


class ReplyCutOff(AdapterParseError):
    """A reply was cut off because it ran out of tokens.

    Attributes:
        items: The whole subquestions in it.
    """

    items: tuple[str, ...] = ()


class RolePredict(dspy.Predict):
    """`dspy.Predict` for one role of a program.

    It differs in seven ways:

    - It never falls back to the global LM.
    - `reset()` keeps the LM, so that teleprompters which reset a student don't move the role to the global LM.
    - `reset()` keeps the demonstrations that the predictor began with.
    - It formats and parses with its own adapter. A host program's adapter can't change the prompt that a student was
      trained on.
    - It asks again for an answer that can't be read, where `reask` says so.
    - It records usage under its role.
    - Its saved state names no endpoint, so that a file can neither leak one nor bring one in.

    Copies share the LM. Pickling is refused: a pickle would hold the LM's key, and loading one runs code.

    Args:
        signature: The signature, as for `dspy.Predict`.
        role: The role's name: `decomposer`, `solver`.
        lm: The role's LM; may be set later.
        adapter: The pinned adapter; `CompactAdapter` by default.
        refuse_cut_off: Raise `ReplyCutOff` where a reply ran out of tokens. Signatures that end in an answer always
            raise it, unless the answer is marked as one (`divcon.signatures.MARKED`) and more text follows it.
        demos: Demonstrations to begin with.
        reask: How often the model is asked again where its answer can't be read: 0 or 1. That call gives the model its
            reply, asks for the answer alone (`divcon.signatures.Conclude`), and counts in the usage.
        config: Passed to the LM with every call.

    Raises:
        NotAnEndpoint: `lm` is no LM.
        UnusableArgument: `reask` is neither 0 nor 1, or `adapter` no adapter.
    """

    def __init__(
        self,
        signature: Any,
        role: str,
        *,
        lm: dspy.BaseLM | None = None,
        adapter: dspy.Adapter | None = None,
        refuse_cut_off: bool = False,
        demos: Sequence[dspy.Example] = (),
        reask: int = 0,
        **config: Any,
    ) -> None:
        require_lm(role, lm)
        require_whole_number("reask", reask, least=0, most=1)
        if adapter is not None:
            require_instance("adapter", adapter, dspy.Adapter, "an adapter of DSPy's, such as CompactAdapter()")
        self.role = role
        self.reask = reask
        self._first_demos = list(demos)
        self.adapter = adapter or CompactAdapter()
        self.refuse_cut_off = refuse_cut_off
        self.trained: dict[str, str] | None = None
        super().__init__(signature, **config)
        self.signature: Any = _own(self.signature)
        self.lm = lm

    def __repr__(self) -> str:
        shown = len(self.demos)
        return f"{self.role}: {shown_endpoint(self.lm, self.trained)}, {shown} demonstration{'' if shown == 1 else 's'}"

    def require_endpoint(self, lm: Any = None) -> None:
        """Refuse to go on where a call would find no LM, or one that doesn't serve what the role was trained as.

        Args:
            lm: The LM of the call; the role's own by default.

        Raises:
            RoleWithoutEndpoint: The role has no LM.
            NotAnEndpoint: It has something that is no LM.
            ForeignEndpoint: The role is trained, and the LM doesn't serve its adapter.
        """
        require_endpoint(self.role, self.lm if lm is None else lm, self.trained)

    def reset(self) -> None:
        lm = getattr(self, "lm", None)
        super().reset()
        self.lm = lm
        self.demos = list(self._first_demos)

    def __deepcopy__(self, memo: dict[int, Any]) -> RolePredict:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        state = dict(dspy.Module.__getstate__(self))
        lm = state.pop("lm", None)
        new.__setstate__(copy.deepcopy(state, memo))
        new.signature = _own(new.signature)
        new.lm = lm
        return new

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise NotPickled(
            "A program with roles isn't pickled: the pickle would hold its LMs' keys, and loading one runs code.",
            "Save its state with program.save('program.json'), and bind the LMs after loading.",
        )

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """DSPy's hook: the state without the LM; a trained role's names the model that it was trained as."""
        bare = copy.deepcopy(self)
        bare.lm = None
        state: dict[str, Any] = super(RolePredict, bare).dump_state(json_mode=json_mode)
        return {**state, "role": self.role, "trained": self.trained}

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> RolePredict:
        """DSPy's hook: restores prompt and demonstrations, and keeps the LM in place; none comes from the file.

        Raises:
            ForeignEndpoint: The state is a trained role's, and the LM in place serves something else.
        """
        if state.get("role") not in (None, self.role):
            raise ForeignEndpoint(
                f"The state is of the role {state['role']}, and this is the {self.role}.",
                "Load it into its own program.",
            )
        trained = state.get("trained")
        if trained and self.lm is not None:
            require_served(self.role, trained, self.lm)
        lm = self.lm
        rest = {key: value for key, value in state.items() if key not in ("role", "trained")}
        super().load_state({**rest, "lm": None})
        self.trained, self.lm = trained, lm
        return self

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        self.require_endpoint(kwargs.get("lm"))
        started = time.perf_counter()
        with recording_calls() as calls, self._own_adapter():
            try:
                try:
                    return self._read(super().forward(**kwargs), kwargs, calls)
                except AdapterParseError as error:
                    refused, asked = self._asked_again(error, kwargs, calls)
                    return self._concluded(self.adapter(**asked), kwargs, refused)
            finally:
                self._record_usage(calls, started)

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        self.require_endpoint(kwargs.get("lm"))
        started = time.perf_counter()
        with recording_calls() as calls, self._own_adapter():
            try:
                try:
                    return self._read(await super().aforward(**kwargs), kwargs, calls)
                except AdapterParseError as error:
                    refused, asked = self._asked_again(error, kwargs, calls)
                    return self._concluded(await self.adapter.acall(**asked), kwargs, refused)
            finally:
                self._record_usage(calls, started)

    @contextmanager
    def as_learnt(self) -> Iterator[None]:
        """Drop the demonstrations that ship for untrained models, and restore them if the block raises.

        Demonstrations that an optimizer or a user has set stay.
        """
        before = (self._first_demos, self.demos)
        if self.demos == self._first_demos:
            self.demos = []
        self._first_demos = []
        try:
            yield
        except BaseException:
            self._first_demos, self.demos = before
            raise

    def prompt(self, **inputs: Any) -> list[dict[str, Any]]:
        """The messages that a call with `inputs` sends."""
        messages: list[dict[str, Any]] = self.adapter.format(self.signature, self.demos, inputs)
        return messages

    def training_row(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
        """A row for supervised fine-tuning: the prompt for `inputs`, and the completion that renders `outputs`."""
        messages = self.adapter.format_finetune_data(
            signature=self.signature, demos=self.demos, inputs=inputs, outputs=outputs
        )["messages"]
        return {"prompt": messages[:-1], "completion": messages[-1:]}

    @contextmanager
    def _own_adapter(self) -> Iterator[None]:
        """Format, parse and stream with the pinned adapter."""
        with dspy.context(adapter=self.adapter), shown_by_field(self, self.adapter):
            yield

    def _read(self, prediction: dspy.Prediction, kwargs: dict[str, Any], calls: CallRecorder) -> dspy.Prediction:
        """Add to a prediction the rule that found its answer.

        Raises:
            ReplyCutOff: The reply ran out of tokens.
        """
        signature = self._signature_of(kwargs)
        cut = calls.cut_off()
        if ends_in_answer(signature):
            text = calls.text()
            found = None if "[[ ## " in text else read_answer(text, steps=len(signature.output_fields) > 1)
            prediction.read_by = found.rule if found else "field"  # a field between DSPy's own markers
            cut = cut and not (found and found.is_whole_in(text))
        elif not self.refuse_cut_off:
            cut = False
        if cut:
            raise self._cut(calls, _whole_items(prediction))
        return prediction

    def _refused(self, error: AdapterParseError, calls: CallRecorder) -> AdapterParseError:
        """The error for a reply that can't be read: a `ReplyCutOff` where it ran out of tokens."""
        if isinstance(error, ReplyCutOff) or not calls.cut_off():
            return error
        if not (self.refuse_cut_off or ends_in_answer(error.signature)):
            return error
        return self._cut(calls, items_in(error))

    def _cut(self, calls: CallRecorder, items: tuple[str, ...]) -> ReplyCutOff:
        cut = ReplyCutOff(
            adapter_name=type(self.adapter).__name__,
            signature=self.signature,
            lm_response=calls.text(),
            message="The reply ran out of tokens; raise max_tokens of the role.",
        )
        cut.items = items
        return cut

    def _asked_again(
        self, error: AdapterParseError, kwargs: dict[str, Any], calls: CallRecorder
    ) -> tuple[AdapterParseError, dict[str, Any]]:
        """The error for a reply without an answer, and the arguments of the adapter's call that asks for it again.

        Raises:
            AdapterParseError: The same error, where the model isn't asked again.
        """
        refused = self._refused(error, calls)
        reply = refused.lm_response
        if not self.reask or not ends_in_answer(self._signature_of(kwargs)) or not str(reply or "").strip():
            if refused is error:
                raise error  # not from itself, which would make a cycle of causes
            raise refused from error
        config = {**self.config, **(kwargs.get("config") or {})}
        config = {key: value for key, value in config.items() if key in ("rollout_id", "temperature")}
        return refused, {
            "lm": kwargs.get("lm") or self.lm,
            "lm_kwargs": config,
            "signature": Conclude,
            "demos": [],
            "inputs": {"question": kwargs.get("subquestion") or kwargs.get("question"), "reply": str(reply).strip()},
        }

    def _concluded(
        self, completions: list[dict[str, Any]], kwargs: dict[str, Any], refused: AdapterParseError
    ) -> dspy.Prediction:
        """The prediction where the answer was asked for again: the first reply is its steps."""
        signature = self._signature_of(kwargs)
        *steps, last = signature.output_fields
        values = {**dict.fromkeys(steps, str(refused.lm_response).strip()), last: completions[0]["answer"]}
        inputs = {name: value for name, value in kwargs.items() if name in signature.input_fields}
        prediction: dspy.Prediction = self._forward_postprocess([values], signature, **inputs)
        prediction.read_by = "reask"
        return prediction

    def _signature_of(self, kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get("signature") or self.signature

    def _record_usage(self, calls: CallRecorder, started: float) -> None:
        usage = calls.usage(getattr(self.lm, "divcon_meter", None))
        if usage.calls:
            usage.seconds = time.perf_counter() - started
            record_usage(self.role, usage)


def items_in(error: BaseException | None) -> tuple[str, ...]:
    """The whole subquestions in a refused reply, from the error or from its causes."""
    while error is not None:
        if isinstance(error, (ReplyCutOff, SubquestionsError)) and error.items:
            return error.items
        error = error.__cause__
    return ()


def _whole_items(prediction: dspy.Prediction) -> tuple[str, ...]:
    """The whole subquestions of a list that was cut off and can be read; the last needs a mark at its end."""
    for _, value in prediction.items():
        if isinstance(value, Subquestions):
            return value.items if value.items and is_ended(value.items[-1]) else value.items[:-1]
    return ()


def _own(signature: type[dspy.Signature]) -> type[dspy.Signature]:
    """Copy the class; InferRules mutates it."""
    own: type[dspy.Signature] = signature.with_instructions(signature.instructions)
    return own
