import json
import random
import re
from pathlib import Path

import pytest

from divcon.benchmarks import is_right
from divcon.benchmarks.tasks import (
    FAMILIES,
    TaskError,
    gsm8k_items,
    json_lines_items,
    load_task,
    offline_items,
    split_of,
    template_instance,
)
from divcon.distill import OverlapError
from divcon.signatures import Subquestions


@pytest.mark.parametrize("family", FAMILIES)
def test_items_carry_two_to_four_distinct_references_with_sub_answers(family: str) -> None:
    items = offline_items(family, "train", 400)
    lengths = {len(item.subquestions) for item in items}
    assert lengths == {2, 3, 4}
    for item in items:
        assert len(item.sub_answers) == len(item.subquestions)
        assert Subquestions.read(Subquestions(item.subquestions).render()).items == item.subquestions
        assert is_right(item, item.sub_answers[-1].rpartition("= ")[2])
        assert item.facts


def test_the_steps_of_a_word_problem_are_sound() -> None:
    for item in offline_items("word-problems", "train", 400):
        for step in item.sub_answers:
            a, op, b, result = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", step).groups()
            computed = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}[op]
            assert computed == int(result)


def test_a_hop_is_stated_in_the_passage_and_its_names_are_not_ambiguous() -> None:
    for item in offline_items("passage-hops", "train", 400):
        assert item.context is not None
        for answer in item.sub_answers:
            assert answer.casefold() in item.context.casefold()
        assert all(text not in item.question for text in item.sub_answers[:-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_split_shares_a_template_instance_with_another(family: str) -> None:
    splits = {
        split: {template_instance(item) for seed in (0, 1) for item in offline_items(family, split, 500, seed)}
        for split in ("solver", "train", "test")
    }
    assert not splits["solver"] & splits["train"]
    assert not splits["solver"] & splits["test"]
    assert not splits["train"] & splits["test"]
    assert all(split_of(item) == "test" for item in offline_items(family, "test", 50))


def test_a_seed_fixes_the_items_and_a_longer_list_begins_like_a_shorter() -> None:
    assert offline_items("word-problems", "test", 20, 3) == offline_items("word-problems", "test", 50, 3)[:20]
    assert offline_items("word-problems", "test", 20, 3) != offline_items("word-problems", "test", 20, 4)


def test_the_offline_task_holds_both_families_in_equal_parts() -> None:
    task = load_task("offline", train=40, test=20)
    assert (len(task.train), len(task.test)) == (40, 20)
    assert [sum(item.family == family for item in task.test) for family in FAMILIES] == [10, 10]


def lines(file: Path, *rows: object) -> Path:
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return file


def test_anybodys_json_lines(tmp_path: Path) -> None:
    row = {"id": "x", "question": "Où?", "context": "Là\u2028bas.", "answer": 7, "subquestions": ["A or b?"]}
    file = lines(tmp_path / "a.jsonl", row, {"question": "Q2?", "answer": "b", "aliases": ["c"]})
    first, second = json_lines_items(file)
    assert (first.id, first.question, first.context, first.answer) == ("x", "Où?", "Là\u2028bas.", "7")
    assert (second.id, second.aliases, second.context) == ("line-2", ("c",), None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", "Line 2 of .* is not JSON"),
        ("[1]", "Line 2 of .* is no JSON object"),
        ({"question": "Q?"}, "Line 2 of .* has no 'answer'"),
        ({"question": "  ", "answer": "x"}, "Line 2 of .* has no 'question'"),
        ({"question": "Q?", "answer": ""}, "Line 2 of .* has no 'answer'"),
        ({"id": "line-1", "question": "Q?", "answer": "x"}, "Line 2 of .* has the id 'line-1' of line 1"),
        ({"question": "Q?", "answer": "x", "aliases": [1]}, "Line 2 of .*'aliases'"),
        ({"question": "Q?", "answer": "x", "aliases": "NYC"}, "Line 2 of .*'aliases'"),
        ({"question": "Q?", "answer": "x", "subquestions": 5}, "Line 2 of .*'subquestions'"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        json_lines_items(lines(tmp_path / "a.jsonl", {"question": "Q1?", "answer": "1"}, row))


def test_missing_empty_and_small_files_and_long_questions_are_clear_errors(tmp_path: Path) -> None:
    def load(file: Path, train: int = 1, test: int = 1) -> None:
        load_task("jsonl", train=train, test=test, path=file)

    with pytest.raises(TaskError, match="can't be read"):
        load(tmp_path / "nowhere.jsonl")
    with pytest.raises(TaskError, match="has 0 questions"):
        load(lines(tmp_path / "empty.jsonl"))
    rows = [{"question": f"Is it {'abcdefghij'[i]}?", "answer": "x"} for i in range(5)]
    with pytest.raises(TaskError, match="has 5 questions, and 4 \\+ 2"):
        load(lines(tmp_path / "small.jsonl", *rows), 4, 2)
    with pytest.raises(TaskError, match="20,000 characters"):
        load(lines(tmp_path / "long.jsonl", *rows, {"question": "x" * 20_000, "answer": "x"}), 4, 2)
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é?", "answer": "x"}\n'.encode("latin-1"))
    with pytest.raises(TaskError, match="not UTF-8"):
        load(tmp_path / "latin.jsonl")


def test_a_question_in_both_sets_is_refused_or_dropped(tmp_path: Path) -> None:
    rows = [{"question": "Is it so?", "answer": "x"}] * 2 + [{"question": "Or not?", "answer": "x"}]
    file = lines(tmp_path / "twice.jsonl", *rows)
    seed = next(s for s in range(50) if _split_twins(s))
    with pytest.raises(OverlapError, match="stand in the test set"):
        load_task("jsonl", train=2, test=1, path=file, seed=seed)
    task = load_task("jsonl", train=2, test=1, path=file, seed=seed, overlap="drop")
    assert (len(task.train), task.dropped_overlap) == (1, 1)


def _split_twins(seed: int) -> bool:
    order = [0, 1, 2]
    random.Random(seed).shuffle(order)
    return order[2] != 2


def test_socratic_gsm8k_rows_give_references(tmp_path: Path) -> None:
    answer = "How many bags? ** There are 2*3=<<2*3=6>>6 bags.\nHow many left? ** 6-1=<<6-1=5>>5 are left.\n#### 5"
    (item,) = gsm8k_items(lines(tmp_path / "s.jsonl", {"question": "Q?", "answer": answer}), None)
    assert item.subquestions == ("How many bags?", "How many left?")
    assert item.sub_answers == ("There are 2*3=6 bags.", "6-1=5 are left.")
    assert item.answer == "5"


@pytest.mark.realdata
def test_the_human_subquestions_of_gsm8k(real_data: Path) -> None:
    items = gsm8k_items(real_data / "gsm8k" / "test_socratic.jsonl", None)
    assert len(items) == 1319
    assert all(item.subquestions for item in items)
