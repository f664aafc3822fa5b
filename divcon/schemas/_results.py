"""The content of `results.json` as types. The schema is generated from them, and a test validates results with them."""

from __future__ import annotations

from typing import Any, Literal

from divcon.distill import Author
from divcon.schemas._costs import Bill, Comparison, Paid, Used
from divcon.schemas._part import Count, Part, Share


class Agreement(Part):
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


class RecordingFile(Part):
    """The file that a recorded arm replays.

    Attributes:
        file: The file's name.
        sha256: The hash of its bytes.
    """

    file: str
    sha256: str


class Retained(Part):
    """The share of the teacher's accuracy that a student keeps, over the questions that both answered.

    Attributes:
        share: The student's accuracy over the teacher's.
        ci95: Fieller's 95 % interval; the upper limit is null where the teacher's accuracy may be zero.
        n: The questions that both answered.
    """

    share: float
    ci95: tuple[float, float | None]
    n: Count


class ArmLine(Part):
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
        reasked: Answers that were read from a second reply, in which the solver was asked for the answer alone.
        unreadable: Answers that couldn't be read.
        cut_off: Answers for which a reply of the solver ran out of tokens.
        first_unreadable: The end of the first reply without a readable answer; only where there is one.
        usage: The calls of each role for the answers that didn't fail.
        bill: The average cost of a question that was answered.
        seconds: Seconds from the first question to the last answer, without pauses.
        errors: The three most common errors, each with its count.
        agreement: The agreement with the references, for arms that decompose; null where the task has no references, or
            too many questions have no list.
        agreement_with_teacher: The same with the lists of the arm `teacher`, for the arms that another planner plans.
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


class Difference(Part):
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


class Screening(Part):
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


class Screenings(Part):
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


class TrainingLine(Part):
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


class Results(Part):
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
