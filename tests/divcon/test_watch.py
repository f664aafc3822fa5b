import io
import re
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from divcon import _watch
from divcon._terminal import Terminal
from divcon._watch import Silent, Watch, by_loss, watched
from divcon.distill import RunStore, Traffic


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Noting(Silent):
    def __init__(self) -> None:
        self.said: list[tuple[str, int, int, str]] = []

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        self.said.append((name, done, total, note))


def test_a_line_says_answers_speed_what_waits_the_end_and_money() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    watch = Watch(traffic, "answers", 0.01, clock)
    watch.update(0, 60)
    with traffic.call():
        clock.now += 60
    watch.update(12, 60)
    with traffic.call() as one, traffic.call() as other:
        one.writes(1440)
        other.waits()
        traffic.cost, traffic.priced = 0.0023, 1
        said = "answers, 12/min, ~4 min left, $0.0123 so far, ~$0.0215 with all 60, 48 tok/s, 1 being answered, "
        assert watch.note() == said + "1 waiting for the server, 46 queued"


def test_there_is_no_estimate_before_as_many_have_ended_as_are_under_way() -> None:
    """The first of many calls that were sent together ended after a minute; the 19 others were nearly done."""
    clock = Clock()
    traffic = Traffic(clock)
    watch = Watch(traffic, "answers", None, clock)
    watch.update(0, 100)
    with ExitStack() as calls:
        for call in [calls.enter_context(traffic.call()) for _ in range(20)][10:]:
            call.waits()
        clock.now += 60
        watch.update(1, 100)
        assert watch.note() == "answers, 10 being answered, 10 waiting for the server, 79 queued"
        clock.now += 60
        watch.update(20, 100)
        assert watch.note() == "answers, 10/min, ~8 min left, 10 being answered, 10 waiting for the server, 60 queued"


def test_replies_from_the_store_make_no_speed() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    watch = Watch(traffic, "answers", None, clock)
    watch.update(0, 100)
    clock.now += 1
    watch.update(50, 100)
    assert watch.note() == "answers, 50 queued"
    with traffic.call():
        clock.now += 60
    watch.update(55, 100)
    assert watch.note() == "answers, 5/min, ~9 min left, 45 queued"


@pytest.mark.parametrize(("seconds", "rate"), [(1, "40/s"), (13, "3.1/s"), (80, "30/min"), (5000, "29/h")])
def test_the_rate_is_in_the_unit_in_which_it_is_read(seconds: float, rate: str) -> None:
    clock = Clock()
    watch = Watch(None, "answers", None, clock)
    watch.update(0, 100)
    clock.now += seconds
    watch.update(40, 100)
    assert watch.note().split(", ")[1] == rate


def test_the_estimate_runs_on_while_nothing_ends_and_there_is_none_before_anything_has() -> None:
    clock = Clock()
    watch = Watch(None, "steps", None, clock)
    watch.update(20, 60)
    clock.now += 100
    assert watch.note() == "steps"
    watch.update(30, 60, "loss 0.500")
    assert watch.note() == "steps (loss 0.500), 6/min, ~5 min left"
    clock.now += 240
    assert watch.note() == "steps (loss 0.500), 6/min, ~60 s left"
    clock.now += 60
    assert watch.note() == "steps (loss 0.500), 6/min, later than estimated"
    watch.update(60, 60)
    assert watch.note() == "steps"


def test_another_part_of_a_stations_work_has_a_speed_and_a_price_of_its_own() -> None:
    """An evaluation counts answers, then the plans that it asks for first, then answers."""
    clock = Clock()
    traffic = Traffic(clock)
    watch = Watch(traffic, "answers", None, clock)
    watch.update(470, 576)
    watch.update(0, 192, unit="plans")
    with traffic.call():
        clock.now += 60
    traffic.cost, traffic.priced = 0.6, 1
    watch.update(12, 192, unit="plans")
    assert watch.note() == "plans, 12/min, ~15 min left, $0.6000 so far, ~$9.6000 with all 192, 180 queued"
    watch.update(470, 576)
    with traffic.call():
        clock.now += 60
    traffic.cost = 0.7
    watch.update(476, 576)
    assert watch.note() == "answers, 6/min, ~17 min left, $0.7000 so far, ~$2.3667 with all 576, 100 queued"


def test_nothing_is_said_of_money_where_no_price_is_known(tmp_path: Path) -> None:
    reporter = Noting()
    with watched(reporter, "collect", RunStore(tmp_path)) as progress:
        progress(1, 2)
    assert reporter.said == [("collect", 1, 2, "answers, 1 queued")]


def test_what_nobody_was_asked_for_is_not_said_to_be_spent(tmp_path: Path) -> None:
    reporter, store = Noting(), RunStore(tmp_path)
    for role, cost in (("teacher", 5.0), ("solver", 0.5)):
        store.keep_reply(
            role, role=role, station="s", model="m", request={}, rollout=0, response={}, seconds=1.0, cost=cost
        )
    with watched(reporter, "collect", store, unpaid={"teacher"}) as progress:
        progress(1, 2)
    assert reporter.said == [("collect", 1, 2, "answers, $0.5000 so far, 1 queued")]


def test_it_is_told_also_while_nothing_ends_and_not_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_watch, "_TICK", 0.01)
    reporter = Noting()
    with watched(reporter, "evaluate", RunStore(tmp_path)) as progress:
        progress(0, 3, "teacher")
        deadline = time.monotonic() + 20
        while len(reporter.said) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
    told = len(reporter.said)
    assert told >= 4
    assert set(reporter.said) == {("evaluate", 0, 3, "answers (teacher), 3 queued")}
    time.sleep(0.05)
    assert len(reporter.said) == told


def test_a_training_is_told_with_its_loss_and_an_estimate() -> None:
    reporter = Noting()
    with watched(reporter, "train sd-r", unit="steps") as progress:
        by_loss(progress)(5, 100, 0.25)
    assert reporter.said == [("train sd-r", 5, 100, "steps (loss 0.250)")]


def test_without_a_terminal_it_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    terminal = Terminal(Console(file=written, width=60))
    terminal.station("collect", "from m")
    terminal.progress("collect", 1, 60, "answers, [48] tok/s")
    monkeypatch.setattr(Terminal, "_EVERY", 0.0)
    terminal.progress("collect", 2, 60, "answers, [48] tok/s, and so much more that it is longer than sixty characters")
    assert written.getvalue().splitlines() == [
        "collect: from m",
        "  collect: 2/60 answers, [48] tok/s, and so much more that it is longer than sixty characters",
    ]


def test_on_a_terminal_it_is_a_bar_with_its_note_below() -> None:
    written = io.StringIO()
    terminal = Terminal(Console(file=written, width=100, force_terminal=True))
    note = "answers, 12/min, ~4 min left, $0.0123 so far, ~$0.0215 with all 60, [48] tok/s, 1 being answered, 46 queued"
    terminal.progress("collect", 2, 60, note)
    terminal.finished("collect", "60 traces")
    said = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]+", written.getvalue())]
    bar = next(at for at, line in enumerate(said) if "2/60" in line and "3%" in line)
    assert " ".join(said[bar + 1 : bar + 3]) == note
    assert max(map(len, said)) <= 100


def test_on_a_terminal_lines_are_wrapped_between_words_and_elsewhere_they_stay_whole() -> None:
    text = "warning: 20 questions x 2 epochs / 16 rows a step is 3 steps at most, which is too few of them"
    for terminal, lines in ((True, 3), (False, 1)):
        written = io.StringIO()
        Terminal(Console(file=written, width=40, force_terminal=terminal, color_system=None)).finished("train", text)
        assert len(written.getvalue().splitlines()) == lines
        assert all(line.startswith("  ") for line in written.getvalue().splitlines())
        assert " ".join(written.getvalue().split()) == f"train: {text}"
