"""Files as people have them: their forms, the names of their columns, and what is wrong with them."""

import gzip
import json
import re
import shlex
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from divcon.benchmarks import is_right
from divcon.benchmarks.tasks import Fields, Form, Task, TaskError, file_items, guess_fields, load_task, seen_form
from divcon.config import load_pipeline

ROWS = [
    {"id": f"q{i}", "question": f"How many, said {name}?\nCount \"them\", please.", "answer": 10 * i + 0.5,
     "context": f"{name} has {10 * i + 0.5} eggs.", "subquestions": ["How many has Ann?", f"And {name}?"]}
    for i, name in enumerate(["Ann", "Bob", "Cem", "Éva"])
]  # fmt: skip
CELLS = [{**row, "subquestions": json.dumps(row["subquestions"])} for row in ROWS]


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    def cell(value: object) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    lines = [rows[0], *(row.values() for row in rows)]
    return "".join(delimiter.join(map(cell, line)) + "\r\n" for line in lines)


def parquet(rows: list[dict[str, Any]], file: Path) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow comes with the extra train")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    return file


TEXTS: dict[str, Callable[[], str]] = {
    "q.jsonl": lambda: "".join(json.dumps(row) + "\n" for row in ROWS),
    "q.ndjson": lambda: "".join(json.dumps(row) + "\n" for row in ROWS),
    "q.json": lambda: json.dumps(ROWS, indent=1),
    "one.json": lambda: json.dumps({"name": "eggs", "rows": ROWS, "none": []}, indent=1),
    "lines.json": lambda: "".join(json.dumps(row) + "\n" for row in ROWS),
    "q.csv": lambda: table(CELLS),
    "q.TSV": lambda: table(CELLS, "\t"),
}


@pytest.mark.parametrize("name", [*TEXTS, *(f"{name}.gz" for name in TEXTS), "q.parquet", "saved", "folder"])
def test_one_set_of_questions_in_every_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "q.parquet":
        parquet(ROWS, path)
    elif name == "saved":
        datasets = pytest.importorskip("datasets", reason="datasets comes with the extra train")
        datasets.Dataset.from_list(ROWS).save_to_disk(str(path))
    elif name == "folder":
        (path / "deep").mkdir(parents=True)
        (path / "a.csv").write_text(table(CELLS[:2]), encoding="utf-8")
        (path / "deep" / "b.json").write_text(json.dumps(ROWS[2:]))
        (path / "README.md").write_text("no data")
        (path / "load.py").write_text("raise SystemExit")
        (path / ".hidden.json").write_text("{")
    else:
        text = TEXTS[name.removesuffix(".gz")]().encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    items = list(file_items(path))
    assert [item.id for item in items] == ["q0", "q1", "q2", "q3"]
    for item, row in zip(items, ROWS, strict=True):
        assert (item.question, item.answer, item.context) == (row["question"], str(row["answer"]), row["context"])
        assert item.subquestions == tuple(row["subquestions"])
        assert is_right(item, f"Answer: {row['answer']}")
    task = load_task(Task(name="file", path=path, train=2, test=2, overlap="same"))
    assert len({item.id for item in (*task.train, *task.test)}) == 4


@pytest.mark.parametrize("width", ["float16", "float32", "float64"])
def test_a_short_float_keeps_the_digits_that_were_written(tmp_path: Path, width: str) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow comes with the extra train")
    import pyarrow.parquet

    numpy = pytest.importorskip("numpy")
    answers = pa.array(numpy.array([4.1, 0.25], dtype=width))
    inner = pa.StructArray.from_arrays([answers], ["gold"])
    whole = pa.table({"question": ["What is it?", "And now?"], "answer": answers, "nested": inner})
    pyarrow.parquet.write_table(whole, tmp_path / "q.parquet")
    for answer in ("answer", "nested.gold"):
        found = file_items(tmp_path / "q.parquet", Fields(answer=answer))
        assert [item.answer for item in found] == ["4.1", "0.25"]
    datasets = pytest.importorskip("datasets")
    datasets.Dataset(whole).save_to_disk(str(tmp_path / "saved"))
    assert [item.answer for item in file_items(tmp_path / "saved")] == ["4.1", "0.25"]


CHAT = [
    {"role": "user", "content": "Compute it: 3 pens at $2."},
    {"role": "assistant", "content": "Each pen costs 2 dollars, so the three of them cost 6 dollars."},
]
LONGER = [
    {"role": "system", "content": "You help."},
    {"role": "human", "content": "Sum up."},
    {"role": "gpt", "content": "It is said at length here."},
]
SQUAD = {"title": "A", "question": "Who won it?", "answers": {"text": ["Ann", "Ann B."], "answer_start": [3, 3]}}


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"messages": CHAT}, "messages.0.content", "messages.1.content"),
        ({"conversations": LONGER}, "conversations.1.content", "conversations.2.content"),
        (SQUAD, "question", "answers.text.0"),
    ],
)
def test_the_columns_of_chats_and_of_lists_of_answers_are_guessed(
    tmp_path: Path, row: dict[str, Any], question: str, answer: str
) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row))
    found = guess_fields(tmp_path / "q.jsonl")
    assert (found.question, found.answer) == (question, answer)


def test_turns_that_differ_from_chat_to_chat_are_no_columns(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You help."}
    rows = [{"messages": CHAT}, {"messages": [system, *CHAT]}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TaskError, match="no field 'question' and no field 'answer'"):
        guess_fields(tmp_path / "q.jsonl")


def test_the_last_question_that_all_chats_answer_is_taken(tmp_path: Path) -> None:
    more = [{"role": "user", "content": "And 4 pens?"}]
    rows = [{"messages": [*CHAT, *more, *CHAT[1:]]}, {"messages": [*CHAT, *more]}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = guess_fields(tmp_path / "q.jsonl")
    assert (found.question, found.answer) == ("messages.0.content", "messages.1.content")


def test_a_column_that_is_guessed_for_one_is_not_offered_for_the_other(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("text\nWho won it?\nAnd when?\n")
    with pytest.raises(TaskError) as caught:
        guess_fields(tmp_path / "q.csv")
    assert "--set task.fields.question=text --set task.fields.answer=COLUMN" in caught.value.remedy


def test_the_line_in_which_excel_names_the_separator_is_no_header(tmp_path: Path) -> None:
    for name, mark in (("a.csv", ";"), ("b.csv", ","), ("c.csv", "\t")):
        (tmp_path / name).write_text(f"sep={mark}\nquestion{mark}answer\nWho?{mark}Ann\n")
        [item] = file_items(tmp_path / name)
        assert (item.question, item.answer) == ("Who?", "Ann")
        assert guess_fields(tmp_path / name, seen_form(tmp_path / name, Form())).question == "question"
        [item] = file_items(tmp_path / name, form=seen_form(tmp_path / name, Form()))
        assert item.answer == "Ann"


def test_numbered_steps_of_a_list_are_read_without_their_numbers(tmp_path: Path) -> None:
    row = {"question": "Q?", "answer": "1", "subquestions": ["1. C?", "2. D?"]}
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    [item] = file_items(tmp_path / "q.jsonl")
    assert list(item.subquestions) == ["C?", "D?"]


def test_cells_are_text_and_values_become_their_plain_text(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes(b"\xef\xbb\xbfquestion, answer ,grader\nIs it?,  007 ,text\n\n,,\nOr?,18.0,\n")
    first, second = file_items(tmp_path / "q.csv")
    assert (first.id, first.answer, first.grader) == ("row-1", "007", "text")
    assert (second.id, second.answer) == ("row-2", "18.0")
    for kind, values in {"float": [18.0, -0.25], "decimal": [Decimal("18.00"), Decimal("-0.25")]}.items():
        rows = [{"question": f"Is it {value}?", "answer": value, "context": None} for value in values]
        items = list(file_items(parquet(rows, tmp_path / f"{kind}.parquet")))
        assert [item.answer for item in items] == ["18", "-0.25"]
    refused = {"yes": True, "none": float("nan"), "day": date(2024, 1, 2), "list": ["a"]}
    for name, value in refused.items():
        rows = [{"question": "Is it?", "answer": value}]
        with pytest.raises(TaskError, match=r"^Row 1 of .*: 'answer' is neither text nor a number"):
            list(file_items(parquet(rows, tmp_path / f"{name}.parquet")))
    rows = [{"question": "Is it?", "answer": "x", "context": "c", "id": float("nan")}]
    (item,) = file_items(parquet(rows, tmp_path / "gaps.parquet"))
    assert (item.id, item.context) == ("row-1", "c")


def test_columns_may_have_any_name_and_be_nested(tmp_path: Path) -> None:
    rows = [
        {"input": "Who?", "output": {"text": ["Ann", "Anna"]}, "meta.uid": "a", "steps": "1. Who is it?\n2. Is #1 Ann?",
         "passage": "Ann.", "context": 5, "other": '["Annie"]'},
    ]  # fmt: skip
    (tmp_path / "q.json").write_text(json.dumps(rows))
    names = {"question": "input", "answer": "output.text.0", "id": "meta.uid", "subquestions": "steps"}
    (item,) = file_items(tmp_path / "q.json", Fields(**names, context="passage", aliases="other"))
    assert (item.id, item.question, item.answer, item.context) == ("a", "Who?", "Ann", "Ann.")
    assert (item.subquestions, item.aliases) == (("Who is it?", "Is #1 Ann?"), ("Annie",))
    with pytest.raises(TaskError, match="'context' is not text"):
        list(file_items(tmp_path / "q.json", Fields(**names)))
    (item,) = file_items(tmp_path / "q.json", Fields(**names, context=None))
    assert item.context is None
    rows[0]["steps"] = "no list at all"
    (tmp_path / "q.json").write_text(json.dumps(rows))
    with pytest.raises(TaskError, match="'steps' is not a list of text that reads as subquestions"):
        list(file_items(tmp_path / "q.json", Fields(**names, context=None)))


def test_a_list_in_a_cell_is_written_as_json_or_as_pandas_writes_it(tmp_path: Path) -> None:
    steps = ['Who said "it\'s so"?', "Find Ann's age."]
    cells = [json.dumps(steps), str(steps), "1. Who?\n2. When?", ""]
    (tmp_path / "q.csv").write_text(table([
        {"question": f"Is it {i}?", "answer": "x", "subquestions": cell} for i, cell in enumerate(cells)
    ]))  # fmt: skip
    found = [item.subquestions for item in file_items(tmp_path / "q.csv")]
    assert found == [tuple(steps), tuple(steps), ("Who?", "When?"), ()]
    for cell in ("['Is it?' 'Was it?']", "[5]", "[" * 9000, "['a?', __import__('os')]"):
        (tmp_path / "q.csv").write_text(table([{"question": "Is it?", "answer": "x", "aliases": cell}]))
        with pytest.raises(TaskError, match="'aliases' is not a list of text"):
            list(file_items(tmp_path / "q.csv"))


@pytest.mark.parametrize(
    ("columns", "sets"),
    [
        ({"input": "Who?", "output": "Ann"}, {"question": "input", "answer": "output"}),
        ({"Question": "Who?", "Final Answer": "Ann"}, {"question": "Question", "answer": "Final Answer"}),
        ({"problem": "Who?", "answer": "Ann", "gold": "x"}, {"question": "problem"}),
        ({"row": {"prompt": "Who?", "no": "yes"}, "label": 3}, {"question": "row.prompt", "answer": "label"}),
        (
            {"sQuestion": "Who?", "answers": ["Ann"], "true_answer": 3},
            {"question": "sQuestion", "answer": "true_answer"},
        ),
        ({"context": "Who is it, where?", "said": "Who?", "ref": "A"}, {"question": "said", "answer": "ref"}),
        ({"nr": 1, "Frage": "Wer ist es, sag?", "Antwort": "Ann"}, {"question": "Frage", "answer": "Antwort"}),
        ({"nr": 1, "was": "Wer ist es?", "no": "Ann", "wo": None}, {"question": "was", "answer": None}),
    ],
)
def test_a_missing_column_is_guessed_and_the_guess_works_when_it_is_set(
    tmp_path: Path, columns: dict[str, object], sets: dict[str, str | None]
) -> None:
    file = tmp_path / "q.json"
    file.write_text(json.dumps([columns, columns]))
    with pytest.raises(TaskError) as caught:
        list(file_items(file))
    assert caught.value.problem.startswith(f"{file} has no field '{next(iter(sets))}'")
    assert all(f"'{name}'" in caught.value.problem for name, value in columns.items() if not isinstance(value, dict))
    words = shlex.split(re.sub(r" \(guessed.*", "", caught.value.remedy.removeprefix("Add ")).rstrip("."))
    given = dict(word.removeprefix("task.fields.").split("=", 1) for word in words if word != "--set")
    if None in sets.values():
        assert given == {"question": "was", "answer": "COLUMN"}
        return
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(
        f"task: {{name: file, path: {file}, train: 1, test: 1, overlap: same}}\n"
        "roles: {teacher: {model: scripted/references}, solver: {model: openai/x}}\n"
    )
    fields = load_pipeline(pipeline, [word for word in words if word != "--set"]).task.fields
    assert fields is not None
    assert {name: getattr(fields, name) for name in given} == sets
    assert next(file_items(file, fields)).question.startswith("W")


def test_a_column_that_task_fields_names_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,answer,passage\nWho?,Ann,Ann.\n")
    with pytest.raises(TaskError, match=r"no field 'text'; its fields are 'question',.* task.fields.context=passage "):
        list(file_items(tmp_path / "q.csv", Fields(context="text")))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("q.csv", b"", r"is empty: it has 0 questions"),
        ("q.csv", b"question,answer\n", r"has a header and no rows: it has 0 questions"),
        ("q.csv", b"question;answer\nWho?;Ann\n", r"one column, 'question;answer'.*--set \"task.delimiter=';'\""),
        ("q.csv", b"question\tanswer\nWho?\tAnn\n", r"one column.*--set task.format=tsv"),
        ("q.tsv", b"question,answer\nWho?,Ann\n", r"one column.*--set \"task.delimiter=','\""),
        ("q.csv", "question,answer\nOù?,là\n".encode("cp1252"), r"not UTF-8: .*--set task.encoding=cp1252"),
        ("q.csv", "question,answer\nWho?,Ann\n".encode("utf-16"), r"not UTF-8: .*--set task.encoding=utf-16\."),
        ("q.csv", "question,answer\nWho?,Ann\n".encode("utf-16-le"), r"null characters.*task.encoding=utf-16-le"),
        ("q.csv", b'{"question": "Who?", "answer": "Ann"}\n', r"ends like CSV and begins like JSON Lines.*=jsonl"),
        ("q.jsonl", b"question,answer\nWho?,Ann\n", r"begins like CSV\..*--set task.format=csv"),
        ("q.jsonl", b'[{"question": "Who?", "answer": "Ann"}]', r"begins like a JSON array.*--set task.format=json"),
        ("q.json", b"question\tanswer\nWho?\tAnn\n", r"begins like TSV.*--set task.format=tsv"),
        ("q.parquet", b"question,answer\nWho?,Ann\n", r"ends like Parquet and begins like CSV.*--set task.format=csv"),
        ("q.xlsx", b"PK\x03\x04", r"Excel workbook"),
        ("q.dat", b"question,answer\nWho?,Ann\n", r"tells no format and begins like CSV.*--set task.format=csv"),
        ("q.dat", b"what is it", r"is of no known format.*'.csv'"),
        ("q.parquet", b"what is it", r"is no Parquet"),
        ("q.csv", b"input;output\nWho?;Ann\n", r"with ';'.*no field 'question'.*delimiter=';'\".*answer=output"),
        ("q.txt", b"input\toutput\nWho?\tAnn\n", r"begins like TSV.*no field 'question'.*=tsv.*fields.answer=output"),
        ("q.parquet", b"PAR1 and no more", r"q.parquet can't be read"),
        ("q.csv", b"question,answer,answer\nWho?,Ann,Bob\n", r"Columns of .* have one name: 'answer'"),
        ("q.json", b'[{"question": "Who?", "answer": "Ann"} {', r"Row 1 \(line 1\) .* isn't followed by a comma"),
        ("q.json", b'{"question":\n 1', r"no JSON document"),
        ("q.json", b'{"question": {"0": "Who?"}, "answer": {"0": 1}}', r"no list of rows.*orient='records'"),
        ("q.json", b'["Who?"]', r"is no JSON object.*such as \{\"question\""),
        ("q.jsonl", b'{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann"}]}\n',
         r"question=messages\.0\.content --set task\.fields\.answer=messages\.1\.content"),
        ("q.json", b'{"a": 1,\n "b": [1]}', r"holds an object with 'a', 'b', and no list of rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_the_setting_that_would_work(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(TaskError) as caught:
        list(file_items(file))
    assert re.search(message, str(caught.value)), caught.value
    if "--set" in caught.value.remedy:
        words = [word.rstrip(".").removeprefix("task.") for word in shlex.split(caught.value.remedy) if "task." in word]
        sets = dict(word.split("=", 1) for word in words)
        fields = Fields(**{key.removeprefix("fields."): sets.pop(key) for key in list(sets) if "." in key})
        form = Form(**{key: value.strip("'") for key, value in sets.items()})
        assert [item.question[:1] for item in file_items(file, fields, form)] in (["W"], ["O"])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("q.csv", b"Who is it?,Ann\nWho else?,Bob\n", r"If its first line is no header, write one above it"),
        ("q.csv", b"question\nWho?\n", r"no field 'answer'.*answer=COLUMN\. Without gold answers nothing can be"),
        ("q.csv", b"question,answer\nWho?,\n", r"The field 'answer' of .* is empty\. Without gold answers"),
    ],
)  # fmt: skip
def test_what_no_setting_mends_is_said_with_what_does(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TaskError, match=message):
        list(file_items(tmp_path / name))


def test_all_problems_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    rows = ["input,answer,id", "A?,1,a", '"B\n?",,b', "C?,2", "D?,3,a", "E?,,e", "F?,4,f,g,h", 'G"?,5,g', '"H"x,6,h']
    file.write_text("\n".join([*rows, *(f"I{i}?,,i{i}" for i in range(9))]) + '\n"J?,7,j\n')
    with pytest.raises(TaskError) as caught:
        load_task(Task(name="file", path=file, train=1, test=1))
    said = caught.value.problem
    assert said.startswith(
        f"{file} has no field 'question'; its fields are 'input', 'answer', 'id'. 16 rows of {file} "
    )
    for part in (
        "row 2 (line 3) has no 'answer' (also rows 5 (line 7), 9 (line 11), 10 (line 12), 11 (line 13) and 6 more)",
        "row 3 (line 5) has 2 cells, and the header has 3",
        "row 4 (line 6) has the id 'a' of row 1 (line 2)",
        "row 6 (line 8) has 5 cells, and the header has 3",
        "row 8 (line 10) is not CSV: ",
        "row 18 (line 20) is not CSV: unexpected end of data",
    ):
        assert part in said
    assert "--set task.fields.question=input" in caught.value.remedy
    assert caught.value.remedy.count("Give every row its own id.") == 1


def test_rows_of_an_array_are_refused_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "q.json"
    rows = ['{"question": "A?", "answer": 1}', '{"question": "B?", "answer": NaN}', "5", '{"id": 1, "id": 2}']
    file.write_text("[\n" + ",\n".join([*rows, '{"question": "C\\ud800?", "answer": 1}', '{"question": "D?"}']) + "\n]")
    with pytest.raises(TaskError) as caught:
        list(file_items(file))
    said = caught.value.problem
    assert said.startswith(f"5 rows of {file} can't be used: row 2 (line 3) is not JSON: NaN is no number; ")
    for part in (
        "row 3 (line 4) is no JSON object",
        "row 4 (line 5) is not JSON: the key 'id'",
        "row 5 (line 6) is not JSON: it holds half of a character",
        "row 6 (line 7) has no 'answer'",
    ):
        assert part in said


def test_the_problems_of_several_files_are_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer,id\nA?,1,x\nB?,,y\n")
    (tmp_path / "b.jsonl").write_text('{"question": "C?", "answer": 1, "id": "x"}\n{"question": "D?"}\n')
    (tmp_path / "c.csv").write_text("question;answer\nE?;1\n")
    with pytest.raises(TaskError) as caught:
        list(file_items(tmp_path))
    said = caught.value.problem
    assert said.startswith(f"{tmp_path / 'c.csv'} has one column")
    assert "row 2 (line 3) of a.csv has no 'answer' (also line 2 of b.jsonl)" in said
    assert "line 1 of b.jsonl has the id 'x' of row 1 (line 2) of a.csv" in said


def test_a_passage_may_be_longer_than_pythons_limit_for_a_cell(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(f"question,answer,context\nA?,1,{'x' * 200_000}\n")
    (item,) = file_items(tmp_path / "q.csv")
    assert len(item.context or "") == 200_000


def test_the_splits_of_a_folder(tmp_path: Path) -> None:
    for name, letter in (("train-00000-of-00002", "a"), ("train-00001-of-00002", "b"), ("test", "c")):
        (tmp_path / f"{name}.csv").write_text("question,answer\n" + "".join(f"{letter}{i}?,1\n" for i in range(5)))
    task = load_task(Task(name="file", path=tmp_path, test_split="test", train="all", test="all", overlap="same"))
    assert sorted(item.question for item in task.train) == [f"{letter}{i}?" for letter in "ab" for i in range(5)]
    assert sorted(item.question for item in task.test) == [f"c{i}?" for i in range(5)]
    with pytest.raises(TaskError, match=r"has the splits 'test', 'train'\."):
        load_task(Task(name="file", path=tmp_path, test_split="dev", train=1, test=1))
    datasets = pytest.importorskip("datasets", reason="datasets comes with the extra train")
    both = {name: datasets.Dataset.from_list([{**row, "id": None} for row in ROWS]) for name in ("train", "test")}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "saved"))
    items = list(file_items(tmp_path / "saved"))
    assert [item.id for item in items][::4] == ["train-row-1", "test-row-1"]
    assert len(list(file_items(tmp_path / "saved", wanted=lambda split: split == "test"))) == 4
    broken = next((tmp_path / "saved" / "test").glob("*.arrow"))
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(TaskError, match="can't be read"):
        list(file_items(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("train", "test", "train_seed", "drawn"),
    [
        ("70%", "30%", None, (7, 3)),
        ("all", "30%", 1, (7, 3)),
        ("70%", "all", None, (7, 3)),
        ("all", 4, None, (6, 4)),
        (5, "all", 2, (5, 5)),
        ("33.3%", "33.3%", None, (3, 3)),
        ("50%", "1%", None, (5, 1)),
        ("29%", "57%", 0, (2, 5)),
    ],
)
def test_shares_are_of_all_questions(
    tmp_path: Path, train: int | str, test: int | str, train_seed: int | None, drawn: tuple[int, int]
) -> None:
    file = tmp_path / "q.csv"
    file.write_text("question,answer\n" + "".join(f"{'abcdefghij'[i]}?,1\n" for i in range(10)))
    given = {"name": "file", "path": file, "overlap": "same", "seed": 3, "train_seed": train_seed}
    task = load_task(Task(**given, train=train, test=test))
    assert (len(task.train), len(task.test)) == drawn
    assert task == load_task(Task(**given, train=train, test=test))
    assert task == load_task(Task(**given, train=drawn[0], test=drawn[1]))  # the same questions as by numbers
    alone = load_task(Task(**given, test_path=file, train="20%", test="all", near_duplicate=1, allow=[
        {"id": f"test-row-{i}", "reason": "the same file"} for i in range(1, 11)
    ]))  # fmt: skip
    assert (len(alone.train), len(alone.test)) == (2, 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "80%", "test": "30%"}, "80% and 30% are more than all"),
        ({"train": "all", "test": "all"}, "can't both be all"),
        ({"train": "0%", "test": 1}, "write an integer from 1, a share such as 70%, or all"),
        ({"train": "101%", "test": 1}, "a share such as 70%"),
        ({"train": True, "test": 1}, "a share such as 70%"),
        ({"train": 0.7, "test": 1}, "a share such as 70%"),
        ({"train": 1, "test": 1, "encoding": "rot13"}, "no encoding of text 'rot13'"),
        ({"train": 1, "test": 1, "delimiter": '"'}, "delimiter"),
        ({"train": 1, "test": 1, "fields": {"questions": "q"}}, "fields.questions"),
        ({"train": "70%", "test": 1, "name": "offline"}, "makes as many questions as are wanted"),
        ({"train": 1, "test": 1, "name": "gsm8k", "format": "csv"}, "gsm8k takes no format"),
    ],
)
def test_settings_that_cant_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Task(**{"name": "file", "path": "q.csv", **given})
