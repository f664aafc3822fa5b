"""Jobs that run at once: what was begun is kept when no further job can be done."""

import time

import pytest
from dspy.utils.exceptions import LMAuthError

from divcon.distill import BudgetSpent, StoreError, Tally, run_jobs


@pytest.mark.parametrize(
    "error", [BudgetSpent("It is spent.", "Raise it."), StoreError("It is full."), LMAuthError("No.")]
)
def test_what_runs_when_a_station_has_to_end_is_kept_and_nothing_else_is_begun(error: Exception) -> None:
    begun: list[int] = []
    kept: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise error
        time.sleep(0.2)  # so that the error comes first
        return number

    with pytest.raises(type(error)):
        run_jobs(work, range(9), 3, lambda job, result: kept.append(result))
    assert sorted(begun) == [0, 1, 2]
    assert sorted(kept) == [0, 2]


def test_a_budget_that_is_spent_says_what_is_missing() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise BudgetSpent("15 of 15 calls are used.", "Raise budget.calls.")
        return number

    with pytest.raises(
        BudgetSpent, match=r"15 of 15 calls are used\. 6 of the station's 14 jobs are missing\."
    ) as caught:
        run_jobs(work, range(9), 1, lambda job, result: None, tally=Tally(14, done=5))
    assert caught.value.remedy == "Raise budget.calls."
