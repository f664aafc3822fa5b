import json
import random
import re
import tracemalloc
from pathlib import Path

import pytest

from divcon.benchmarks import grade, is_right, item_of
from divcon.benchmarks.tasks import (
    FAMILIES,
    OFFLINE,
    LoadedTask,
    Task,
    TaskError,
    file_items,
    gsm8k_items,
    load_task,
    offline_items,
    read_pairs,
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


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def test_the_steps_of_a_schedule_are_sound() -> None:
    for item in offline_items("schedules", "train", 400):
        for step in item.sub_answers:
            if match := re.fullmatch(r"(\d+) ([-+*]) (\d+) = (\d+)", step):
                a, op, b, result = match.groups()
                assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[op] == int(result) < 24
            else:
                day, op, days, after = re.fullmatch(r"(\w+) ([-+]) (\d+) days = (\w+)", step).groups()
                moved = int(days) if op == "+" else -int(days)
                assert DAYS[(DAYS.index(day) + moved) % 7] == after
                assert days in item.question or any(f"= {days}" in other for other in item.sub_answers)


def test_the_steps_of_a_conversion_are_sound() -> None:
    for item in offline_items("unit-conversion", "train", 400):
        amount = None
        for step in item.sub_answers:
            a, op, b, result = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", step).groups()
            assert amount in (None, a)  # every step goes on from the one before
            computed = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}[op]
            assert computed == int(result)
            amount = result
        assert item.answer == amount


def test_a_deduction_has_one_chain_that_leads_to_the_answer() -> None:
    for item in offline_items("deduction", "train", 400):
        rules = dict(re.findall(r"If ([^,]+), ([^.]+)\.", item.context or ""))
        who, *values = item.sub_answers
        assert who in item.question
        assert not re.search(rf"{who} (?:did|doesn)|neither[^.]*{who}|nor {who}", item.question)
        case = f"it is {who}"
        for value in values:
            case = rules[case]
            assert case.endswith(value)
        assert item.answer == values[-1]
        assert len(rules) == 3 * len(values)


def test_seeds_of_the_training_set_share_a_test_set_and_smaller_sets_begin_larger_ones(tmp_path: Path) -> None:
    rows = [{"question": f"Is it {i} {'abcdefghij'[i % 10]}?", "answer": "x"} for i in range(40)]
    file = lines(tmp_path / "a.jsonl", *rows)
    for name, path in (("word-problems", None), ("jsonl", file)):

        def load(seed: int, train: int, name: str = name, path: Path | None = path) -> LoadedTask:
            return load_task(Task(name=name, train=train, test=8, path=path, train_seed=seed))

        one, other, small = load(1, 12), load(2, 12), load(1, 5)
        assert one.test == other.test == small.test
        assert one.train != other.train
        assert small.train == one.train[:5]
        assert not {item.id for item in one.train} & {item.id for item in one.test}


def test_answers_are_shares_where_a_task_says_so(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", *({"question": f"How much is {i}?", "answer": f"{i} %"} for i in range(1, 5)))
    item = load_task(Task(name="jsonl", train=1, test=1, path=file, percent=True)).test[0]
    number = int(item.answer.split()[0])
    for right in (f"{number}%", f"{number} percent", f"0.0{number}", f"Answer: {number} %", f"{number}/100"):
        assert is_right(item, right), right
    assert not is_right(item, str(number))
    named = lines(tmp_path / "b.jsonl", *({"question": f"Which {w}?", "answer": "Boeing 747"} for w in "ab"))
    assert not is_right(load_task(Task(name="jsonl", train=1, test=1, path=named, percent=True)).test[0], "Airbus 747")
    plain = load_task(Task(name="jsonl", train=1, test=1, path=file)).test[0]
    assert is_right(plain, plain.answer.split()[0])


def test_a_clock_may_be_read_in_any_form() -> None:
    items = [item for item in offline_items("schedules", "train", 300) if item.aliases]
    assert items
    for item in items:
        hour = int(item.answer)
        half = f"{hour % 12 or 12} {'am' if hour < 12 else 'pm'}"
        for reply in (f"{hour}:00", f"Answer: {hour}:00", half, half.replace(" ", ":00 ")):
            assert is_right(item, reply), (item.answer, reply)
        assert not is_right(item, f"{hour + 1}:00")


def test_reasoning_gym_is_one_more_source() -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym isn't installed; it is an extra")
    one, other = (
        load_task(Task(name="reasoning-gym", train=30, test=5, subtask="chain_sum", train_seed=s)) for s in (0, 1)
    )
    shared = {item.question for item in one.train} & {item.question for item in other.train}
    assert len(shared) < 5
    assert one.test == other.test
    task = load_task(Task(name="reasoning-gym", train=12, test=6, subtask="chain_sum"))
    assert (len(task.train), len(task.test)) == (12, 6)
    assert not {item.question for item in task.train} & {item.question for item in task.test}
    assert all(is_right(item, item.answer) for item in task.train)
    with pytest.raises(TaskError, match="gives no data set 'nothing'"):
        load_task(Task(name="reasoning-gym", train=1, test=1, subtask="nothing"))


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
    task = load_task(Task(name="offline", train=40, test=20))
    assert (len(task.train), len(task.test)) == (40, 20)
    assert [sum(item.family == family for item in task.test) for family in OFFLINE] == [10, 10]


def lines(file: Path, *rows: object) -> Path:
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return file


def test_anybodys_json_lines(tmp_path: Path) -> None:
    row = {"id": "x", "question": "Où?", "context": "Là\u2028bas.", "answer": 7, "subquestions": ["A or b?"]}
    file = lines(tmp_path / "a.jsonl", row, {"question": "Q2?", "answer": "b", "aliases": ["c"]})
    first, second = file_items(file)
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
        ({"question": "Q?", "answer": "x", "subquestions": ["A?", " "]}, "Line 2 of .*'subquestions'.* empty one"),
        ({"question": "Q?", "answer": "x", "context": ["p1", "p2"]}, "Line 2 of .*'context' is not text"),
        ({"question": "Q?", "answer": "x", "grader": "kind"}, "Line 2 of .*grader 'kind'"),
        ({"question": "Q?", "answer": True}, "Line 2 of .*: 'answer' is neither text nor a number"),
        ({"question": ["Q?"], "answer": "x"}, "Line 2 of .*: 'question' is neither"),
        ({"question": "Q?", "answer": {"a": 1}}, "Line 2 of .*: 'answer' is neither"),
        ({"question": "Q?", "answer": "x", "id": True}, "Line 2 of .*: 'id' is neither"),
        ({"question": "Q?", "answer": "x", "id": " "}, "Line 2 of .* has an empty 'id'"),
        ({"question": "Q?", "answer": "x", "family": ["a"]}, "Line 2 of .*: 'family' is neither"),
        ({"question": "Q?", "answer": "x", "context": False}, "Line 2 of .*'context' is not text"),
        ({"question": "Q?", "answer": "x", "grader": ["text"]}, "Line 2 of .* the grader 'list'"),
        ('{"question": "Q?", "answer": NaN}', "Line 2 of .* is not JSON: NaN is no number"),
        ('{"question": "Q?", "answer": -Infinity}', "Line 2 of .* is not JSON: -Infinity is no number"),
        ('{"question": "Q?", "answer": 1e999}', "Line 2 of .* is not JSON: 1e999 is too large"),
        ('{"question": "Q?", "answer": ' + "9" * 5000 + "}", "Line 2 of .* is not JSON"),
        ('{"question": "Q?", "answer": 1, "answer": 2}', "Line 2 of .* is not JSON: the key 'answer' stands twice"),
        ('{"question": "Is it \\ud800?", "answer": "x"}', "Line 2 of .* half of a character"),
        ('{"id": "\\uDFFF", "question": "Q?", "answer": "x"}', "Line 2 of .* half of a character"),
        ('{"question": "Q?", "answer": "x", "aliases": ["\\udc00a"]}', "Line 2 of .* half of a character"),
        ("[" * 100_000, "Line 2 of .* is not JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        list(file_items(lines(tmp_path / "a.jsonl", {"question": "Q1?", "answer": "1"}, row)))


def test_all_broken_lines_are_said_at_once(tmp_path: Path) -> None:
    broken = ["{", {"question": "Q?", "answer": None}, '{"question": "Q?", "answer": NaN}', {"answer": 1}, "[]", "1"]
    file = lines(tmp_path / "a.jsonl", {"question": "Q?", "answer": "1"}, *broken, {"question": "R?", "answer": "2"})
    with pytest.raises(TaskError) as caught:
        load_task(Task(name="jsonl", train=1, test=1, path=file))
    problem = caught.value.problem
    assert problem.startswith(f"6 lines of {file} can't be used: line 2 is not JSON: ")
    assert "; line 3 has no 'answer'; line 4 is not JSON: NaN is no number; line 5 has no 'question'; " in problem
    assert problem.endswith("line 6 is no JSON object (also line 7).")
    with pytest.raises(TaskError, match=r"3 lines of .* line 1 has no 'gold'.* \(also line 2\); line 3 is not JSON"):
        rows = [{"gold": [], "reply": "1"}, {"gold": True, "reply": "1"}, '{"gold": NaN, "reply": "1"}']
        read_pairs(lines(tmp_path / "b.jsonl", *rows))
    text, long = ("many", "some"), "x" * 20_000
    rows = [{"Body": "A pack.", "Question": f"What is {w}?", "Answer": w} for w in ("1", "2", *text, long)]
    (tmp_path / "svamp.json").write_text(json.dumps(rows))
    with pytest.raises(TaskError, match=r"^3 questions can't be used: .*'many', which is no number; .*'some'"):
        load_task(Task(name="svamp", train=2, test=3, path=tmp_path / "svamp.json"))


def test_half_a_character_is_refused_whatever_the_data_set(tmp_path: Path) -> None:
    row = '[{"Body": "A pack.", "Question": "What is \\ud800?", "Answer": 1}]'
    (tmp_path / "svamp.json").write_text(row)
    with pytest.raises(TaskError, match="half of a character"):
        load_task(Task(name="svamp", train=1, test=1, path=tmp_path / "svamp.json"))


def test_a_number_is_written_in_digits(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n}?", "answer": n} for n in (7, 0.5, 1e-7, 1e22, -3.0)]
    found = [item.answer for item in file_items(lines(tmp_path / "a.jsonl", *rows))]
    assert found == ["7", "0.5", "0.0000001", "10000000000000000000000", "-3"]


def test_missing_empty_and_small_files_and_long_questions_are_clear_errors(tmp_path: Path) -> None:
    def load(file: Path, train: int = 1, test: int = 1) -> None:
        load_task(Task(name="jsonl", train=train, test=test, path=file))

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
    with pytest.raises(OverlapError, match="overlap with the test set"):
        load_task(Task(name="jsonl", train=2, test=1, path=file, seed=seed))
    task = load_task(Task(name="jsonl", train=2, test=1, path=file, seed=seed, overlap="drop"))
    assert (len(task.train), task.dropped_overlap) == (1, 1)


def test_a_large_file_is_read_without_holding_it(tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    with file.open("w") as stream:
        for i in range(20_000):
            stream.write(json.dumps({"question": f"Is it {i}?", "context": "x" * 500, "answer": "y"}) + "\n")
    tracemalloc.start()
    task = load_task(Task(name="jsonl", train=20, test=10, path=file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(task.train), len(task.test)) == (20, 10)
    assert peak < file.stat().st_size / 2


def test_what_many_questions_share_is_the_tasks_wording(tmp_path: Path) -> None:
    told = "There are three guests at the long table by the door of the old inn"
    rows = [{"question": f"{told}; who is {i}th?", "answer": "x"} for i in range(30)]
    file = lines(tmp_path / "one.jsonl", *rows)
    assert len(load_task(Task(name="jsonl", train=10, test=10, path=file)).train) == 10
    few = lines(tmp_path / "few.jsonl", *rows[:4])
    with pytest.raises(OverlapError, match="13-gram"):
        load_task(Task(name="jsonl", train=2, test=2, path=few))
    assert len(load_task(Task(name="jsonl", train=2, test=2, path=few, overlap="same")).train) == 2
    twice = lines(tmp_path / "twice.jsonl", *[rows[0]] * 4)
    with pytest.raises(OverlapError, match="same"):
        load_task(Task(name="jsonl", train=2, test=2, path=twice, overlap="same"))


def test_test_questions_may_have_a_file_of_their_own(tmp_path: Path) -> None:
    def asks(name: str, count: int) -> Path:
        return lines(tmp_path / name, *({"question": f"Is it {name} {i}?", "answer": "x"} for i in range(count)))

    given = {"path": asks("learn.jsonl", 9), "test_path": asks("held.jsonl", 5)}
    task = load_task(Task(name="jsonl", train=8, test=5, **given))
    assert all("learn" in item.question for item in task.train)
    assert all("held" in item.question and item.id.startswith("test-") for item in task.test)
    other = load_task(Task(name="jsonl", train=4, test=5, train_seed=1, **given))
    assert {item.id for item in other.test} == {item.id for item in task.test}
    with pytest.raises(TaskError, match=r"task\.test asks for 6 questions of jsonl, and there are 5"):
        load_task(Task(name="jsonl", train=8, test=6, **given))
    gold = {"question": "What is 2 plus 2, Ann?", "answer": "4\n#### 4"}
    learn, held = (
        lines(tmp_path / f"{name}.jsonl", *({**gold, "question": f"{name} {i}?"} for i in range(3)))
        for name in ("train", "test")
    )
    task = load_task(Task(name="gsm8k", train=3, test=3, path=learn, test_path=held))
    assert [item.id for item in task.train] != [item.id for item in task.test]


def test_a_numeric_task_refuses_a_gold_answer_without_a_number(tmp_path: Path) -> None:
    rows = [{"Body": "A pack.", "Question": f"What is {w}?", "Answer": w} for w in ("1", "2", "many")]
    (tmp_path / "svamp.json").write_text(json.dumps(rows))
    with pytest.raises(TaskError, match="is 'many', which is no number"):
        load_task(Task(name="svamp", train=2, test=1, path=tmp_path / "svamp.json"))


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [("yes", "Yes, both are.", True), ("(B)", "B) blue", True), ("yes", "no", False)],
)
def test_a_run_grades_ones_own_answers_by_their_form(tmp_path: Path, gold: object, reply: str, right: bool) -> None:
    (item,) = file_items(lines(tmp_path / "a.jsonl", {"question": "Q?", "answer": gold}))
    assert grade(item, reply).right is right
    assert grade(item_of("", [str(gold)]), reply).right is right


def test_a_row_may_name_its_grader_and_a_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    row = {"question": "Q?", "answer": "no", "grader": "text"}
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode())
    (item,) = file_items(tmp_path / "a.jsonl")
    assert not grade(item, "No, it isn't.").right


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
