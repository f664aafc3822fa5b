"""The types of the calls, bills and comparisons of costs in `results.json`."""

from __future__ import annotations

from pydantic import Field

from divcon.schemas._part import Count, Part, Share


class Paid(Part):
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


class QuestionOfRole(Part):
    """The average cost of one question for a role.

    Attributes:
        input_tokens: Input tokens.
        cached_tokens: Input tokens that came from the server's cache.
        output_tokens: Output tokens.
        cost: US dollars; null where a price is unknown.
        cost_per_1000: US dollars for 1,000 questions; null where a price is unknown.
        unknown_calls: Calls over all questions whose tokens the server didn't count. The tokens leave them out.
    """

    input_tokens: float
    cached_tokens: float
    output_tokens: float
    cost: float | None
    cost_per_1000: float | None = None
    unknown_calls: Count = 0


class Bill(Part):
    """The average cost of one question.

    Attributes:
        by_role: The cost for each role.
        cost: US dollars; null where a price is unknown.
        cost_per_1000: US dollars for 1,000 questions; null where a price is unknown.
        at_least: US dollars of the calls with a known price; null where there are none.
        unpriced_calls: Calls over all questions whose cost is unknown; a student's that are counted as zero aren't.
        large_tokens: Input and output tokens of models other than students; null where a server didn't count some.
        student_free: Whether a student's unknown price was counted as zero.
        cost_ci95: The 95 % interval of `cost`; null where that is null.
        large_tokens_ci95: The 95 % interval of `large_tokens`.
    """

    by_role: dict[str, QuestionOfRole]
    cost: float | None
    cost_per_1000: float | None = None
    at_least: float | None = None
    unpriced_calls: Count = 0
    large_tokens: float | None
    student_free: bool
    cost_ci95: tuple[float, float] | None = None
    large_tokens_ci95: tuple[float, float] | None = None


class Upfront(Part):
    """The cost of a student before its first answer.

    Attributes:
        asked: US dollars for the teacher and for the solver in screening; null where a price is unknown.
        training: US dollars for the training; null where the price of an hour is unknown.
        cost: The sum of both; null where one of them is.
        calls: Calls of the teacher and the solver.
        tokens: Input and output tokens of these calls; null where a server didn't count some.
        seconds: Seconds of training.
    """

    asked: float | None
    training: float | None
    cost: float | None
    calls: float
    tokens: float | None
    seconds: float


class AgainstTeacher(Part):
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


class AdviceTest(Part):
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


class Evidence(Part):
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


class Comparison(Part):
    """The comparison of costs: which program to choose, and what it saves.

    Attributes:
        unit: The unit of the costs.
        in_money: Whether that unit is money.
        points: Accuracy and cost of each program.
        pareto_front: The programs that no other program beats in both accuracy and cost, the cheapest first.
        choice: The cheapest program within `margin` of the most accurate one; null where a program has no score.
        unscored: The programs that could be chosen and have no score.
        uncounted: The programs that could be chosen and whose tokens weren't all counted, where these are compared.
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
    uncounted: list[str] = Field(default_factory=list)
    margin: float
    upfront: dict[str, Upfront]
    against_teacher: dict[str, AgainstTeacher]
    solver_share: Share | None
    solver_dominates: bool
    evidence: Evidence | None = None
