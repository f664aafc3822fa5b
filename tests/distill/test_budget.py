import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer, Whole

from divcon.distill import (
    Budget,
    BudgetSpent,
    Limits,
    LMBackend,
    RunStore,
    StoredEngine,
    at_station,
    cause_of_ours,
    role_lm,
)
from divcon.distill._budget import worst_case
from divcon.programs import Counters, Meter, RolePredict, Usage
from divcon.signatures import Answer

PRICE = {"input": 1.0, "output": 2.0}
ONE = Usage(calls=1, input_tokens=10, output_tokens=5, cost=1.0)
NOTHING: dict[str, dict[str, float]] = {}


class Known:
    """A bill with one role on it."""

    def __init__(self, paid: Mapping[str, dict[str, float]] = NOTHING) -> None:
        self.roles = dict(paid)

    def paid(self, station: object = None, cell: object = None, price_of: object = None) -> dict[str, dict[str, float]]:
        return self.roles

    def uncounted(self, station: object = None) -> list[tuple[str, str, int, int | None, int, int]]:
        return []


def lm_of(server: OpenAIServer, store: RunStore, max_tokens: int = 20) -> dspy.LM:
    inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0, max_tokens=max_tokens)
    engine = StoredEngine(LMBackend(inner), "solver", "openai/m", store, PRICE)
    return role_lm(engine, temperature=None, max_tokens=max_tokens)


def ask(lm: dspy.LM, question: str) -> str:
    with at_station("evaluate"):
        return RolePredict(Answer, "solver", lm=lm)(question=question).answer


@pytest.mark.parametrize(
    ("limits", "calls"),
    [(Limits(calls=3), 3), (Limits(usd=3.5), 3), (Limits(tokens=31), 2), (Limits(usd=0.0), 0)],
)
def test_a_call_that_could_exceed_a_limit_isnt_made(limits: Limits, calls: int) -> None:
    budget = Budget(limits, {}, Known())
    for _ in range(calls):
        budget.settle(budget.admit("collect", ONE), ONE)
    with pytest.raises(BudgetSpent) as caught:
        budget.admit("collect", ONE)
    assert "The budget of the run is spent" in caught.value.problem
    assert "budget." in caught.value.remedy


def test_what_earlier_runs_paid_counts() -> None:
    before = {"teacher": {"calls": 3, "input_tokens": 1, "output_tokens": 1, "cost": 0.5}}
    with pytest.raises(BudgetSpent, match="3 of 3 calls"):
        Budget(Limits(calls=3), {}, Known(before)).admit("collect", ONE)


def test_a_station_has_limits_of_its_own() -> None:
    budget = Budget(Limits(calls=5), {"collect": Limits(calls=1)}, Known())
    budget.settle(budget.admit("collect", ONE), ONE)
    with pytest.raises(BudgetSpent, match=r"budget\.stations\.collect\.calls"):
        budget.admit("collect", ONE)
    budget.settle(budget.admit("evaluate", ONE), ONE)


def test_a_call_waits_for_those_in_flight_to_end_below_their_worst_case() -> None:
    budget = Budget(Limits(usd=1.5), {}, Known())
    first = budget.admit("collect", ONE)
    admitted = threading.Event()

    def second() -> None:
        budget.settle(budget.admit("collect", ONE), ONE)
        admitted.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert not admitted.wait(0.2)
    budget.settle(first, Usage(calls=1, cost=0.1))
    assert admitted.wait(5)
    waiting.join()


def test_an_awaited_call_waits_without_holding_its_loop() -> None:
    budget = Budget(Limits(usd=1.5), {}, Known())

    async def both() -> None:
        first = await budget.aadmit("collect", ONE)
        second = asyncio.create_task(budget.aadmit("collect", ONE))
        await asyncio.sleep(0.1)
        assert not second.done()
        budget.settle(first, Usage(calls=1, cost=0.1))
        await second

    asyncio.run(both())


def test_a_call_of_unknown_usage_is_taken_for_its_worst_case_and_a_failed_one_for_nothing() -> None:
    budget = Budget(Limits(usd=1.5), {}, Known())
    budget.settle(budget.admit("collect", ONE), None)
    budget.settle(budget.admit("collect", ONE), Usage(calls=1, unpriced_calls=1, unknown_calls=1))
    with pytest.raises(BudgetSpent, match=r"\$1\.0000 of \$1\.5"):
        budget.admit("collect", ONE)


def test_hours_are_counted_from_the_start_of_the_command() -> None:
    now = 0.0
    budget = Budget(Limits(hours=1), {}, Known(), clock=lambda: now)
    budget.settle(budget.admit("collect", ONE), ONE)
    now = 3601.0
    with pytest.raises(BudgetSpent, match=r"budget\.hours"):
        budget.admit("collect", ONE)


def test_what_other_processes_paid_is_read_again() -> None:
    now, bill = 0.0, Known()
    budget = Budget(Limits(calls=3), {}, bill, clock=lambda: now)
    bill.roles["teacher"] = {"calls": 3, "input_tokens": 1, "output_tokens": 1, "cost": 0.5}
    budget.check("collect")
    now = 10.0
    with pytest.raises(BudgetSpent):
        budget.check("collect")


def test_the_worst_case_of_a_call_is_a_token_a_byte_and_a_whole_reply() -> None:
    worst = worst_case(Meter(PRICE), 300, 20)
    assert (worst.calls, worst.input_tokens, worst.output_tokens) == (1, 300, 20)
    assert worst.cost == Meter(PRICE).cost(Counters(300, 20))
    assert worst_case(Meter(), 300, None).output_tokens > 8000


def test_uncounted_replies_of_earlier_runs_are_taken_for_their_worst_case_too(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: Whole({}, without=("usage",))) as server:
        sent = []
        for _ in range(2):
            store = RunStore(tmp_path)
            store.budget = Budget(Limits(tokens=700), {}, store)
            with pytest.raises(dspy.LMError):
                for number in range(9):
                    ask(lm_of(server, store), f"Q{number}?")
            store.close()
            sent.append(len(server.requests))
    assert 0 < sent[0] == sent[1] < 9


def test_calls_through_the_store_are_held_to_it_and_what_is_stored_costs_nothing(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "7") as server:
        store = RunStore(tmp_path)
        store.budget = Budget(Limits(calls=2), {}, store)
        lm = lm_of(server, store)
        assert [ask(lm, question) for question in ("P?", "Q?", "P?", "Q?")] == ["7"] * 4
        with pytest.raises(dspy.LMError) as caught:
            ask(lm, "R?")
        assert isinstance(cause_of_ours(caught.value), BudgetSpent)
        with pytest.raises(dspy.LMError) as caught, at_station("evaluate"):
            asyncio.run(RolePredict(Answer, "solver", lm=lm).acall(question="R?"))
        assert isinstance(cause_of_ours(caught.value), BudgetSpent)
        assert len(server.requests) == 2
        again = RunStore(tmp_path)
        again.budget = Budget(Limits(calls=3), {}, again)
        assert ask(lm_of(server, again), "R?") == "7"


@pytest.mark.filterwarnings("ignore::divcon.programs.UsageWarning")
def test_no_number_of_threads_exceeds_it(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: Whole({}), delay=0.02) as server:
        store = RunStore(tmp_path)
        most = 12 * (10 * 1 + 5 * 2) / 1e6 + 0.0004
        store.budget = Budget(Limits(usd=most), {}, store)
        lm = lm_of(server, store)
        failed: list[Exception] = []

        def many(first: int) -> None:
            try:
                for number in range(20):
                    ask(lm, f"{first}.{number}?")
            except dspy.LMError as error:
                failed.append(error)

        threads = [threading.Thread(target=many, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failed) == 8
        assert len(server.requests) >= 12
        assert store.paid()["solver"]["cost"] <= most
