"""Recordings: how their files are read, which questions their rows are of, and arms that replay them."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from divcon.benchmarks import (
    Arm,
    RecordedProgram,
    RowFields,
    as_csv,
    compare_costs,
    differences,
    evaluate_arms,
    grade,
    plans_of,
    read_recording,
    summarize_arm,
)
from divcon.benchmarks.tasks import TaskError, gsm8k_items
from divcon.distill import Key, RunStore
from divcon.programs import Item
from divcon.signatures import Subquestions

NESTED = RowFields(question="problem", subquestions="questions", reply="answers", right="rewards.correct")


def written(folder: Path, rows: list, name: str = "plans.jsonl") -> Path:
    file = folder / name
    array = name.removesuffix(".gz").endswith(".json")
    text = json.dumps(rows) if array else "\n".join(map(json.dumps, rows)) + "\n\n"
    data = text.encode()
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return file


def read(file: Path, fields: RowFields | None = None, needs: str = "subquestions"):
    return read_recording(file, fields or RowFields(), needs, "roles.teacher")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_each_form_of_file_is_read(tmp_path: Path, items: list[Item], name: str) -> None:
    rows = [
        {"problem": f" {item.question} ", "questions": list(item.subquestions), "rewards": {"correct": 1.0}}
        for item in items
    ]
    found = read(written(tmp_path, rows, name), NESTED)
    matching = found.match(items)
    assert list(matching.rows) == [item.id for item in items]
    assert list(Subquestions.read(plans_of(matching)["i3"][0].text)) == list(items[3].subquestions)
    assert matching.first["i3"].right is True
    assert len(found.sha256) == 64


def test_an_exact_id_goes_before_one_without_its_task_or_its_part(tmp_path: Path) -> None:
    """In experiments a task's name stands before ids, and `test-` before those of a file of test questions."""
    asked = [
        Item(id=name, question=f"Which one is {name}?", answer="1")
        for name in ("1", "x:1", "test-1", "y:test-2", "y:3")
    ]
    rows = [{"id": name, "subquestions": f"1. Of {name}?"} for name in ("1", "x:1", "2", "3")]
    matching = read(written(tmp_path, rows)).match(asked)
    assert {key: row.plan for key, row in matching.first.items()} == {
        "1": "1. Of 1?",
        "x:1": "1. Of x:1?",
        "y:test-2": "1. Of 2?",
        "y:3": "1. Of 3?",
    }
    confirmed = [{"id": 1, "question": "Which one is test-1?", "subquestions": "1. Of the test question?"}]
    matching = read(written(tmp_path, confirmed)).match(asked)
    assert (list(matching.rows), matching.misnamed) == (["test-1"], 0)


def test_rows_of_other_questions_of_the_task_are_no_strangers(tmp_path: Path, items: list[Item]) -> None:
    rows = [*({"id": item.id, "reply": "7"} for item in items), {"id": "nobody", "reply": "7"}]
    matching = read(written(tmp_path, rows), needs="reply").match(items[:5], items[5:])
    assert (len(matching.rows), matching.strangers) == (5, 1)
    learn, test = (Item(id=name, question=f"Is it {name}?", answer="1") for name in ("1", "test-1"))
    recording = read(written(tmp_path, [{"id": "1", "reply": "a"}, {"id": "test-1", "reply": "b"}]), needs="reply")
    matching = recording.match([test], [learn])
    assert ([[row.reply for row in rows] for rows in matching.rows.values()], matching.strangers) == ([["b"]], 0)
    assert recording.match([test]).first["test-1"].reply == "b", "an exact id goes first, wherever its row stands"


def test_a_part_of_an_id_that_several_questions_share_names_none(tmp_path: Path) -> None:
    asked = [Item(id=name, question=f"Which one is {name}?", answer="1") for name in ("math:1", "sport:1", "art:9")]
    rows = [{"id": "1", "reply": "a"}, {"id": "9", "reply": "b"}, {"id": "sport:1", "reply": "c"}]
    matching = read(written(tmp_path, rows), needs="reply").match(asked)
    assert {name: row.reply for name, row in matching.first.items()} == {"art:9": "b", "sport:1": "c"}
    assert (matching.ambiguous, matching.strangers, matching.misnamed) == (1, 0, 0)
    told = [
        {"id": "1", "question": "Which one is math:1?", "reply": "a"},
        {"id": "sport:1", "question": "", "reply": "c"},
    ]
    matching = read(written(tmp_path, told), needs="reply").match(asked)
    assert {name: row.reply for name, row in matching.first.items()} == {"math:1": "a", "sport:1": "c"}


def test_plans_without_a_word_are_counted(tmp_path: Path, items: list[Item]) -> None:
    rows = [{"id": "i0", "subquestions": None}, {"id": "i1", "subquestions": ""}, {"id": "i2", "subquestions": ["A?"]}]
    said = read(written(tmp_path, rows)).match(items).coverage("plans.jsonl", "a plan", {"training": items})
    assert said == "plans.jsonl: 3 of 20 training questions have a plan; 2 plans without a word"
    more = read(written(tmp_path, [*rows, {"id": "i2", "subquestions": None}])).match(items)
    assert "3 plans without a word" in more.coverage("plans.jsonl", "a plan", {"training": items}, taken=2)


def test_a_program_whose_plans_are_empty_lists_didnt_split(tmp_path: Path, items: list[Item]) -> None:
    rows = [{"id": item.id, "subquestions": [], "reply": "Final answer: 1"} for item in items]
    program = RecordedProgram(read(written(tmp_path, rows), needs="reply"), items)
    assert not program.splits
    assert program(question=items[0].question).status == "whole"
    rows[3]["subquestions"] = ["Who is it?"]
    program = RecordedProgram(read(written(tmp_path, rows), needs="reply"), items)
    assert program.splits
    assert program(question=items[3].question).status == "decomposed"


def test_a_text_that_several_passages_share_names_no_question(tmp_path: Path) -> None:
    asked = [Item(id=name, question="Who won it?", answer=name, context=f"{name} won.") for name in ("Ann", "Bert")]
    matching = read(written(tmp_path, [{"question": "Who won it?", "subquestions": "1. Who?"}])).match(asked)
    assert (dict(matching.rows), matching.ambiguous, matching.strangers) == ({}, 1, 0)
    said = matching.coverage("plans.jsonl", "a plan", {"training": asked})
    assert said.endswith("1 row of several questions at once (write the whole id)")


def test_questions_with_the_same_text_are_replayed_by_their_ids(tmp_path: Path) -> None:
    asked = [Item(id=name.lower(), question="Who won it?", answer=name) for name in ("Ann", "Bert")]
    recording = read(written(tmp_path, [{"id": item.id, "reply": item.answer} for item in asked]), needs="reply")
    arm = Arm("theirs", RecordedProgram(recording, asked), Key({"a": 1}), "Theirs", recording={"file": "x"})
    [records] = evaluate_arms([arm], asked, RunStore(tmp_path / "run"))
    assert {key: record["outcome"] for key, record in records.items()} == {"ann": "right", "bert": "right"}


def test_tokens_may_be_written_as_pandas_writes_them(tmp_path: Path) -> None:
    rows = [{"id": "a", "subquestions": "1. Who?", "input_tokens": 10.0, "output_tokens": 4}]
    [row] = read(written(tmp_path, rows)).rows
    assert (row.input_tokens, row.output_tokens) == (10, 4)
    with pytest.raises(TaskError, match="its tokens are no whole numbers"):
        read(written(tmp_path, [{**rows[0], "input_tokens": 10.5}]))


def test_numbers_of_a_lists_items_are_no_part_of_them(tmp_path: Path) -> None:
    rows = [{"id": "a", "subquestions": ["1. How many?", "2) When?"]}, {"id": "b", "subquestions": ["3. How many?"]}]
    plans = [row.plan for row in read(written(tmp_path, rows)).rows]
    assert plans == ["1. How many?\n2. When?", "1. 3. How many?"]


def test_rows_match_by_id_where_both_have_one_and_else_by_question(tmp_path: Path, items: list[Item]) -> None:
    rows = [
        {"id": "i0", "subquestions": "1. By id?"},
        {"id": "elsewhere-1", "question": "What is 1 plus  zero\ntimes two?", "subquestions": "1. By question?"},
        {"id": "i2", "question": items[3].question, "subquestions": "1. By question, not by id?"},
        {"question": items[0].question, "subquestions": "1. Too late?"},
        {"question": "Which question is this?", "subquestions": "1. Whose?"},
    ]
    matching = read(written(tmp_path, rows)).match(items)
    assert {key: row.plan for key, row in matching.first.items()} == {
        "i0": "1. By id?",
        "i1": "1. By question?",
        "i3": "1. By question, not by id?",
    }
    assert matching.coverage("plans.jsonl", "a plan", {"training": items}) == (
        "plans.jsonl: 3 of 20 training questions have a plan; 1 row of other questions; "
        "1 row with the id of a question and another text; 1 question with more than one row (the first is taken)"
    )
    named = [replace(item, id=f"task:{item.id}") for item in items]
    assert read(written(tmp_path, rows)).match(named).first["task:i0"].plan == "1. By id?"


def test_an_outcome_is_the_recorded_one_else_that_of_the_reply_else_unknown(tmp_path: Path, items: list[Item]) -> None:
    rows = [
        {"id": "i0", "subquestions": [], "right": 0.0, "reply": "Final answer: 0"},
        {"id": "i1", "subquestions": [], "reply": "1. one\nFinal answer: 1"},
        {"id": "i2", "subquestions": [], "reply": "Final answer: 3"},
        {"id": "i3", "subquestions": [], "reply": None},
        {"id": "i4", "subquestions": []},
        {"id": "i5", "subquestions": None, "right": True},
    ]
    found = read(written(tmp_path, rows)).match(items).first
    outcomes = [found[item.id].outcome(item, grade) for item in items[:6]]
    assert outcomes == [False, True, False, False, None, True]
    assert [found[f"i{n}"].plan for n in (4, 5)] == ["No decomposition.", ""]


def test_all_broken_rows_are_said_at_once_with_the_fields_there_are(tmp_path: Path) -> None:
    file = tmp_path / "plans.jsonl"
    rows = [
        {"question": "q?", "plan": {"steps": ["a?"]}},
        {"subquestions": ["a?"]},
        {"question": "q?", "subquestions": [1]},
        {"question": "q?", "subquestions": "1. a?", "right": "yes"},
        {"question": "q?", "subquestions": "1. a?", "input_tokens": -1},
    ]
    file.write_text("\n".join([*map(json.dumps, rows), "{", "[]"]))
    with pytest.raises(TaskError) as error:
        read(file)
    said = str(error.value)
    assert "7 rows of" in said and "line 1 has no 'subquestions'" in said and "line 2 has neither" in said
    assert "line 3: 'subquestions' is neither text nor a list of texts" in said
    assert "line 4: 'right' is neither true nor false, 1 nor 0" in said
    assert "roles.teacher.fields; a row has question, plan.steps" in said


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("none.jsonl", None, "can't be read"),
        ("a.jsonl.gz", b"no gzip", "no whole gzip file"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8"),
        ("a.jsonl", b"\n", "holds no row"),
        ("a.json", b"[{]", "is not JSON"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, data: bytes | None, problem: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(TaskError, match=problem):
        read(tmp_path / name)


def replay(folder: Path, items: list[Item]) -> Arm:
    rows = [
        {"id": "i0", "subquestions": "1. What is it?\n2. And then?", "reply": "1. 0\n2. 0\nFinal answer: 0"},
        {"id": "i1", "subquestions": "1. What?\n2. What?", "reply": "Final answer: 7"},
        {"id": "i2", "subquestions": [], "reply": None},
    ]
    recording = read(written(folder, rows), needs="reply")
    program = RecordedProgram(recording, items)
    origin = {"file": recording.file.name, "sha256": recording.sha256}
    return Arm("theirs", program, Key({"rows": recording.deciding}), "Theirs", choosable=False, recording=origin)


def test_an_arm_is_replayed_graded_and_kept_without_a_call(tmp_path: Path, items: list[Item]) -> None:
    arm, store = replay(tmp_path, items), RunStore(tmp_path)
    [records] = evaluate_arms([arm], items[:4], store, place=lambda work: pytest.fail)
    assert [record["outcome"] for record in records.values()] == ["right", "wrong", "wrong", "failed"]
    assert (records["i0"]["answer"], records["i0"]["sub_answers"]) == ("0", "1. 0\n2. 0")
    assert records["i0"]["subquestions"] == ["What is it?", "And then?"]
    assert records["i1"]["subquestions"] == ["1. What?", "2. What?"], "the program ran with what the reader refuses"
    assert (records["i2"]["status"], records["i2"]["answer"]) == ("unreadable", "")
    assert "plans.jsonl has no row for the question 'What is 3" in records["i3"]["error"]
    line = summarize_arm(arm, [records], 200, max_failed=0.5)
    assert (line["accuracy"], line["unreadable"], line["usage"], line["bill"]) == (pytest.approx(1 / 3), 1, {}, None)
    assert line["recording"]["file"] == "plans.jsonl"
    assert as_csv([line]).splitlines()[1].startswith("theirs,Theirs,")
    assert summarize_arm(arm, [records], 200)["withheld"], "a question without a row counts as failed"
    assert compare_costs([line], {})["choice"] is None
    assert differences({"a": [records], "b": [records]}, 200, max_failed=0.5)[0]["left_out"] == 1


def test_the_published_replies_to_gsm8k_are_all_read(real_data: Path) -> None:
    items = gsm8k_items(real_data / "gsm8k" / "test.jsonl", None)
    folder = real_data / "gsm8k_ai_subq"
    teacher = read(
        folder / "chatgpt_plans_test.json", RowFields(subquestions="answers", right="rewards.answer_correctness")
    )
    rows = teacher.match(items).first
    assert sum(bool(row.right) for row in rows.values()) == 882 and len(rows) == 1319
    fields = RowFields(question="problem", subquestions="questions", reply="answers")
    found = read(folder / "students" / "finetune_dist_solved_by_llama13b.jsonl.gz", fields, "reply").match(items)
    assert (len(found.rows), found.strangers) == (1319, 0), "four of its questions have other spaces"
    assert sum(bool(found.first[item.id].outcome(item, grade)) for item in items) == 250
