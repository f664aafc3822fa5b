"""The keys of a run: everything that each station's result depends on."""

from __future__ import annotations

from typing import Any

from divcon._models import identity_of
from divcon.benchmarks.arms import Built
from divcon.config import OF_RECORDED
from divcon.distill import RECORDED, RULES, Key, Student
from divcon.pipeline._context import Context
from divcon.pipeline._programs import Programs
from divcon.signatures import READER, Subquestions

_MATCHING = 2  # the version of `Recording.match`; replaying costs nothing
# These change when an answer comes, and not the answer itself.
_WAITING = {"retries", "retry_share", "timeout", "first_token", "longest", "give_up", "reply_bytes"}
# These say how a base is served; what that decides is in the identity of its LM.
_OF_OUR_OWN = {"base", "serve", "server"}
# These change how a station runs, and not its results.
_RUNNING = {"concurrency", "max_failed"}


class Keys:
    """The keys of the stations after compiling.

    Args:
        context: The run's context.
        programs: The run's programs, with the teacher's optimized prompt.
    """

    def __init__(self, context: Context, programs: Programs) -> None:
        self._context = context
        self._pipeline = context.pipeline
        self._programs = programs

    def collection(self) -> Key:
        """The key of the teacher's decompositions."""
        teacher, settings = self._pipeline.roles.teacher, self._pipeline.collect
        declared = teacher.model_dump(exclude={"price", *OF_RECORDED, *_OF_OUR_OWN, *_WAITING})
        if teacher.base is not None:
            declared = {"adapter": teacher.adapter, **identity_of(self._context.models.teacher)}
        single = settings.samples == 1  # a single sample is drawn at the endpoint's own temperature
        plans = self._context.models.plans
        return Key(
            {
                "teacher": declared,
                "prompt": self._programs.planned_by_teacher().decompose.prompt(question="?", context="?"),
                "collect": None if single else settings.model_dump(exclude={"samples", *_RUNNING}),
                "seed": self._pipeline.task.training_seed,
                **({"plans": plans.deciding} if plans is not None else {}),
            }
        )

    def screening(self, rule: str) -> Key:
        """The key of a rule's verdicts."""
        parts: dict[str, Any] = {
            "rule": rule,
            "collection": self.collection(),
            "screen": self._pipeline.screen.model_dump(exclude={"rule", *_RUNNING}),
            "max_subquestions": self._pipeline.program.max_subquestions,
        }
        if RULES[rule].asks_solver:
            solve = self._programs.asking_solver().solve
            parts |= self._context.graders
            parts |= {
                "reader": READER,
                "solver": identity_of(self._context.models.solver),
                "solver_prompt": solve.prompt(question="?", subquestions=Subquestions(["a b?"])),
                **self._reask(),
            }
        elif rule == RECORDED:
            parts |= {"reader": READER, **self._context.graders}
        return Key(parts)

    def rows(self, student: Student) -> Key:
        """The key of a student's training rows."""
        ids, samples = [item.id for item in self._context.task.train], self._pipeline.collect.samples
        if student.rule is not None:
            parts = {"screening": self.screening(student.rule), "questions": ids, "samples": samples}
            return Key(parts | ({"method": student.method} if student.method != "lora" else {}))
        learning = self._programs.learning_to_solve(student).solve
        asked = self._programs.asking_solver().solve
        return Key(
            {
                "student": student.name,
                "collection": self.collection(),
                "solver": identity_of(self._context.models.solver),
                "solver_prompt": asked.prompt(question="?", subquestions="1. a b?"),
                "student_prompt": learning.prompt(question="?"),
                "questions": ids,
                "samples": samples,
                "keep_whole": self._pipeline.screen.keep_whole,
                "max_subquestions": self._pipeline.program.max_subquestions,
                **self._reask(),
            }
        )

    def _reask(self) -> dict[str, Any]:
        """How often the solver is asked again; the default is no part, so that keys made before hold."""
        times = self._pipeline.program.reask
        return {"reask": times} if times != type(self._pipeline.program).model_fields["reask"].default else {}

    def answers(self, name: str, built: Built) -> Key:
        """The key of an arm's outcomes."""
        solve = built.program.solve
        key = Key(
            {
                "arm": name,
                "solver": identity_of(solve.lm),
                "program": self._pipeline.program.model_dump(exclude={"instruction"}),  # the planner's key has it
                "planner": built.planner_key,
                "solver_prompt": solve.prompt(question="?", context="?"),
                "reader": READER,
            }
        )
        return Key({"answers": key, **self._context.graders}) if self._context.graders else key


def recording_key(context: Context, name: str) -> Key:
    """The key of a recorded arm's outcomes."""
    recording = context.recordings[name]
    parts = {"arm": name, "recording": recording.deciding, "reader": READER, "matching": _MATCHING}
    return Key({**parts, **context.graders})
