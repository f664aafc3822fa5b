import json
from pathlib import Path

import pytest

from divcon.distill import RunStore, StoreError, Trace, fingerprint, render_lines, write_whole


def keep(store: RunStore, key: str, role: str = "teacher", cost: float | None = None, rollout: int = 0) -> None:
    store.keep_reply(
        key,
        role=role,
        station="collect",
        model="m",
        request={"q": key},
        rollout=rollout,
        response={"text": "é\u2028", "usage": {"input_tokens": 3, "output_tokens": 2}},
        seconds=0.5,
        cost=cost,
    )


def test_a_reply_is_there_for_the_next_process(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    keep(store, "a")
    # not closed: what a killed process leaves
    again = RunStore(tmp_path / "run")
    stored = again.reply("a")
    assert stored is not None
    assert stored.response["text"] == "é\u2028"
    assert again.reply("b") is None


def test_what_was_paid_is_summed_by_role_and_unknown_prices_stay_unknown(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    keep(store, "a", cost=0.5)
    keep(store, "b", cost=None)
    keep(store, "c", role="solver")
    keep(store, "c", role="solver")  # the same reply once more is no second payment
    paid = store.paid()
    assert (paid["teacher"]["calls"], paid["teacher"]["cost"], paid["teacher"]["unpriced_calls"]) == (2, 0.5, 1)
    assert (paid["solver"]["calls"], paid["solver"]["cost"]) == (1, None)


def test_further_replies_to_a_request_can_be_left_out_of_what_was_paid(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    for sample in range(3):
        keep(store, f"sample {sample}", cost=0.5, rollout=sample * 1_000_000)
    assert [store.paid(first=first)["teacher"]["cost"] for first in (False, True)] == [1.5, 0.5]


def test_traces_come_back_in_the_order_of_the_items(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    for position in (2, 0, 1):
        store.keep_trace("c", position, Trace(f"item-{position}", 0, ("What is it?",)))
    store.keep_trace("c", 1, Trace("item-1", 1, None, lost="empty"))
    assert [(t.item, t.sample, t.lost) for t in store.traces("c")] == [
        ("item-0", 0, None), ("item-1", 0, None), ("item-1", 1, "empty"), ("item-2", 0, None),
    ]  # fmt: skip


@pytest.mark.parametrize("pickle", ["program.pkl", "adapters/sd-t/adapter_model.bin"])
def test_a_run_folder_with_a_pickle_is_refused(tmp_path: Path, pickle: str) -> None:
    file = tmp_path / "run" / pickle
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    with pytest.raises(StoreError, match="divcon loads no pickles"):
        RunStore(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="can't be written") as caught:
        RunStore(tmp_path / "file" / "run")
    assert "--run" in caught.value.remedy


def test_a_full_disk_is_an_error_that_keeps_what_was_there(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    keep(store, "a")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own SQLITE_FULL
    with pytest.raises(StoreError, match="full"):
        for i in range(2000):
            keep(store, f"b{i}")
    assert store.reply("a") is not None


def test_another_version_is_refused(tmp_path: Path) -> None:
    RunStore(tmp_path / "run")._db.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="version 99"):
        RunStore(tmp_path / "run")


def test_an_id_that_stands_for_another_question_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.know_items({"a": "1", "b": "2"})
    store.know_items({"b": "2", "c": "3"})
    with pytest.raises(StoreError, match="'b' stood for another question"):
        store.know_items({"b": "9", "d": "4"})
    store.know_items({"d": "5"})  # nothing of the refused set was kept


def test_an_id_that_is_graded_otherwise_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.know_items({"a": "1"})  # as earlier versions wrote it, without the grader
    store.know_items({"a": "1:number", "b": "2:"})
    for changed in ({"a": "1:text"}, {"b": "2:text"}):
        with pytest.raises(StoreError, match="or was graded otherwise"):
            store.know_items(changed)


def test_lines_keep_every_character_and_one_row_a_line(tmp_path: Path) -> None:
    rows = [{"a": "one\u2028two\nthree 数"}, {"a": 1}]
    text = render_lines(rows)
    assert [json.loads(line) for line in text.split("\n") if line] == rows
    write_whole(tmp_path / "new" / "x.jsonl", text)
    assert (tmp_path / "new" / "x.jsonl").read_text(encoding="utf-8") == text
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.jsonl"]


def test_fingerprints_tell_values_apart_and_not_their_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
