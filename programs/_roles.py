"""Roles: a predictor that keeps the LM and the adapter of its role, whatever optimizer or host it runs in."""

from __future__ import annotations

import time
from typing import Any, Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.programs._adapter import CompactAdapter
from divcon.programs._ledger import _CallProbe, probing, record
from divcon.signatures import DivconError

Role = Literal["teacher", "decomposer", "solver"]


class RoleWithoutEndpoint(DivconError):
    """A role's predictor was called before it was given an LM."""


class ReplyCutOff(AdapterParseError):
    """A reply that ended because it ran out of tokens, and so isn't what the model meant to say."""


class RolePredict(dspy.Predict):
    """`dspy.Predict` for one role of a program.

    It differs in four ways: `reset()` keeps the LM, so that teleprompters which reset a student don't move the role
    to the global LM; it never falls back to the global LM; it renders and reads with its own adapter, so that a host
    program's adapter doesn't change the prompt a student was trained on; and it reports usage under its role.

    Args:
        signature: What is asked.
        role: The role it plays.
        lm: The role's LM; may be set later.
        adapter: The pinned adapter; `CompactAdapter` by default.
        refuse_cut_off: Raise `ReplyCutOff` where a reply ran out of tokens.
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
        **config: Any,
    ) -> None:
        self.role = role
        self.adapter = adapter or CompactAdapter()
        self.refuse_cut_off = refuse_cut_off
        super().__init__(signature, **config)
        self.lm = lm

    def reset(self) -> None:
        lm = getattr(self, "lm", None)
        super().reset()
        self.lm = lm

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        self._require_endpoint(kwargs)
        started = time.perf_counter()
        with probing() as probe, dspy.context(adapter=self.adapter):
            try:
                prediction = super().forward(**kwargs)
            except AdapterParseError as error:
                if cut := self._cut_off(probe):
                    raise cut from error
                raise
            finally:
                self._record(probe, started)
        if cut := self._cut_off(probe):
            raise cut
        return prediction

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        self._require_endpoint(kwargs)
        started = time.perf_counter()
        with probing() as probe, dspy.context(adapter=self.adapter):
            try:
                prediction = await super().aforward(**kwargs)
            except AdapterParseError as error:
                if cut := self._cut_off(probe):
                    raise cut from error
                raise
            finally:
                self._record(probe, started)
        if cut := self._cut_off(probe):
            raise cut
        return prediction

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
        if self.lm is None and kwargs.get("lm") is None:
            raise RoleWithoutEndpoint(
                f"The {self.role} has no endpoint.",
                f"Pass {self.role}=dspy.LM(...) to the program, or name the role in the pipeline file.",
            )

    def _cut_off(self, probe: _CallProbe) -> ReplyCutOff | None:
        if not (self.refuse_cut_off and probe.cut_off()):
            return None
        return ReplyCutOff(
            adapter_name=type(self.adapter).__name__,
            signature=self.signature,
            lm_response=str(probe.history[-1].get("outputs")),
            message="The reply ran out of tokens; raise max_tokens of the role.",
        )

    def _record(self, probe: _CallProbe, started: float) -> None:
        price = getattr(self.lm, "divcon_price", None)
        usage = probe.usage(price)
        if usage.calls:
            usage.seconds = time.perf_counter() - started
            record(self.role, usage)
