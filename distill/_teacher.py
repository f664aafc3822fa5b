"""Teachers that aren't asked: plans of a script, or plans written elsewhere, behind the ordinary LM interface.

The scripted teacher serves reference decompositions with seeded faults. It answers `Decompose` with the whole list, and
`FollowUp` (self-ask) with the list's next entry. It replaces a paid model in tests and demonstrations.

The recorded teacher serves the plans of a file, as whoever wrote them wrote them.

Every output that depends on either says so; see `Author`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dspy.lm15 import Message, Request, Response, TextPart, Usage
from dspy.utils.exceptions import LMInvalidRequestError
from pydantic import BaseModel, ConfigDict

from divcon.distill._rollouts import rollout_id
from divcon.programs import Item
from divcon.signatures import NO_DECOMPOSITION, NOTHING_MORE, DivconError, Subquestions

SCRIPTED_MODEL = "scripted/references"
RECORDED_MODELS = "recorded/"  # stands before the name of who wrote the plans
FAULTS = ("missing_step", "restated_fact", "wrong_order", "too_many", "cut_off")


class ScriptedTeacherError(DivconError):
    """The task has items without reference subquestions."""


class Author(BaseModel):
    """Who wrote the plans that students learn from.

    Attributes:
        model: The model's name. A recorded teacher's ends in "(recorded)".
        kind: `model`, which was asked by the run; `scripted`, a script and no model; or `recorded`, whose plans were
            written elsewhere.
        file: The name of the file of recorded plans; null for the others.
        sha256: The hash of that file's bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    kind: Literal["model", "scripted", "recorded"] = "model"
    file: str | None = None
    sha256: str | None = None

    @property
    def note(self) -> str:
        """A sentence for outputs that depend on a teacher that wasn't asked; empty for a model."""
        if self.kind == "scripted":
            return "The teacher is scripted: reference decompositions with seeded faults, not a model."
        if self.kind == "recorded":
            return f"The teacher wasn't asked: {self.model} wrote the plans of {self.file} (sha256 {self.sha256})."
        return ""


class ScriptedTeacher:
    """A backend that answers a decomposition request with the item's references.

    Args:
        items: The items that it can answer; each needs `subquestions`.
        faults: The share of replies that get each fault, by a name in `FAULTS`.
        max_subquestions: The limit that the fault `too_many` exceeds.
        seed: Seeds the choice of faults; an item and rollout always get the same reply.

    Raises:
        ScriptedTeacherError: An item has no reference decomposition.
    """

    def __init__(
        self, items: Sequence[Item], faults: Mapping[str, float] | None = None, max_subquestions: int = 3, seed: int = 0
    ) -> None:
        bare = [item.id for item in items if not item.subquestions]
        if bare:
            raise ScriptedTeacherError(
                f"The scripted teacher needs reference subquestions, and {len(bare)} items have none, first {bare[0]}.",
                "Use a task with references, or a model as the teacher (roles.teacher in a pipeline file).",
            )
        self._questions = _Questions(items)
        self._faults = {name: share for name, share in (faults or {}).items() if share > 0}
        self._max_subquestions = max_subquestions
        self._seed = seed

    def __deepcopy__(self, memo: dict[int, Any]) -> ScriptedTeacher:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        asked, steps_done = _without_steps(request.messages[-1].text or "")
        item = self._questions.asked(asked)
        if item is None:
            raise LMInvalidRequestError(
                "The scripted teacher knows only the task's own questions. Take a model as the teacher (roles.teacher "
                "in a pipeline file).",
                model=request.model,
            )
        text, finish_reason = self.reply(item, rollout)
        if NOTHING_MORE in _system(request):
            text, finish_reason = self.follow_up(item, rollout, steps_done), "stop"
        # A script has no tokenizer, so words are counted instead of tokens.
        read = sum(len((message.text or "").split()) for message in request.messages)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(text)]),
            finish_reason=finish_reason,
            usage=Usage(input_tokens=read, output_tokens=len(text.split())),
        )

    async def acomplete(self, request: Request, rollout: int) -> Response:
        return self.complete(request, rollout)

    def fault(self, item: Item, rollout: int) -> str | None:
        """The fault of the reply to this item and rollout, or None."""
        draw = random.Random(f"{self._seed}/{item.id}/{rollout}").random()
        for name in FAULTS:
            draw -= self._faults.get(name, 0.0)
            if draw < 0:
                return name
        return None

    def reply(self, item: Item, rollout: int) -> tuple[str, str]:
        """The reply's text and finish reason."""
        fault = self.fault(item, rollout)
        asked = list(item.subquestions)
        if fault in _FAULTY:
            rng = random.Random(f"{self._seed}/{item.id}/{rollout}/{fault}")
            asked = _FAULTY[fault](asked, item, self._max_subquestions, rng)
        text = Subquestions(asked).render() if asked else NO_DECOMPOSITION
        if fault == "cut_off":
            return text[: max(8, len(text) - 12)], "length"
        return text, "stop"

    def follow_up(self, item: Item, rollout: int, done: int) -> str:
        """The subquestion after `done` others, for a program that asks them one at a time; with the list's fault."""
        text, _ = self.reply(item, rollout)
        lines = [line.partition(". ")[2] for line in text.splitlines() if line[:1].isdigit()]
        return lines[done] if done < len(lines) else NOTHING_MORE


@dataclass(frozen=True)
class Plan:
    """A plan that was written elsewhere.

    Attributes:
        text: The whole reply, as its writer wrote it.
        input_tokens: The tokens that its writer read; None where that isn't known.
        output_tokens: The tokens that its writer wrote; None where that isn't known.
    """

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None


class RecordedTeacher:
    """A backend that answers a decomposition request with a plan that was recorded for the question.

    Sample n of a question is its plan n; after the last one comes the first again. The usage is the plan's. Where that
    isn't known, it is unknown, and not zero.

    Args:
        items: The items that it may be asked about.
        plans: The plans of each item, by its id. A request about another item is an error.
        name: Who wrote the plans.
    """

    def __init__(self, items: Sequence[Item], plans: Mapping[str, Sequence[Plan]], name: str) -> None:
        self._questions = _Questions(items)
        self._plans = plans
        self._name = name

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedTeacher:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        text = request.messages[-1].text or ""
        if NOTHING_MORE in _system(request):
            raise LMInvalidRequestError(
                "A recorded plan is a whole list, and self-ask asks for one subquestion after the other. "
                "Leave self-ask out of the arms.",
                model=request.model,
            )
        item = self._questions.asked(text)
        plans = self._plans.get(item.id) if item is not None else None
        if not plans:
            asked = " ".join(text.rpartition("Question:")[2].split())[:80]
            raise LMInvalidRequestError(
                f"There is no recorded plan of {self._name} for the question '{asked}'. Add it to roles.teacher.path.",
                model=request.model,
            )
        plan = plans[rollout_id(rollout) % len(plans)]
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(plan.text)]),
            finish_reason="stop",
            usage=Usage(input_tokens=plan.input_tokens, output_tokens=plan.output_tokens),
        )

    async def acomplete(self, request: Request, rollout: int) -> Response:
        return self.complete(request, rollout)


class _Questions:
    """Items by their questions, as prompts name them."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items: dict[str, list[Item]] = {}
        for item in items:
            self._items.setdefault(_plain(item.question), []).append(item)

    def asked(self, text: str) -> Item | None:
        """The item that a prompt asks about. Items with one question are told apart by their passages."""
        whole = _plain(text)
        found = self._items.get(_plain(text.rpartition("Question:")[2]), [])
        if not found:  # a passage stands below the question, or another adapter labels the question otherwise
            found = [item for question, items in self._items.items() if question in whole for item in items]
        fitting = [item for item in found if not item.context or _plain(item.context) in whole]
        fitting = fitting or found[: len(found) == 1]  # a prompt may show the passage in another form
        # A question or a passage may be a part of another one.
        return max(fitting, key=lambda item: (len(item.question), len(item.context or "")), default=None)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _system(request: Request) -> str:
    system = request.system or ""
    return system if isinstance(system, str) else " ".join(getattr(part, "text", "") for part in system)


def _without_steps(text: str) -> tuple[str, int]:
    """The prompt without the list of steps already done, and the number of these steps."""
    before, marker, steps = text.rpartition("\nSteps:")
    return (before, sum(line[:1].isdigit() for line in steps.splitlines())) if marker else (text, 0)


def _without_a_step(asked: list[str], item: Item, cap: int, rng: random.Random) -> list[str]:
    gone = rng.randrange(len(asked))
    return [step for i, step in enumerate(asked) if i != gone]


def _restating(asked: list[str], item: Item, cap: int, rng: random.Random) -> list[str]:
    facts = item.facts or (f"What does the question say about '{' '.join(item.question.split()[:4])}'?",)
    faulty = list(asked)
    faulty[rng.randrange(len(faulty))] = rng.choice(facts)
    return faulty


def _reordered(asked: list[str], item: Item, cap: int, rng: random.Random) -> list[str]:
    return asked[::-1]


def _too_many(asked: list[str], item: Item, cap: int, rng: random.Random) -> list[str]:
    extra = [f"Is the answer to step {i} right?" for i in range(1, cap + 2)]
    return [*asked, *extra][: max(cap, len(asked)) + 1]


_FAULTY: dict[str, Callable[[list[str], Item, int, random.Random], list[str]]] = {
    "missing_step": _without_a_step,
    "restated_fact": _restating,
    "wrong_order": _reordered,
    "too_many": _too_many,
}
