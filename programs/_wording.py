"""`Wording`: how a role is prompted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy

from divcon.programs._adapter import CompactAdapter
from divcon.programs._arguments import require_instance
from divcon.programs._roles import RolePredict
from divcon.signatures import (
    Answer,
    Conclude,
    Decompose,
    FollowUp,
    Reason,
    Solve,
    SolveDirect,
    SolveStep,
    UnusableArgument,
    demonstrations,
)

_ASKED = {one.__name__: one for one in (Decompose, Solve, SolveDirect, SolveStep, FollowUp, Answer, Reason, Conclude)}
_FIELDS = dict.fromkeys(name for one in _ASKED.values() for name in one.fields)


@dataclass(frozen=True)
class Wording:
    """How a role is prompted: its instructions, demonstrations and labels.

    The default is for an untrained model. A trained model is prompted as in its training: with the same instructions
    and no demonstrations (`LEARNT`), or with the wording that is stored beside its weights.

    Attributes:
        instructions: Instructions by a signature's name; a signature that isn't named keeps its own.
        demonstrate: Whether the demonstrations that ship with a signature are shown.
        labels: Labels by a field's name, for fields that `CompactAdapter` would label otherwise.

    Raises:
        UnusableArgument: There is no such signature or field.
    """

    instructions: Mapping[str, str] = field(default_factory=dict)
    demonstrate: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_known("signature", self.instructions, _ASKED)
        _require_known("field", self.labels, _FIELDS)

    def of(self, signature: type[dspy.Signature]) -> type[dspy.Signature]:
        """The signature with this wording's instructions."""
        own = self.instructions.get(signature.__name__)
        return signature.with_instructions(own) if own is not None else signature

    def shown(self, signature: type[dspy.Signature]) -> list[dspy.Example]:
        """The demonstrations for the signature."""
        return demonstrations(signature) if self.demonstrate else []

    def predictor(
        self,
        signature: type[dspy.Signature],
        role: str,
        lm: dspy.BaseLM | None = None,
        adapter: dspy.Adapter | None = None,
        **options: Any,
    ) -> RolePredict:
        """A predictor for a role with this wording; all arguments are `RolePredict`'s."""
        return RolePredict(
            self.of(signature),
            role,
            lm=lm,
            adapter=adapter or CompactAdapter(self.labels),
            demos=self.shown(signature),
            **options,
        )


def _require_known(kind: str, said: Any, known: Mapping[str, Any]) -> None:
    """Refuse names that no prompt would use: what is said under them would be lost."""
    require_instance(f"What is said by {kind}", said, Mapping, f"a dict by the name of the {kind}")
    if unknown := [name for name in said if name not in known]:
        raise UnusableArgument(f"There is no {kind} {unknown[0]!r} in the prompts.", f"Name {', '.join(known)}.")


LEARNT = Wording(demonstrate=False)
"""The wording for a trained student: the same instructions, and no demonstrations."""


def require_wordings(*wordings: Any) -> None:
    """Refuse what is neither a wording nor None.

    Raises:
        UnusableArgument: It is something else.
    """
    for wording in wordings:
        if wording is not None:
            require_instance("The wording", wording, Wording, "LEARNT or Wording(...)")
