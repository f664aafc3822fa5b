"""A worker and its driver, without another process between them."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dspy.utils.exceptions import LMRateLimitError, LMServerError
from support.works import keep

from divcon.distill import GivenUpError, Job, RunStore, SlowServerError, Trace, UnreadableReplyError, UnusableReplyError
from divcon.distill.executors import EXECUTORS, Recipe, StoreLookup, Worker, WorkerLost, WorkersLost, done_elsewhere
from divcon.distill.executors._wire import WorkerError, pack_error, pack_job, unpack_error, unpack_job
from divcon.programs import Item
from divcon.signatures import DivconError, FatalError

RECIPE = Recipe("support.works:make", {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    made = RunStore(tmp_path / "run")
    yield made
    made.close()


@pytest.fixture
def send(store: RunStore) -> Callable[..., Iterator[tuple[str, str]]]:
    return Worker(RECIPE, StoreLookup(store.folder)).do


def job(question: str, number: int = 0) -> Job:
    return Job("collect", Item(f"i{number}", question, "1"), sample=3)


def test_a_job_comes_back_as_rows_and_then_its_result(store: RunStore, send: Callable) -> None:
    found = done_elsewhere(job("plain"), store, send)
    assert found == Trace("i0", 3, ("plain",), reply="new")
    assert store.reply("i0-1").response["text"] == "plain"
    assert store.paid()["teacher"] == {
        "calls": 1,
        "input_tokens": 1,
        "output_tokens": 2,
        "seconds": 0.1,
        "cost": 0.5,
        "unpriced_calls": 0,
        "unknown_calls": 0,
    }


def test_what_the_run_has_is_found_by_a_worker(store: RunStore, send: Callable) -> None:
    keep(store, "i0-1", "an earlier run's")
    assert done_elsewhere(job("plain"), store, send).reply == "there already"
    assert store.reply("i0-1").response["text"] == "an earlier run's", "what is paid for stays"


def test_a_worker_reads_traces_of_the_run_and_its_own(store: RunStore) -> None:
    store.keep_trace("c", 0, Trace("i0", 0, ("a b?",)))
    worker = Worker(RECIPE, StoreLookup(store.folder))
    assert worker._store.trace_keys("c") == {("i0", 0)}
    assert list(worker._store.traces("c")) == [Trace("i0", 0, ("a b?",))]


def test_errors_keep_what_decides_how_they_are_dealt_with(store: RunStore, send: Callable) -> None:
    with pytest.raises(LMRateLimitError, match="slow down") as limited:
        done_elsewhere(job("limited"), store, send)
    assert (limited.value.retry_after, limited.value.status) == (7.0, 429)
    assert store.reply("i0-1") is not None, "what was answered before is kept"
    with pytest.raises(WorkerError, match=r"The row is empty\. Export again\.") as refused:
        done_elsewhere(job("refused", 1), store, send)
    assert refused.value.code == "training"
    assert not isinstance(refused.value, FatalError)


def test_a_job_of_a_lost_worker_is_done_by_another_and_answered_calls_arent_asked_again(
    store: RunStore, send: Callable
) -> None:
    lost = []

    def losing(*sent: str) -> Iterator[tuple[str, str]]:
        pieces = send(*sent)
        yield next(pieces)  # the reply
        if not lost:
            lost.append(True)
            raise WorkerLost
        yield from pieces

    assert done_elsewhere(job("plain"), store, losing).reply == "there already"
    assert sqlite3.connect(store.folder / "run.sqlite").execute("SELECT COUNT(*) FROM calls").fetchone() == (1,)


def test_a_job_that_ends_all_its_workers_ends_the_run(store: RunStore) -> None:
    def lost(*sent: str) -> Iterator[tuple[str, str]]:
        yield from ()

    with pytest.raises(WorkersLost, match="5 workers ended in the middle of 'collect' of i0"):
        done_elsewhere(job("plain"), store, lost)


def test_the_folder_of_a_worker_that_was_killed_is_removed_by_the_next(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, living = tmp_path / f"divcon-worker-{ended.pid}-x", tmp_path / f"divcon-worker-{os.getpid()}-x"
    left.mkdir()
    living.mkdir()
    Worker(RECIPE, StoreLookup(store.folder))
    assert not left.exists()
    assert living.exists()


def test_a_job_is_text_on_its_way() -> None:
    one = Job(
        "screen oracle",
        Item("i", "Q?", "1", references=(("a", "b"),)),
        traces=(Trace("i", 0, ("x y?",)),),
        lora="/a",
    )
    text = pack_job(one)
    assert json.loads(text)["item"]["question"] == "Q?"
    assert unpack_job(text) == one


def test_errors_of_servers_are_the_same_after_their_way() -> None:
    failure = LMServerError("boom", model="m", status=503)
    given_up = unpack_error(pack_error(GivenUpError("http://here/v1", failure, 600.0)))
    assert isinstance(given_up, GivenUpError)
    assert (given_up.server, given_up.seconds, given_up.failure.status) == ("http://here/v1", 600.0, 503)
    slow = unpack_error(pack_error(SlowServerError("no token", "silence", True, model="m")))
    assert isinstance(slow, SlowServerError)
    assert (slow.limit, slow.mute, slow.message) == ("silence", True, "no token")
    assert isinstance(unpack_error(pack_error(UnreadableReplyError("<html>"))), UnreadableReplyError)
    unusable = unpack_error(pack_error(UnusableReplyError("the reply is empty.", model="m", provider_code="c")))
    assert isinstance(unusable, UnusableReplyError)
    assert (unusable.message, unusable.model, unusable.provider_code) == ("the reply is empty.", "m", "c")
    assert "RuntimeError: It broke. Look" in str(unpack_error(pack_error(RuntimeError("It broke."))))


def test_an_executor_that_isnt_there_is_named() -> None:
    with pytest.raises(DivconError, match=r"There is no executor 'rays'\. Did you mean ray\?"):
        EXECUTORS["rays"]
