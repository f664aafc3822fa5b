"""Roles: a predictor that keeps the LM and the adapter of its role, whatever optimizer or host it runs in."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.programs._adapter import CompactAdapter
from divcon.programs._ledger import _CallProbe, probing, record
from divcon.signatures import (
    MARKED,
    Conclude,
    DivconError,
    Subquestions,
    SubquestionsError,
    demonstrations,
    ends_in_answer,
    read_answer,
)


class RoleWithoutEndpoint(DivconError):
    """A role's predictor was called before it was given an LM."""


class ForeignEndpoint(DivconError):
    """A trained role was given an LM that doesn't serve what it was trained as."""


class NotPickled(DivconError, TypeError):
    """A program was to be pickled."""


class ReplyCutOff(AdapterParseError):
    """A reply that ended because it ran out of tokens, and so isn't what the model meant to say.

    Attributes:
        items: The subquestions that stand whole in it.
    """

    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wording:
    """How a role is asked: its instructions, and whether demonstrations are shown.

    Without arguments it is the one for a model that was trained on no prompt of ours. A trained model is asked what it
    has learnt: the same instructions without demonstrations, or those that are kept beside its adapter.

    Attributes:
        instructions: Instructions by the name of a signature; its own where there is none.
        demonstrate: Whether the demonstrations that ship with a signature are shown.
        labels: What fields are called in a compact prompt, where it isn't as `CompactAdapter` has it.
    """

    instructions: Mapping[str, str] = field(default_factory=dict)
    demonstrate: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)

    def of(self, signature: type[dspy.Signature]) -> type[dspy.Signature]:
        """The signature as this wording has it."""
        own = self.instructions.get(signature.__name__)
        return signature.with_instructions(own) if own is not None else signature

    def shown(self, signature: type[dspy.Signature]) -> list[dspy.Example]:
        """The demonstrations for it."""
        return demonstrations(signature) if self.demonstrate else []


LEARNT = Wording(demonstrate=False)


class RolePredict(dspy.Predict):
    """`dspy.Predict` for one role of a program.

    It differs in seven ways: `reset()` keeps the LM, so that teleprompters which reset a student don't move the role
    to the global LM, and the demonstrations it began with; it asks once more for an answer that can't be read, where
    `reask` says so; it never falls back to the global LM; it renders and reads with its own adapter, so that a host
    program's adapter doesn't change the prompt a student was trained on; it reports usage under its role; and its
    saved state names no endpoint, so that a file can neither leak one nor bring one in.

    Copies share the LM. Pickling is refused: a pickle would hold the key, and loading one runs code.

    Args:
        signature: What is asked.
        role: The role it plays.
        lm: The role's LM; may be set later.
        adapter: The pinned adapter; `CompactAdapter` by default.
        refuse_cut_off: Raise `ReplyCutOff` where a reply ran out of tokens. An answer in a reply that ran out of tokens
            behind it counts in any case, and a last line that ends in the middle doesn't.
        demos: Demonstrations to begin with.
        reask: How often a model is asked for the last line of a reply whose answer can't be read: 0 or 1. The reply is
            given to it, and the call is counted like any other.
        config: Passed to the LM with every call.
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
        self.role = role
        self.reask = reask
        self._first_demos = list(demos)
        self.adapter = adapter or CompactAdapter()
        self.refuse_cut_off = refuse_cut_off
        self.trained: dict[str, str] | None = None
        super().__init__(signature, **config)
        self.signature: Any = _own(self.signature)
        self.lm = lm

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
        """DSPy's hook: everything but the LM, with the name of what was served where the role is a trained one."""
        bare = copy.deepcopy(self)
        bare.lm = None
        state: dict[str, Any] = super(RolePredict, bare).dump_state(json_mode=json_mode)
        return {**state, "role": self.role, "trained": self.trained}

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> RolePredict:
        """DSPy's hook: restores prompt and demos; the LM in place stays, and none is ever taken from the file.

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
            _require_served(self.role, trained, self.lm)
        lm = self.lm
        rest = {key: value for key, value in state.items() if key not in ("role", "trained")}
        super().load_state({**rest, "lm": None})
        self.trained, self.lm = trained, lm
        return self

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        self._require_endpoint(kwargs)
        started = time.perf_counter()
        with probing() as probe, dspy.context(adapter=self.adapter):
            try:
                try:
                    return self._read(super().forward(**kwargs), kwargs, probe)
                except AdapterParseError as error:
                    refused, asked = self._asked_again(error, kwargs, probe)
                    return self._concluded(self.adapter(**asked), kwargs, refused)
            finally:
                self._record(probe, started)

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        self._require_endpoint(kwargs)
        started = time.perf_counter()
        with probing() as probe, dspy.context(adapter=self.adapter):
            try:
                try:
                    return self._read(await super().aforward(**kwargs), kwargs, probe)
                except AdapterParseError as error:
                    refused, asked = self._asked_again(error, kwargs, probe)
                    return self._concluded(await self.adapter.acall(**asked), kwargs, refused)
            finally:
                self._record(probe, started)

    @contextmanager
    def as_learnt(self) -> Iterator[None]:
        """Without the demonstrations that ship for untrained models, for good unless the block raises.

        Demonstrations that an optimizer or a user has put there stay.
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
        """The messages that `inputs` would be sent as."""
        messages: list[dict[str, Any]] = self.adapter.format(self.signature, self.demos, inputs)
        return messages

    def training_row(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
        """A row for supervised fine-tuning: the prompt that `inputs` would be sent as, and the reply to learn."""
        messages = self.adapter.format_finetune_data(
            signature=self.signature, demos=self.demos, inputs=inputs, outputs=outputs
        )["messages"]
        return {"prompt": messages[:-1], "completion": messages[-1:]}

    def _require_endpoint(self, kwargs: dict[str, Any]) -> None:
        lm = kwargs.get("lm") or self.lm
        if lm is None:
            raise _without_endpoint(self.role)
        if self.trained:
            _require_served(self.role, self.trained, lm)

    def _read(self, prediction: dspy.Prediction, kwargs: dict[str, Any], probe: _CallProbe) -> dspy.Prediction:
        """The prediction, with the rule that its answer was read by, unless its reply ended in the middle."""
        signature = self._signature_of(kwargs)
        cut = probe.cut_off()
        if ends_in_answer(signature):
            text = probe.text()
            found = None if "[[ ## " in text else read_answer(text, steps=len(signature.output_fields) > 1)
            prediction.read_by = found.rule if found else "field"  # by DSPy's own markers
            cut = cut and prediction.read_by not in MARKED
        elif not self.refuse_cut_off:
            cut = False
        if cut:
            raise self._cut(probe, _whole_items(prediction))
        return prediction

    def _refused(self, error: AdapterParseError, probe: _CallProbe) -> AdapterParseError:
        """The error for a reply that can't be read; it says so where it ran out of tokens."""
        if isinstance(error, ReplyCutOff) or not probe.cut_off():
            return error
        if not (self.refuse_cut_off or ends_in_answer(error.signature)):
            return error
        return self._cut(probe, items_in(error))

    def _cut(self, probe: _CallProbe, items: tuple[str, ...]) -> ReplyCutOff:
        cut = ReplyCutOff(
            adapter_name=type(self.adapter).__name__,
            signature=self.signature,
            lm_response=probe.text(),
            message="The reply ran out of tokens; raise max_tokens of the role.",
        )
        cut.items = items
        return cut

    def _asked_again(
        self, error: AdapterParseError, kwargs: dict[str, Any], probe: _CallProbe
    ) -> tuple[AdapterParseError, dict[str, Any]]:
        """Why a reply was refused, and the call that asks for its last line, as the adapter takes it.

        Raises:
            AdapterParseError: That reason, where nothing is asked again.
        """
        refused = self._refused(error, probe)
        reply = refused.lm_response
        if not self.reask or not ends_in_answer(self._signature_of(kwargs)) or not str(reply or "").strip():
            if refused is error:
                raise error  # not from itself: whoever follows the causes would never end
            raise refused from error
        config = {**self.config, **(kwargs.get("config") or {})}
        config = {key: value for key, value in config.items() if key in ("rollout_id", "temperature")}
        return refused, {
            "lm": kwargs.get("lm") or self.lm, "lm_kwargs": config, "signature": Conclude, "demos": [],
            "inputs": {"question": kwargs.get("subquestion") or kwargs.get("question"), "reply": str(reply).strip()},
        }  # fmt: skip

    def _concluded(
        self, completions: list[dict[str, Any]], kwargs: dict[str, Any], refused: AdapterParseError
    ) -> dspy.Prediction:
        """The prediction of a reply whose last line was asked for: its steps are the reply."""
        signature = self._signature_of(kwargs)
        *steps, last = signature.output_fields
        values = {**dict.fromkeys(steps, str(refused.lm_response).strip()), last: completions[0]["answer"]}
        inputs = {name: value for name, value in kwargs.items() if name in signature.input_fields}
        prediction: dspy.Prediction = self._forward_postprocess([values], signature, **inputs)
        prediction.read_by = "reask"
        return prediction

    def _signature_of(self, kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get("signature") or self.signature

    def _record(self, probe: _CallProbe, started: float) -> None:
        price = getattr(self.lm, "divcon_price", None)
        usage = probe.usage(price)
        if usage.calls:
            usage.seconds = time.perf_counter() - started
            record(self.role, usage)


def items_in(error: BaseException | None) -> tuple[str, ...]:
    """The subquestions that stand whole in a refused reply."""
    while error is not None:
        if isinstance(error, (ReplyCutOff, SubquestionsError)) and error.items:
            return error.items
        error = error.__cause__
    return ()


def _whole_items(prediction: dspy.Prediction) -> tuple[str, ...]:
    """The subquestions of a list that was cut off and can be read; the last isn't whole where no mark ends it."""
    for _, value in prediction.items():
        if isinstance(value, Subquestions):
            return value.items if value.items and value.items[-1][-1] in "?？.!" else value.items[:-1]
    return ()


def _own(signature: type[dspy.Signature]) -> type[dspy.Signature]:
    """A signature class of one's own: InferRules writes its rules into the class, which copies would share."""
    own: type[dspy.Signature] = signature.with_instructions(signature.instructions)
    return own


def bind(program: dspy.Module, **lms: dspy.BaseLM) -> dspy.Module:
    """Give every role of a program its LM, by role; what to do after `program.load`.

    Args:
        program: Any program with `RolePredict`s in it; changed in place.
        lms: `decomposer=...`, `solver=...`: the program's roles.

    Returns:
        The program.

    Raises:
        RoleWithoutEndpoint: A role of the program gets no LM and has none.
        ForeignEndpoint: A trained role was given an LM that doesn't serve its adapter.
        ValueError: A role is named that the program doesn't have.
    """
    roles = [module for _, module in program.named_sub_modules(RolePredict)]
    unknown = sorted(set(lms) - {role.role for role in roles})
    if unknown:
        known = ", ".join(sorted({role.role for role in roles})) or "none"
        raise ValueError(f"the program has no role {', '.join(unknown)}; it has {known}")
    for role in roles:  # all checks first: a program is bound whole or not at all
        lm = lms.get(role.role, role.lm)
        if lm is None:
            raise _without_endpoint(role.role)
        if role.trained:
            _require_served(role.role, role.trained, lm)
    for role in roles:
        role.lm = lms.get(role.role, role.lm)
    return program


def _require_served(role: str, trained: Mapping[str, str], lm: Any) -> None:
    served = str(getattr(lm, "model", "")).rpartition("/")[2]
    if served != trained["served"]:
        raise ForeignEndpoint(
            f"The {role} was trained as {trained['served']}, and the LM given for it serves {served or 'nothing'}.",
            f"Serve {trained['served']} and bind that, or set program.{role}.trained = None to leave the student.",
        )


def _without_endpoint(role: str) -> RoleWithoutEndpoint:
    return RoleWithoutEndpoint(
        f"The {role} has no endpoint.",
        f"Pass {role}=dspy.LM(...) to the program, or name the role in the pipeline file.",
    )
