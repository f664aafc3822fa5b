import re
import threading

import dspy

from divcon.distill import Traffic, watching
from divcon.distill._traffic import current_call, current_traffic


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_happens_is_said_with_its_reasons() -> None:
    traffic = Traffic()
    with traffic.call() as a, traffic.call() as b, traffic.call() as c, traffic.call() as d, traffic.call() as e:
        a.writes()
        b.waits()
        c.holds("429 (the server says 20 s)")
        d.queues("4 at a time after 503")
        e.queues()
        assert traffic.said(9)[1:] == [
            "1 being answered",
            "1 waiting for the server",
            "1 wait after 429 (the server says 20 s)",
            "1 wait their turn (4 at a time after 503)",
            "5 queued",
        ]
    assert traffic.said(0)[1:] == []


def test_tokens_a_second_are_those_of_the_last_half_minute() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    for _ in range(60):
        clock.now += 1
        traffic.wrote(48)
    assert 46 < traffic.tokens_a_second <= 50
    clock.now += 60
    assert traffic.tokens_a_second == 0
    assert traffic.said(0) == []


def test_tokens_that_nobody_saw_coming_count_when_the_call_has_ended_and_money_where_there_is_a_price() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    clock.now += 10
    with traffic.call() as call:
        call.writes(30)
        traffic.ended(call, 100, 0.002)
    with traffic.call() as call:
        traffic.ended(call, None, None)
    assert traffic.tokens_a_second == 10.0
    assert (traffic.cost, traffic.priced) == (0.002, 1)


def test_what_is_watched_is_found_in_dspys_threads_too() -> None:
    found: list[Traffic] = []
    with watching() as traffic:

        class Look(dspy.Module):
            def forward(self) -> None:
                found.append(current_traffic())

        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Look(), {}), (Look(), {})])
    assert found == [traffic, traffic]
    assert current_traffic() is not traffic
    current_call().writes()  # nobody looks at it, and nothing breaks


def test_many_threads_count_right() -> None:
    traffic = Traffic()
    threads = [threading.Thread(target=lambda: [traffic.wrote(1) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(tokens for _, tokens in traffic._tokens) == 4000


def test_until_when_a_call_waits_is_said_once_for_all_and_forgotten_when_it_is_sent() -> None:
    traffic = Traffic()
    with traffic.call() as a, traffic.call() as b:
        for call in (a, b):
            call.holds("429 (the server says 20 s)")
            call.expects("http://here/v1", 20, 600)
        waiting, outlook = traffic.said(0)
        assert waiting == "2 wait after 429 (the server says 20 s)"
        assert re.fullmatch(r"http://here/v1 is asked again at \d\d:\d\d:\d\d, given up at \d\d:\d\d:\d\d", outlook)
        a.waits()
        b.hears_nothing("http://here/v1", 42, 558)
        assert traffic.said(0)[-1].startswith("no token from http://here/v1 for 42 s, waited for until ")
        b.writes()
        assert traffic.said(0) == ["1 tok/s", "1 being answered", "1 waiting for the server"]
