"""What stands in `results.json`, as types: a schema is made of them, and a test holds what is written to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Paid(_Part):
    """What was asked of a role's model.

    Attributes:
        calls: Requests answered.
        input_tokens: As the server counted them.
        output_tokens: As the server counted them.
        seconds: Spent waiting, summed over calls that may have overlapped.
        cost: US dollars, of the priced calls alone; null where no call was priced.
        unpriced_calls: Calls without a known price.
    """

    calls: Count
    input_tokens: Count
    output_tokens: Count
    seconds: float
    cost: float | None
    unpriced_calls: Count


class Used(Paid):
    """What a role has used in an arm's answers.

    Attributes:
        cached_calls: Calls that came from DSPy's cache.
        cached_tokens: Input tokens that came from the server's cache.
    """

    cached_calls: Count
    cached_tokens: Count


class QuestionOfRole(_Part):
    """What one question costs a role, on average.

    Attributes:
        input_tokens: Tokens read.
        cached_tokens: Those of them that came from the server's cache.
        output_tokens: Tokens written.
        cost: US dollars; null where a price is unknown.
    """

    input_tokens: float
    cached_tokens: float
    output_tokens: float
    cost: float | None


class Bill(_Part):
    """What one question costs, on average.

    Attributes:
        by_role: By role.
        cost: US dollars; null where a price is unknown.
        large_tokens: What models other than students read and wrote.
        student_free: Whether a student's unknown price was taken as nothing.
    """

    by_role: dict[str, QuestionOfRole]
    cost: float | None
    large_tokens: float
    student_free: bool


class Agreement(_Part):
    """How far an arm's subquestions agree with the references.

    Attributes:
        n: Questions that have references.
        count_error: The mean absolute difference in the number of subquestions.
        rouge_l: The mean ROUGE-L F1 of the joined lists.
        exact: The share of lists that are equal word for word.
    """

    n: Count
    count_error: float
    rouge_l: Share
    exact: Share


class ArmLine(_Part):
    """The line of an arm.

    Attributes:
        name: As `evaluate.arms` has it.
        label: As people read it.
        splits: Whether it splits the question.
        choosable: Whether it can answer a new question.
        student: The trained student that answers; null where none does.
        right: Answers that are right.
        wrong: Answers that are wrong, unreadable ones included.
        failed: Questions whose calls failed; they are in no accuracy.
        accuracy: The share of right answers; null where every question failed.
        ci95: The 95 % interval of the accuracy.
        f1: DROP's F1; only for tasks that are graded by it.
        by_seed: The accuracy of each seed; only where there are several.
        whole_rate: The share of questions that were answered whole.
        salvaged_rate: The share whose list was salvaged.
        fell_back_rate: The share whose list couldn't be used.
        reasked: Answers that were read from a second reply, in which the solver gave its last line again.
        unreadable: Answers that couldn't be read.
        first_unreadable: The end of the first of them; only where there is one.
        usage: What each role has used.
        bill: What one question costs; null where every question failed.
        seconds: From the first question to the last answer, without pauses.
        errors: The three most common errors, each with its count.
        agreement: With the references; null where the task has none, and only for arms that split.
    """

    name: str
    label: str
    splits: bool
    choosable: bool
    student: str | None
    right: Count
    wrong: Count
    failed: Count
    accuracy: Share | None
    ci95: tuple[float, float] | None
    f1: Share | None = None
    by_seed: list[Share | None] | None = None
    whole_rate: Share | None
    salvaged_rate: Share | None
    fell_back_rate: Share | None
    reasked: Count
    unreadable: Count
    first_unreadable: str | None = None
    usage: dict[str, Used]
    bill: Bill | None
    seconds: float
    errors: dict[str, Count]
    agreement: Agreement | None = None


class Difference(_Part):
    """A paired difference of accuracy, over the questions that neither arm failed.

    Attributes:
        a: An arm.
        b: Another arm.
        difference: The accuracy of `a` minus that of `b`.
        ci95: Its 95 % interval.
        n: Questions that are compared.
        p: Of the paired permutation test.
        p_holm: The same, corrected for all differences of the file.
    """

    a: str
    b: str
    difference: float
    ci95: tuple[float, float]
    n: Count
    p: Share
    p_holm: Share


class Upfront(_Part):
    """What a student costs before its first answer.

    Attributes:
        asked: US dollars for the teacher and for the solver's screening; null where a price is unknown.
        training: US dollars for the training; null where the hour's price is unknown.
        cost: Both; null where either is.
        calls: Requests to the teacher and the solver.
        tokens: Tokens that they read and wrote.
        seconds: Spent training.
    """

    asked: float | None
    training: float | None
    cost: float | None
    calls: float
    tokens: float
    seconds: float


class AgainstTeacher(_Part):
    """A student's program against the teacher's.

    Attributes:
        saves: The share of the teacher's bill that it saves; null where that bill is nothing.
        break_even: After how many questions it has paid for itself; null where it never does or a price is unknown.
        student_free: Whether its unknown price was taken as nothing.
    """

    saves: float | None
    break_even: Count | None
    student_free: bool


class Comparison(_Part):
    """Which program to choose, and what that saves.

    Attributes:
        unit: What is compared, in words.
        in_money: Whether that is money.
        points: Accuracy and cost of each program.
        pareto_front: The programs that no other beats in both, the cheapest first.
        choice: The cheapest program near the most accurate one; null where none answered.
        margin: How near, in accuracy.
        upfront: What each student costs before its first answer.
        against_teacher: Each student's program against the teacher's.
        solver_share: The solver's share of the teacher's bill; null where it isn't known.
        solver_dominates: Whether that is more than half.
    """

    unit: str
    in_money: bool
    points: dict[str, tuple[float, float]]
    pareto_front: list[str]
    choice: str | None
    margin: float
    upfront: dict[str, Upfront]
    against_teacher: dict[str, AgainstTeacher]
    solver_share: Share | None
    solver_dominates: bool


class Screening(_Part):
    """Which decompositions a student learnt from.

    Attributes:
        collected: Decompositions looked at.
        kept: Those the student learnt from.
        lost: The others, counted by reason.
        failed: Those that couldn't be judged.
        disputed: Questions on which the solver's answers agree with each other and not with the gold one; only for
            students that plan.
    """

    collected: Count
    kept: Count
    lost: dict[str, Count]
    failed: Count
    disputed: Count | None = None


class Screenings(_Part):
    """Which decompositions students learnt from.

    The counts on top are those of the first student whose rule asks the solver, or else of the first one.

    Attributes:
        collected: Decompositions looked at; null where no student is trained.
        kept: Those the student learnt from; null as well then.
        lost: The others, counted by reason; null as well then.
        by_student: The same for each student.
    """

    collected: Count | None
    kept: Count | None
    lost: dict[str, Count] | None
    by_student: dict[str, Screening]


class TrainingLine(_Part):
    """The training of a student.

    Attributes:
        rows: Rows trained on.
        steps: Steps of the optimizer.
        first_loss: Of the first step.
        last_loss: Over the last quarter of the steps.
        seconds: Spent training.
        resumed_from: The checkpoint it went on from; null where it was done in one go.
        started_from: The adapter it went on from; only where there was one.
        dropped_over_length: Rows that were too long.
        tokens: Tokens read in a pass over the rows.
        label_tokens: Those of them that are learnt.
    """

    rows: Count
    steps: Count
    first_loss: float
    last_loss: float
    seconds: float
    resumed_from: str | None
    started_from: str | None = None
    dropped_over_length: Count
    tokens: Count
    label_tokens: Count


class Teacher(_Part):
    """Who planned.

    Attributes:
        model: As `roles.teacher.model` has it.
        scripted: Whether it is a script rather than a model.
    """

    model: str
    scripted: bool


class Results(_Part):
    """The results of a run.

    Files written before `schema_version` was have none, and their arms have no `splits`, `choosable` and `student`.
    This schema doesn't take them.

    Attributes:
        schema_version: Of this file's form.
        task: The section `task` of the pipeline file, without paths.
        questions: Held-out questions.
        teacher: Who planned.
        solver: As `roles.solver.model` has it.
        student_base: The public name of the students' base.
        program: The section `program` of the pipeline file.
        configuration: The sections of the pipeline file that decide the results.
        arms: A line for each arm, in the order of the table.
        differences: All pairs of arms.
        costs: Which program to choose, and what that saves.
        screening: Which decompositions students learnt from.
        training: The training of each student.
        paid: What was really asked, by role, all stations together.
        seconds: Of each station of this start of the run.
        versions: The packages that trained the students; empty where there are none.
    """

    schema_version: Literal[1]
    task: dict[str, Any]
    questions: Count
    teacher: Teacher
    solver: str
    student_base: str
    program: dict[str, Any]
    configuration: dict[str, Any]
    arms: list[ArmLine]
    differences: list[Difference]
    costs: Comparison
    screening: Screenings
    training: dict[str, TrainingLine]
    paid: dict[str, Paid]
    seconds: dict[str, float]
    versions: dict[str, str]
