"""Whatever stands in a file of settings or of data, it is read, or refused by an error of divcon's.

A few examples are tried each time. DIVCON_FUZZ_SECONDS=600 tries each target for so long.
"""

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzzing import SECONDS, Tries

from divcon import load_pipeline
from divcon.benchmarks.tasks import (
    PUBLIC,
    Fields,
    Form,
    Task,
    file_items,
    gsm8k_items,
    load_task,
    public_items,
    read_pairs,
)
from divcon.config import declared_pipelines, load_experiment
from divcon.distill._paths import expanded, expanded_address, expanded_values
from divcon.signatures import DivconError

_LONGEST = 20.0  # seconds for one example, which takes milliseconds: more is a hang

FILE = """\
task: &t {name: offline, train: 10, test: 5}
roles:
  teacher: &m {model: scripted/references, faults: {cut_off: 0.1}}
  decomposer: {base: embedded, serve: vllm, server: {arguments: {max-model-len: 4096}}}
  solver: {model: openai/x, api_base: http://127.0.0.1:8000/v1, price: {input: 1, output: 2}}
compile: {optimizer: bootstrap, arguments: {max_bootstrapped_demos: 2}}
screen: {rule: [none, oracle], samples: 2}
train: {rank: 16, learning_rate: 0.002}
evaluate: {arms: [direct, sd-r], resamples: 100}
tracking: {mlflow: file:x}
"""
EXPERIMENT = FILE.replace("task: &t", "experiment:\n  kind: transfer\n  tasks:\n    a: &t").replace(
    "roles:", "    b: *t\nroles:"
)
KEYS = ["task", "name", "roles", "solver", "model", "server", "arguments", "tasks", "allow", "pair", "path", "seeds"]
PIECES = [
    "&a ", "*a", "&t ", "*t", "<<: *t", "<<: [*t, *t]", "[", "]", "{", "}", ": ", "? ", "- ", "\n", "\n  ", ", ",
    "'", '"', "|", ">", "#", "%YAML 1.1\n", "---\n", "...\n", "!!binary ", "!!python/object:os.system ", "!!set ",
    "!!omap ", "!!timestamp ", "!!float ", "!!int ", "!!null ", "!x ", "!<", ".nan", "-.inf", "1e999", "0x", "0o7",
    "1_000", "2024-13-45", "2024-01-01", "~", "$HOME/x", "$NOPE/x", "~nobody/x", "null", "true", "9" * 5000, "\x00",
    "\t", "\\uD800", '"\\ud800"', "\ufeff", "\u2028", "a" * 300, "1:30:00", "=", "@", "`",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "#### 7", "x #### ", "a ** b\n#### 1", "A and B|C", "(A)", "yes", "\x00"]),
    lambda held: st.lists(held, max_size=3) | st.dictionaries(st.text(max_size=4), held, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "id", "question", "answer", "context", "aliases", "subquestions", "grader", "family", "gold", "reply", "Body",
    "Question", "Answer", "sQuestion", "lSolutions", "final_ans", "Q1", "A1", "qid", "decomposition", "paragraphs",
    "question_decomposition", "input", "target", "passage", "qa_pairs", "answers_spans", "answers", "qdmr", "ref_text",
    "examples", "_id",
]  # fmt: skip
ROW = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8)
LINE = ROW.map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=20) | st.sampled_from(["", "[" * 5000, "9" * 5000])


def edited(text: str) -> st.SearchStrategy[str]:
    """A text with pieces put in, cut out and repeated."""
    edit = st.tuples(
        st.integers(0, len(text)), st.integers(0, 30), st.sampled_from(PIECES) | st.text(max_size=5), st.integers(1, 4)
    )

    def applied(edits: list[tuple[int, int, str, int]]) -> str:
        made = text
        for at, cut, piece, times in edits:
            made = made[:at] + piece * times + made[at + cut :]
        return made

    return st.lists(edit, min_size=1, max_size=6).map(applied)


def fuzz(check: Callable[[Path, object], None], inputs: st.SearchStrategy[object], folder: Path, few: int) -> None:
    """Try inputs, for `support.fuzzing.SECONDS` where that is set."""
    tries = Tries()

    @settings(
        max_examples=200 if SECONDS else few,
        deadline=None,
        database=None,
        derandomize=not SECONDS,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def tried(given_one: object) -> None:
        tries.examples += 1
        started = time.monotonic()
        check(folder, given_one)
        assert time.monotonic() - started < _LONGEST

    for _ in tries:
        tried()


def only_errors_of_ours(does: Callable[[], object]) -> None:
    try:
        found = does()
        if not isinstance(found, (str, list, dict)) and hasattr(found, "__iter__"):
            list(found)
    except DivconError as error:
        str(error).encode()  # it can be written


def test_pipeline_files(tmp_path: Path) -> None:
    def check(folder: Path, text: object) -> None:
        file = folder / "p.yaml"
        file.write_bytes(str(text).encode("utf-8", "surrogatepass"))
        only_errors_of_ours(lambda: load_pipeline(file).model_dump_json())
        only_errors_of_ours(lambda: declared_pipelines(file))

    fuzz(check, edited(FILE) | st.lists(st.sampled_from([*PIECES, *KEYS]), max_size=30).map("".join), tmp_path, 60)


def test_experiment_files(tmp_path: Path) -> None:
    def check(folder: Path, text: object) -> None:
        file = folder / "e.yaml"
        file.write_bytes(str(text).encode("utf-8", "surrogatepass"))
        only_errors_of_ours(lambda: load_experiment(file).model_dump_json())
        only_errors_of_ours(lambda: declared_pipelines(file))

    fuzz(check, edited(EXPERIMENT), tmp_path, 40)


def test_binary_files(tmp_path: Path) -> None:
    def check(folder: Path, data: object) -> None:
        for name in ("p.yaml", "q.jsonl", "q.jsonl.gz", "q.json"):
            (folder / name).write_bytes(bytes(data))  # type: ignore[call-overload]
        only_errors_of_ours(lambda: load_pipeline(folder / "p.yaml"))
        for name in ("q.jsonl", "q.jsonl.gz", "q.json"):
            only_errors_of_ours(lambda name=name: file_items(folder / name))
            only_errors_of_ours(lambda name=name: public_items("svamp", folder / name, None))

    whole = gzip.compress(b'{"question": "Q?", "answer": 1}\n')
    fuzz(check, st.binary(max_size=60) | st.binary(max_size=9).map(lambda more: whole[:-9] + more), tmp_path, 40)


def test_overrides(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(FILE)
    key = st.lists(st.sampled_from([*KEYS, "", "0", "roles", "compile"]) | st.text(max_size=3), max_size=4).map(
        ".".join
    )
    value = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=5).map("".join)
    words = st.lists(st.tuples(key, st.sampled_from(["=", ""]), value).map("".join), max_size=3)

    def check(folder: Path, overrides: object) -> None:
        only_errors_of_ours(lambda: load_pipeline(file, list(overrides)).model_dump_json())  # type: ignore[call-overload]

    fuzz(check, words, tmp_path, 60)


def test_json_lines(tmp_path: Path) -> None:
    def check(folder: Path, lines: object) -> None:
        file = folder / "q.jsonl"
        file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))  # type: ignore[arg-type]
        only_errors_of_ours(lambda: file_items(file))
        only_errors_of_ours(lambda: read_pairs(file))
        only_errors_of_ours(lambda: gsm8k_items(file, None))
        for overlap in ("refuse", "drop"):
            task = Task(name="jsonl", path=file, train=1, test=1, overlap=overlap)  # type: ignore[arg-type]
            only_errors_of_ours(lambda task=task: load_task(task))

    whole = st.fixed_dictionaries({"question": st.text(max_size=30), "answer": JSON}).map(json.dumps)
    fuzz(check, st.lists(LINE | whole, max_size=5), tmp_path, 60)


def test_tables(tmp_path: Path) -> None:
    def check(folder: Path, cells: object) -> None:
        text, encoding = cells  # type: ignore[misc]
        for name, delimiter in (("q.csv", None), ("q.tsv", None), ("q.csv", ";")):
            file, form = folder / name, Form(None, encoding, delimiter)
            file.write_bytes(text.encode("utf-8", "surrogatepass"))
            only_errors_of_ours(lambda file=file, form=form: file_items(file, form=form))
        only_errors_of_ours(lambda: load_task(Task(name="file", path=folder, train="50%", test="all", overlap="drop")))

    pieces = [
        *FIELDS,
        ",",
        ";",
        "\t",
        '"',
        '""',
        "\n",
        "\r\n",
        "\r",
        "|",
        "[",
        "{",
        "\x00",
        "\ufeff",
        "PAR1",
        "PK",
        "NaN",
    ]
    text = st.lists(st.sampled_from(pieces) | st.text(max_size=5), max_size=20).map("".join)
    whole = text.map(lambda rest: "question,answer\nWho?,Ann\n" + rest) | text.map(lambda rest: "input;output\n" + rest)
    encodings = st.sampled_from([None, "cp1252", "utf-16", "utf-7", "shift_jis"])
    fuzz(check, st.tuples(text | whole, encodings), tmp_path, 40)


def test_json_arrays(tmp_path: Path) -> None:
    def check(folder: Path, parts: object) -> None:
        opens, rows, closes = parts  # type: ignore[misc]
        (folder / "q.json").write_bytes((opens + ",".join(rows) + closes).encode("utf-8", "surrogatepass"))
        only_errors_of_ours(lambda: file_items(folder / "q.json"))
        fields = Fields(question="input", answer="answers.0.text", id=None)
        only_errors_of_ours(lambda: file_items(folder / "q.json", fields))

    opens = st.sampled_from(["[", "[", " [\n", '{"rows": [', "", "{", "[["])
    rows = st.lists(LINE | edited('{"question": "Who?", "answer": [1, {"a": NaN}]}'), max_size=4)
    fuzz(check, st.tuples(opens, rows, st.sampled_from(["]", "]", "]}", "", ",]", "]]"])), tmp_path, 40)


def test_parquet_and_saved_data_sets(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow comes with the extra train")
    datasets = pytest.importorskip("datasets", reason="datasets comes with the extra train")
    from pyarrow import parquet

    def rows(values: list[object]) -> list[dict[str, object]]:
        return [{"question": f"Is it {i}?", "answer": value, "more": {"id": [value]}} for i, value in enumerate(values)]

    def check(folder: Path, given: object) -> None:
        values, at, cut, piece = given  # type: ignore[misc]
        parquet.write_table(pyarrow.Table.from_pylist(rows(values)), folder / "q.parquet")
        only_errors_of_ours(lambda: file_items(folder / "q.parquet"))
        datasets.Dataset.from_list(rows(values)).save_to_disk(str(folder / "saved"))
        only_errors_of_ours(lambda: file_items(folder / "saved"))
        # The data itself is Arrow's to check, so what is damaged here is a file's end and what describes the data.
        for file in (folder / "q.parquet", *sorted((folder / "saved").glob("*.json"))):
            data = file.read_bytes()
            place = at % len(data)
            file.write_bytes(data[:place] + piece + data[place + cut :])
        only_errors_of_ours(lambda: file_items(folder / "q.parquet"))
        only_errors_of_ours(lambda: file_items(folder / "saved"))

    kinds = [st.floats(), st.text(max_size=5), st.booleans(), st.binary(max_size=5), st.dates(), st.none()]
    values = st.one_of([st.lists(kind | st.none(), min_size=1, max_size=4) for kind in kinds])
    fuzz(check, st.tuples(values, st.integers(0, 9999), st.integers(0, 99), st.binary(max_size=9)), tmp_path, 8)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_data_sets(tmp_path: Path, name: str) -> None:
    def check(folder: Path, rows: object) -> None:
        (folder / "q.jsonl").write_text("\n".join(json.dumps(row) for row in rows))  # type: ignore[attr-defined]
        (folder / "q.json").write_text(json.dumps(rows))
        for file in (folder / "q.jsonl", folder / "q.json"):
            task = Task(name=name, path=file, train=1, test=1)
            only_errors_of_ours(lambda task=task: load_task(task))

    fuzz(check, st.lists(ROW, max_size=4), tmp_path, 15)


def test_paths(tmp_path: Path) -> None:
    pieces = st.lists(
        st.sampled_from(["~", "$", "{", "}", "/", "HOME", "NOPE", "file:", ":", "a"]) | st.text(max_size=3)
    )

    def check(folder: Path, text: object) -> None:
        for does in (expanded, expanded_address, expanded_values):
            only_errors_of_ours(lambda does=does: does(str(text)))

    fuzz(check, pieces.map("".join), tmp_path, 100)
