"""A run store that was damaged, cut, emptied or replaced: it is noticed before anything is asked, and can be saved."""

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from divcon import Run, load_pipeline
from divcon.cli import app
from divcon.distill import (
    RepliesLost,
    RunStore,
    StoreDamaged,
    StoreError,
    StoreVersionError,
    Trace,
    check_store,
    export_store,
    repair_store,
)

REPLIES = 200
_VERSION_1 = """
CREATE TABLE items (id TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE calls (
    key TEXT PRIMARY KEY, role TEXT NOT NULL, station TEXT NOT NULL, model TEXT NOT NULL, request TEXT NOT NULL,
    rollout INTEGER NOT NULL, response TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER,
    cached_tokens INTEGER, seconds REAL NOT NULL, cost REAL, made_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE traces (
    collection TEXT NOT NULL, item TEXT NOT NULL, sample INTEGER NOT NULL, position INTEGER NOT NULL,
    subquestions TEXT, lost TEXT, detail TEXT, reply TEXT,
    PRIMARY KEY (collection, item, sample)
) WITHOUT ROWID;
CREATE INDEX traces_in_order ON traces (collection, position, sample);
CREATE TABLE verdicts (
    screening TEXT NOT NULL, item TEXT NOT NULL, sample INTEGER NOT NULL,
    kept INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT,
    PRIMARY KEY (screening, item, sample)
) WITHOUT ROWID;
CREATE TABLE outcomes (
    arm TEXT NOT NULL, fingerprint TEXT NOT NULL, item TEXT NOT NULL, position INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (arm, fingerprint, item)
) WITHOUT ROWID;
PRAGMA user_version=1;
"""


def fill(store: RunStore, replies: int = REPLIES) -> None:
    for n in range(replies):
        store.keep_reply(
            f"reply-{n:04}",
            role="teacher",
            station="collect",
            model="m",
            request={"q": f"What is {n}? " * (500 if n % 50 == 0 else 9)},
            rollout=0,
            response={"text": f"It is number {n} é", "usage": {"input_tokens": 3, "output_tokens": 2}},
            seconds=float(n),
            cost=0.0 if n % 2 else None,
        )
        store.keep_trace("c", n, Trace(f"item-{n}", 0, (f"What is {n}?",), reply="1. What?"))
        store.keep_verdict("s", Trace(f"item-{n}", 0, None), True, "kept")
        store.keep_outcome("cot", "f", n, f"item-{n}", {"outcome": "right", "seconds": 0})
    store.know_items({"item-1": "x"})


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder after it was closed, and the same one as a killed process leaves it: nothing was closed."""
    closed, killed = tmp_path_factory.mktemp("closed") / "run", tmp_path_factory.mktemp("killed") / "run"
    store = RunStore(closed)
    fill(store)
    shutil.copytree(closed, killed)
    store.close()
    return closed, killed


@pytest.fixture
def folder(filled: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(filled[0], tmp_path / "run")


@pytest.fixture
def killed(filled: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(filled[1], tmp_path / "killed")


def flip(file: Path, found: bytes, into: bytes) -> None:
    data = file.read_bytes()
    assert data.count(found) >= 1
    file.write_bytes(data.replace(found, into))


def replies(folder: Path) -> set[str]:
    store = RunStore(folder)
    found = {f"reply-{n:04}" for n in range(REPLIES) if store.reply(f"reply-{n:04}")}
    store.close()
    return found


def whole(folder: Path) -> dict[str, int]:
    return check_store(folder).whole


ALL = {"items": 1, "calls": REPLIES, "traces": REPLIES, "verdicts": REPLIES, "outcomes": REPLIES}


# -- closing -----------------------------------------------------------------------------------------------------------


def test_a_closed_store_is_one_file_that_can_be_copied(folder: Path, tmp_path: Path) -> None:
    assert not (folder / "run.sqlite-wal").exists()
    (tmp_path / "copy").mkdir()
    shutil.copy(folder / "run.sqlite", tmp_path / "copy")
    assert whole(tmp_path / "copy") == ALL


def test_closing_beside_a_reader_of_another_process_loses_nothing(folder: Path) -> None:
    reader = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM calls").fetchone()
    store = RunStore(folder)
    store.keep_outcome("cot", "f", 0, "one-more", {"outcome": "right"})
    store.close()
    assert (folder / "run.sqlite-wal").stat().st_size
    reader.close()
    again = RunStore(folder)
    assert "one-more" in again.outcomes("cot", "f")
    again.close()


# -- flipped bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "into", "row"),
    [
        (b"It is number 7 ", b"It is number 8 ", "calls"),
        (b"It is number 7 \\u00e9", b"It is number 7 \\u00e8", "calls"),
        (b'["What is 7?"]', b'["What is 6?"]', "traces"),
        (b'["What is 7?"]', b"\xff" * 14, "traces"),
    ],
    ids=["a reply", "an escape in a reply", "a trace", "no text at all"],
)
def test_a_flipped_byte_in_a_row_is_noticed_when_the_store_is_opened(
    folder: Path, found: bytes, into: bytes, row: str
) -> None:
    flip(folder / "run.sqlite", found, into)
    with pytest.raises(StoreDamaged, match="is damaged") as caught:
        RunStore(folder)
    assert (caught.value.code, "divcon store repair" in caught.value.remedy) == ("store-damaged", True)
    state = check_store(folder)
    assert [table for table, keys in state.damaged.items() if keys] == [row]
    assert "7" in state.damaged[row][0]


def test_in_a_large_store_a_flipped_byte_is_noticed_when_its_row_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divcon.distill._database._SMALL", 0)
    flip(folder / "run.sqlite", b"It is number 7 ", b"It is number 8 ")
    flip(folder / "run.sqlite", b'["What is 9?"]', b'["What is 6?"]')
    store = RunStore(folder)
    assert store.reply("reply-0008")
    with pytest.raises(StoreDamaged, match="reply-0007"):
        store.reply("reply-0007")
    with pytest.raises(StoreDamaged, match="item-9"):
        list(store.traces("c"))
    with pytest.raises(StoreDamaged, match="item-9"):
        store.rows("traces", "c")
    store.close()


def test_repair_leaves_out_the_damaged_row_alone_and_keeps_the_damaged_file(folder: Path) -> None:
    flip(folder / "run.sqlite", b"It is number 7 ", b"It is number 8 ")
    before = (folder / "run.sqlite").read_bytes()
    repair = repair_store(folder)
    assert repair.state.damaged["calls"] == ["reply-0007"]
    assert repair.state.whole == {**ALL, "calls": REPLIES - 1}
    assert repair.kept[0].read_bytes() == before
    assert replies(folder) == {f"reply-{n:04}" for n in range(REPLIES) if n != 7}


# -- damage to the file ------------------------------------------------------------------------------------------------


def no_header(folder: Path) -> None:
    with (folder / "run.sqlite").open("r+b") as stream:
        stream.write(b"\0" * 100)


def no_schema(folder: Path) -> None:
    with (folder / "run.sqlite").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff" * 3000)


def damaged_pages(folder: Path) -> None:
    """Every fifth page loses what says which cells it has."""
    with (folder / "run.sqlite").open("r+b") as stream:
        for page in range(5, (folder / "run.sqlite").stat().st_size // 4096, 5):
            stream.seek(4096 * page)
            stream.write(b"\xff" * 8)


@pytest.mark.parametrize(
    ("damage", "saved"), [(no_header, REPLIES), (no_schema, REPLIES), (damaged_pages, REPLIES // 2)]
)
def test_a_damaged_file_is_named_and_every_row_of_its_whole_pages_is_saved(
    folder: Path, damage: Callable[[Path], None], saved: int
) -> None:
    damage(folder)
    before = (folder / "run.sqlite").read_bytes()
    with pytest.raises(StoreDamaged, match=r"run\.sqlite is damaged"):
        RunStore(folder)
    assert (folder / "run.sqlite").read_bytes() == before, "noticing changes nothing"
    state = check_store(folder)
    assert state.problems
    assert state.whole["calls"] >= saved
    assert (folder / "run.sqlite").read_bytes() == before, "checking changes nothing"
    repair = repair_store(folder)
    assert len(replies(folder)) == repair.state.whole["calls"] == state.whole["calls"]
    assert repair.kept[0].read_bytes() == before
    assert check_store(folder).sound


def test_every_row_in_a_page_that_can_be_read_is_saved_wherever_the_damage_is(folder: Path) -> None:
    """Pages are damaged at random; what the undamaged ones hold, read one by one, is all there after the repair."""
    rng = random.Random(0)
    data = bytearray((folder / "run.sqlite").read_bytes())
    for page in rng.sample(range(len(data) // 4096), 8):
        at = 4096 * page + rng.randrange(4000)
        data[at : at + 60] = rng.randbytes(60)
    (folder / "run.sqlite").write_bytes(bytes(data))
    readable = {f"reply-{n:04}" for n in range(REPLIES) if f"It is number {n} ".encode() in data}
    repair_store(folder)
    assert len(readable - replies(folder)) <= 8 * 4, "at most the cells that the damage touches"


def test_a_file_that_was_cut_loses_only_what_was_cut_off(folder: Path) -> None:
    size = (folder / "run.sqlite").stat().st_size
    with (folder / "run.sqlite").open("r+b") as stream:
        stream.truncate(size // 2 + 100)
    with pytest.raises(StoreError):
        RunStore(folder)
    repair = repair_store(folder)
    assert 0 < repair.state.whole["calls"] < REPLIES
    assert repair.state.lost == REPLIES - repair.state.whole["calls"]
    assert len(replies(folder)) == repair.state.whole["calls"]


def test_a_file_that_is_no_sqlite_is_named_and_kept(folder: Path) -> None:
    (folder / "run.sqlite").write_text("these are my notes, and no database\n" * 200)
    with pytest.raises(StoreDamaged, match="not a database"):
        RunStore(folder)
    repair = repair_store(folder)
    assert "my notes" in repair.kept[0].read_text()
    assert replies(folder) == set()


def test_a_damaged_wal_is_noticed_and_the_rows_behind_the_damage_are_saved(killed: Path) -> None:
    wal = killed / "run.sqlite-wal"
    data = bytearray(wal.read_bytes())
    assert len(data) > 100_000
    data[32 + 24 + 4096 + 8] ^= 0xFF  # in the header of the second frame: SQLite takes the WAL as ending before it
    wal.write_bytes(bytes(data))
    with pytest.raises((RepliesLost, StoreDamaged)):
        RunStore(killed)
    assert wal.read_bytes() == bytes(data), "noticing changes nothing"
    repair = repair_store(killed)
    assert repair.state.lost == 0
    assert len(replies(killed)) == REPLIES


# -- lost replies ------------------------------------------------------------------------------------------------------


def test_a_removed_wal_is_noticed_before_anything_is_asked(killed: Path) -> None:
    (killed / "run.sqlite-wal").unlink()
    with pytest.raises((RepliesLost, StoreDamaged)) as caught:
        RunStore(killed)
    assert "divcon store repair" in caught.value.remedy
    lost = repair_store(killed).state.lost
    assert lost > 0
    assert len(replies(killed)) == REPLIES - lost, "after the repair the run goes on with what is there"


@pytest.mark.parametrize("how", ["removed", "emptied", "without rows", "an older copy"])
def test_a_store_with_fewer_replies_than_were_paid_for_is_refused(folder: Path, tmp_path: Path, how: str) -> None:
    file = folder / "run.sqlite"
    if how == "removed":
        file.unlink()
    elif how == "emptied":
        file.write_bytes(b"")
    elif how == "without rows":
        db = sqlite3.connect(file)
        db.execute("DELETE FROM calls")
        db.commit()
        db.close()
    else:
        older = RunStore(tmp_path / "older")
        fill(older, 20)
        older.close()
        shutil.copy(tmp_path / "older" / "run.sqlite", file)
    with pytest.raises(RepliesLost, match="200 replies were stored") as caught:
        RunStore(folder)
    assert caught.value.code == "replies-lost"
    state = check_store(folder)
    assert state.lost == (180 if how == "an older copy" else REPLIES - state.whole["calls"])
    repair_store(folder)
    assert len(replies(folder)) == REPLIES - state.lost


FILE = """\
task: {name: offline, train: 4, test: 2}
roles:
  teacher: {model: scripted/references}
  solver: {model: embedded/solver}
screen: {rule: none}
evaluate: {arms: [cot, sd-t]}
"""


@pytest.mark.parametrize("emptied", [True, False])
def test_results_without_any_reply_stop_a_run_and_not_a_look(tmp_path: Path, emptied: bool) -> None:
    """Also where nothing says how many there were, as in the folder of an earlier divcon."""
    file, folder = tmp_path / "line.yaml", tmp_path / "run"
    file.write_text(FILE)
    run = Run(load_pipeline(file), folder)
    run.check()
    run.collect()
    run.export(run.screen())
    run.close()
    for name in ("run.sqlite", "run.commits"):
        (folder / name).unlink()
    if emptied:
        (folder / "run.sqlite").write_bytes(b"")
    looking = Run(load_pipeline(file), folder)
    looking.status()
    looking.close()
    run = Run(load_pipeline(file), folder)
    for _ in range(2):
        with pytest.raises(RepliesLost, match="exports, and no reply"):
            run.check()
    run.close()
    repair_store(folder)
    run.check()
    run.collect()
    run.close()


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def earlier(folder: Path, tmp_path: Path) -> Path:
    """The same rows in a store of version 1."""
    made = tmp_path / "earlier"
    made.mkdir()
    db = sqlite3.connect(made / "run.sqlite")
    db.executescript(_VERSION_1)
    db.execute("ATTACH ? AS new", [str(folder / "run.sqlite")])
    for table in ALL:
        columns = ",".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
        db.execute(f"INSERT INTO main.{table} SELECT {columns} FROM new.{table}")
    db.commit()
    db.close()
    return made


def test_a_store_of_version_1_opens_and_is_watched_from_then_on(earlier: Path) -> None:
    assert check_store(earlier).sound
    store = RunStore(earlier)
    assert store.reply("reply-0007").response["text"] == "It is number 7 é"
    assert len(list(store.traces("c"))) == len(store.verdicts("s")) == len(store.outcomes("cot", "f")) == REPLIES
    store.close()
    assert whole(earlier) == ALL
    assert len((earlier / "run.commits").read_text().splitlines()) == REPLIES
    flip(earlier / "run.sqlite", b"It is number 7 ", b"It is number 8 ")
    with pytest.raises(StoreDamaged, match="reply-0007"):
        RunStore(earlier)


def test_a_damaged_store_of_version_1_is_repaired(earlier: Path) -> None:
    with (earlier / "run.sqlite").open("r+b") as stream:
        stream.write(b"\0" * 16)
    with pytest.raises(StoreDamaged):
        RunStore(earlier)
    assert repair_store(earlier).state.whole == ALL
    assert len(replies(earlier)) == REPLIES


def test_a_store_of_a_newer_version_is_refused_and_left_alone(folder: Path) -> None:
    db = sqlite3.connect(folder / "run.sqlite")
    db.execute("PRAGMA user_version=99")
    db.close()
    before = (folder / "run.sqlite").read_bytes()
    for opens in (RunStore, check_store, repair_store, lambda folder: export_store(folder, print)):
        with pytest.raises(StoreVersionError, match="version 99"):
            opens(folder)
    assert (folder / "run.sqlite").read_bytes() == before


# -- disks -------------------------------------------------------------------------------------------------------------


def test_rows_that_do_not_fit_leave_no_open_transaction_behind(folder: Path) -> None:
    store = RunStore(folder)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.write_rows("traces", [["big", f"item-{n}", 0, n, None, None, None, "x" * 5000] for n in range(100)])
    store._db.execute(f"PRAGMA max_page_count = {2 * pages + 100}")
    store.keep_outcome("cot", "f", 0, "after", {"outcome": "right"})
    assert not store._db.in_transaction
    assert store.trace_keys("big") == set()
    other = RunStore(folder)
    assert "after" in other.outcomes("cot", "f"), "committed, and not part of what was given up"
    other.close()
    store.close()


def test_a_folder_that_may_not_be_written_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect

    def read_only(file: object, *arguments: object, **options: object) -> sqlite3.Connection:
        return real(f"{(folder / 'run.sqlite').as_uri()}?mode=ro", uri=True, isolation_level=None)

    monkeypatch.setattr("divcon.distill._database.sqlite3.connect", read_only)
    store = RunStore(folder)
    with pytest.raises(StoreError, match="readonly") as caught:
        store.keep_outcome("cot", "f", 0, "i", {})
    assert "may be written" in caught.value.remedy
    store.close()


# -- the commands ------------------------------------------------------------------------------------------------------


def command(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["store", *map(str, arguments)])
    return done.exit_code, done.stdout


def test_check_counts_what_is_whole_and_names_what_is_not(folder: Path) -> None:
    status, said = command("check", folder)
    assert (status, f"replies    {REPLIES} whole, 0 damaged" in said) == (0, True)
    flip(folder / "run.sqlite", b"It is number 7 ", b"It is number 8 ")
    status, said = command("check", folder)
    assert status == 1
    assert f"replies    {REPLIES - 1} whole, 1 damaged: reply-0007" in said
    assert "1 replies were stored and are lost" in said
    status, said = command("check", folder, "--json")
    assert json.loads(said.splitlines()[0])["damaged"]["calls"] == ["reply-0007"]


def test_export_writes_every_row_as_a_line(folder: Path, tmp_path: Path) -> None:
    flip(folder / "run.sqlite", b"It is number 7 ", b"It is number 8 ")
    status, _ = command("export", folder, tmp_path / "all.jsonl")
    assert status == 1
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == sum(ALL.values())
    [bad] = [line for line in lines if line.get("damaged")]
    assert (bad["table"], bad["key"]) == ("calls", "reply-0007")
    good = next(line for line in lines if line.get("key") == "reply-0008")
    assert good["response"]["text"] == "It is number 8 é"
    command("repair", folder)
    status, said = command("export", folder)
    assert (status, len(said.splitlines())) == (0, sum(ALL.values()) - 1)


def test_repair_says_what_it_saved_and_leaves_a_sound_store_alone(folder: Path) -> None:
    before = (folder / "run.sqlite").read_bytes()
    status, said = command("repair", folder)
    assert (status, "kept" in said) == (0, False)
    assert (folder / "run.sqlite").read_bytes() == before
    no_header(folder)
    status, said = command("repair", folder)
    assert status == 0
    assert f"replies    {REPLIES} whole" in said
    assert "run.sqlite.before-repair-1" in said
    assert command("check", folder)[0] == 0


def test_rows_replaced_again_and_again_are_saved_in_their_last_state(folder: Path) -> None:
    store = RunStore(folder)
    for n in range(5):
        for item in range(REPLIES):
            store.keep_outcome("cot", "f", item, f"item-{item}", {"outcome": "right", "round": n, "pad": "x" * 100 * n})
    store.close()
    no_header(folder)
    repair_store(folder)
    again = RunStore(folder)
    assert {record["round"] for record in again.outcomes("cot", "f").values()} == {4}
    again.close()
