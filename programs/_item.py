"""`Item`: a question of a task with its references, as every station takes and passes it on."""

from __future__ import annotations

from dataclasses import dataclass

import dspy


@dataclass(frozen=True, slots=True)
class Item:
    """A question of a task.

    Attributes:
        id: Unique within a task.
        question: What is asked.
        answer: The gold answer as the task writes it; several accepted spellings stand in `aliases`.
        context: A passage the question is about, or None.
        aliases: Other spellings that count as right.
        subquestions: The reference decomposition, empty when the task has none.
        sub_answers: The references' answers, as long as `subquestions` or empty.
        facts: Subquestions that only ask for what the question states; a scripted teacher's faults use them.
        family: The family or subtask, for figures by group.
        grader: How answers are graded: `number`, `percent` (a number that may be a share), `text`, `drop`, `yes_no` or
            `choice`; by the form of `answer` where it is empty.
        references: DROP's gold answers, each of one or more spans; where it is empty, `answer` and `aliases` are.
        plans_right: Of each plan that a recorded teacher has for it, whether it led to a right answer; None where that
            isn't known. Empty where no teacher is recorded.
    """

    id: str
    question: str
    answer: str
    context: str | None = None
    aliases: tuple[str, ...] = ()
    subquestions: tuple[str, ...] = ()
    sub_answers: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    family: str = ""
    grader: str = ""
    references: tuple[tuple[str, ...], ...] = ()
    plans_right: tuple[bool | None, ...] = ()

    def plans(self, samples: int) -> int:
        """How many plans of it can be collected: `samples`, or as many of them as a recorded teacher has."""
        return min(samples, len(self.plans_right)) if self.plans_right else samples

    def example(self) -> dspy.Example:
        """The item as DSPy's optimizers take it; `question` and `context` are the inputs.

        References stand under names that no signature has, so that no optimizer takes them for demonstrations.
        """
        return dspy.Example(
            id=self.id,
            question=self.question,
            context=self.context,
            answer=self.answer,
            aliases=list(self.aliases),
            reference_subquestions=list(self.subquestions),
            reference_sub_answers=list(self.sub_answers),
        ).with_inputs("question", "context")
