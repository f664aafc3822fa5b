"""The content of `results.json` as types. The schema is generated from them, and a test validates results with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from divcon.distill import Author

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Paid(_Part):
    """The calls of a role's model.

    Attributes:
        calls: Requests that were answered.
        input_tokens: Input tokens, by the server's count.
        output_tokens: Output tokens, by the server's count.
        seconds: Seconds of waiting, summed over calls that may have overlapped.
        cost: US dollars of the calls with a known price; null where there are none.
        unpriced_calls: Calls of unknown cost.
        unknown_calls: Calls whose tokens the server didn't count, or miscounted. The sums of tokens leave them out.
    """

    calls: Count
    input_tokens: Count
    output_tokens: Count
    seconds: float
    cost: float | None
    unpriced_calls: Count
    unknown_calls: Count = 0


class Used(Paid):
    """The calls of a role for an arm's answers.

    Attributes:
        cached_calls: Calls that came from DSPy's cache.
        cached_tokens: Input tokens that came from the server's cache.
        cut_off_calls: Calls whose reply ran out of tokens.
    """

    cached_calls: Count
    cached_tokens: Count
    cut_off_calls: Count


class QuestionOfRole(_Part):
    """The average cost of one question for a role.

    Attributes:
        input_tokens: Input tokens.
        cached_tokens: Input tokens that came from the server's cache.
        output_tokens: Output tokens.
        cost: US dollars; null where a price is unknown.
        cost_per_1000: US dollars for 1,000 questions; null where a price is unknown.
    """

    input_tokens: float
    cached_tokens: float
    output_tokens: float
    cost: float | None
    cost_per_1000: float | None = None


class Bill(_Part):
    """The average cost of one question.

    Attributes:
        by_role: The cost for each role.
        cost: US dollars; null where a price is unknown.
        cost_per_1000: US dollars for 1,000 questions; null where a price is unknown.
        at_least: US dollars of the calls with a known price; null where there are none.
        unpriced_calls: Calls over all questions whose cost is unknown; a student's that are counted as zero aren't.
        large_tokens: Input and output tokens of models other than students.
        student_free: Whether a student's unknown price was counted as zero.
        cost_ci95: The 95 % interval of `cost`; null where that is null.
        large_tokens_ci95: The 95 % interval of `large_tokens`.
    """

    by_role: dict[str, QuestionOfRole]
    cost: float | None
    cost_per_1000: float | None = None
    at_least: float | None = None
    unpriced_calls: Count = 0
    large_tokens: float
    student_free: bool
    cost_ci95: tuple[float, float] | None = None
    large_tokens_ci95: tuple[float, float] | None = None


class Agreement(_Part):
    """The agreement of an arm's subquestions with references: those of the data, or the teacher's.

    Attributes:
        n: Questions that are compared.
        left_out: Questions that have references and no list, since a call failed or the reply couldn't be read.
        count_error: The mean absolute difference in the number of subquestions.
        count_bias: The mean difference in the number of subquestions, over 0 where the arm has more.
        rouge_l: The mean ROUGE-L F1 of the joined lists.
        covered: The mean share of the reference's steps that the arm's list covers; see `divcon.benchmarks.agreement`.
        exact: The share of lists that are equal word for word.
    """

    n: Count
    left_out: Count = 0
    count_error: float
    count_bias: float | None = None
    rouge_l: Share
    covered: Share | None = None
    exact: Share


class RecordingFile(_Part):
    """The file that a recorded arm replays.

    Attributes:
        file: The file's name.
        sha256: The hash of its bytes.
    """

    file: str
    sha256: str


class Retained(_Part):
    """The share of the teacher's accuracy that a student keeps, over the questions that both answered.

    Attributes:
        share: The student's accuracy over the teacher's.
        ci95: Fieller's 95 % interval; the upper limit is null where the teacher's accuracy may be zero.
        n: The questions that both answered.
    """

    share: float
    ci95: tuple[float, float | None]
    n: Count


class ArmLine(_Part):
    """The results of an arm.

    Attributes:
        name: The name in `evaluate.arms`.
        label: The name in reports.
        splits: Whether it decomposes the question.
        choosable: Whether it can answer a new question.
        student: The trained student that is used; null where there is none.
        recording: For a program that ran elsewhere, the file of its replies. Its usage is unknown, and it has no bill.
        right: Answers that are right.
        wrong: Answers that are wrong, unreadable ones included.
        failed: Questions whose calls failed; no accuracy includes them.
        withheld: Why there is no score: how many answers failed, and the first error; null where there is a score.
        accuracy: The share of right answers among those that didn't fail; null where the score is withheld, as are the
            interval, the rates and the bill.
        ci95: The 95 % interval of the accuracy.
        retained: The share of the teacher's accuracy; only for students and their bases, and null where the teacher
            wasn't measured, or one of the two has no score.
        f1: DROP's F1; only for tasks that are graded by it.
        by_seed: The accuracy of each seed; only where there are several.
        whole_rate: The share of questions that were answered without a decomposition.
        salvaged_rate: The share of questions whose list was salvaged.
        fell_back_rate: The share of questions whose list couldn't be used.
        usable_rate: The share of lists that were neither refused nor over the cap.
        reasked: Answers that were read from a second reply, in which the solver repeated its last line.
        unreadable: Answers that couldn't be read.
        cut_off: Answers for which a reply of the solver ran out of tokens.
        first_unreadable: The end of the first reply without a readable answer; only where there is one.
        usage: The calls of each role for the answers that didn't fail.
        bill: The average cost of a question that was answered.
        seconds: Seconds from the first question to the last answer, without pauses.
        errors: The three most common errors, each with its count.
        agreement: The agreement with the references, for arms that decompose; null where the task has no references, or
            too many questions have no list.
        agreement_with_teacher: The same with the lists of the arm `teacher`, for the other arms that decompose.
    """

    name: str
    label: str
    splits: bool
    choosable: bool
    student: str | None
    recording: RecordingFile | None = None
    right: Count
    wrong: Count
    failed: Count
    withheld: str | None
    accuracy: Share | None
    ci95: tuple[float, float] | None
    retained: Retained | None = None
    f1: Share | None = None
    by_seed: list[Share] | None = None
    whole_rate: Share | None
    salvaged_rate: Share | None
    fell_back_rate: Share | None
    usable_rate: Share | None = None
    reasked: Count
    unreadable: Count
    cut_off: Count
    first_unreadable: str | None = None
    usage: dict[str, Used]
    bill: Bill | None
    seconds: float
    errors: dict[str, Count]
    agreement: Agreement | None = None
    agreement_with_teacher: Agreement | None = None


class Difference(_Part):
    """A paired difference of accuracy, over the questions that neither arm failed. Both arms have a score.

    Attributes:
        a: The first arm.
        b: The second arm.
        difference: The accuracy of `a` minus that of `b`.
        ci95: The 95 % interval of the difference.
        n: The number of questions that are compared.
        left_out: The number of questions that aren't, since one of the arms failed them.
        p: The p-value of the paired permutation test.
        p_holm: The p-value after Holm's correction for all differences in the file.
    """

    a: str
    b: str
    difference: float
    ci95: tuple[float, float]
    n: Count
    left_out: Count
    p: Share
    p_holm: Share


class Upfront(_Part):
    """The cost of a student before its first answer.

    Attributes:
        asked: US dollars for the teacher and for the solver in screening; null where a price is unknown.
        training: US dollars for the training; null where the price of an hour is unknown.
        cost: The sum of both; null where one of them is.
        calls: Calls of the teacher and the solver.
        tokens: Input and output tokens of these calls.
        seconds: Seconds of training.
    """

    asked: float | None
    training: float | None
    cost: float | None
    calls: float
    tokens: float
    seconds: float


class AgainstTeacher(_Part):
    """The cost of a student's program compared with the teacher's.

    Attributes:
        saves: The share of the teacher's bill that the student saves; null where that bill is zero.
        break_even: The number of questions after which the student has paid for itself; null where it never does, or
            where a price is unknown.
        student_free: Whether the student's unknown price was counted as zero.
    """

    saves: float | None
    break_even: Count | None
    student_free: bool


class AdviceTest(_Part):
    """A one-sided paired test of the chosen program against another, at 2.5 %.

    Attributes:
        other: The other program.
        cheaper: Whether the other is cheaper. Then it is tested whether the choice is more accurate; otherwise, whether
            it is less accurate by no more than the margin.
        difference: The accuracy of the choice minus that of the other.
        ci95: Tango's 95 % interval of the difference.
        margin: The accepted loss of accuracy in this test; 0 against a cheaper program.
        p: The p-value of the hypothesis that the difference is the negative margin or less.
        discordant: The share of answers that one program has right and the other wrong.
        n: The questions that both answered.
        questions: About how many questions would show it; null where it is shown, or the difference points the other
            way.
        shown: Whether it is shown.
    """

    other: str
    cheaper: bool
    difference: float
    ci95: tuple[float, float]
    margin: Share
    p: Share
    discordant: Share
    n: Count
    questions: Count | None
    shown: bool


class Evidence(_Part):
    """Whether the answers settle that the chosen program is the right one.

    Attributes:
        settled: Whether all tests show it; null where there is nothing to compare the choice with.
        questions: About how many questions would settle it; null where it is settled, or no number would.
        alternatives: The cheaper programs that aren't shown to be less accurate, the cheapest first.
        tests: The tests, one for each other program.
    """

    settled: bool | None
    questions: Count | None
    alternatives: list[str]
    tests: list[AdviceTest]


class Comparison(_Part):
    """The comparison of costs: which program to choose, and what it saves.

    Attributes:
        unit: The unit of the costs.
        in_money: Whether that unit is money.
        points: Accuracy and cost of each program.
        pareto_front: The programs that no other program beats in both accuracy and cost, the cheapest first.
        choice: The cheapest program within `margin` of the most accurate one; null where a program has no score.
        unscored: The programs that could be chosen and have no score.
        margin: The accepted loss of accuracy.
        upfront: The cost of each student before its first answer.
        against_teacher: The cost of each student's program compared with the teacher's.
        solver_share: The solver's share of the teacher's bill; null where it is unknown.
        solver_dominates: Whether that share is more than half.
        evidence: Whether the answers settle the choice; null where there is none.
    """

    unit: str
    in_money: bool
    points: dict[str, tuple[float, float]]
    pareto_front: list[str]
    choice: str | None
    unscored: list[str]
    margin: float
    upfront: dict[str, Upfront]
    against_teacher: dict[str, AgainstTeacher]
    solver_share: Share | None
    solver_dominates: bool
    evidence: Evidence | None = None


class Screening(_Part):
    """The decompositions that a student learnt from.

    Attributes:
        collected: The number of all decompositions.
        kept: Decompositions that the student learnt from.
        lost: The others, counted by reason.
        failed: Decompositions that couldn't be judged.
        disputed: Questions for which the solver's answers agree with each other and not with the gold answer; only for
            students of the decomposer.
    """

    collected: Count
    kept: Count
    lost: dict[str, Count]
    failed: Count
    disputed: Count | None = None


class Screenings(_Part):
    """The decompositions that students learnt from.

    The counts on top are those of the first student whose rule calls the solver, or else of the first student. They
    are null where no student is trained.

    Attributes:
        collected: The number of all decompositions.
        kept: Decompositions that the student learnt from.
        lost: The others, counted by reason.
        by_student: The counts of each student.
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
        first_loss: The loss of the first step.
        last_loss: The mean loss of the last quarter of the steps.
        seconds: Seconds of training.
        resumed_from: The checkpoint that the training was resumed from; null where it wasn't interrupted.
        started_from: The adapter that the training started from; only where there was one.
        dropped_over_length: Rows left out because they were too long.
        tokens: Tokens of one pass over the rows.
        label_tokens: The tokens of these that are learnt.
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


class Results(_Part):
    """The results of a run.

    Older files have no `schema_version`, and their arms have no `splits`, `choosable` and `student`. This schema
    doesn't accept them.

    Attributes:
        schema_version: The version of this file's format.
        task: The section `task` of the pipeline file, without paths.
        questions: The number of held-out questions.
        teacher: Who wrote the plans; null where recorded arms alone are measured, as are the next two.
        solver: `roles.solver.model` in the pipeline file.
        student_base: The public name of the students' base.
        program: The section `program` of the pipeline file.
        configuration: The sections of the pipeline file that decide the results.
        arms: The results of each arm, in the order of the table.
        differences: The differences of all pairs of arms.
        costs: The comparison of costs: which program to choose, and what it saves.
        screening: The decompositions that students learnt from.
        training: The training of each student.
        paid: The calls that were really made at all stations, by role.
        seconds: The seconds of each station, the last time the run was started.
        versions: Versions of the packages that trained the students; empty where there are no students.
    """

    schema_version: Literal[1]
    task: dict[str, Any]
    questions: Count
    teacher: Author | None
    solver: str | None
    student_base: str | None
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
