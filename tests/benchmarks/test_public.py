"""The public data sets: their forms in rows of ours, and, where they are on disk, the real ones."""

import gzip
import json
from pathlib import Path

import pytest

from divcon.benchmarks import grade
from divcon.benchmarks.tasks import Task, TaskError, gsm8k_items, load_task, public_items
from divcon.programs import Item
from divcon.signatures import Subquestions

ROWS = {
    "svamp": {"ID": "c1", "Body": "A pack costs 7 dollars", "Question": "What do 2 cost?", "Answer": 14.0},
    "multiarith": {"sQuestion": " Ann has 3 and gets 4. How many? ", "lSolutions": [7.0]},
    "bamboogle": {"Question": "Who led X when Y began?", "Answer": "Ann", "Q1": "When?", "A1": ["1812"], "Q2": "Who?",
                  "A2": ["Ann", "Anne"]},
    "strategyqa": {"qid": "q", "question": "Is it so?", "answer": False, "decomposition": ["What is it?", "Is #1 so?"]},
    "musique": {"id": "m", "question": "Where?", "answer": "Tor", "answer_aliases": ["Thor"],
                "paragraphs": [{"title": "T", "paragraph_text": "Tor lies in Bel."}],
                "question_decomposition": [{"question": "Bel >> capital", "answer": "Tor"}]},
    "hotpotqa": {"_id": "h", "question": "Which?", "answer": "Tor", "context": [["T", ["One. ", "Two."]]]},
    "bbh": {"input": "Which?\nOptions:\n(A) red\n(B) blue", "target": "(B)"},
    "drop": {"passage": "p", "question": "Who?", "answers": [["Ada", "Grace"]], "id": "d"},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_becomes_an_item_whose_gold_answer_is_right(tmp_path: Path, name: str) -> None:
    file = tmp_path / "data.jsonl.gz"
    with gzip.open(file, "wt") as stream:
        stream.write(json.dumps(ROWS[name]) + "\n")
    (item,) = public_items(name, file, None)
    assert grade(item, item.answer).right, item
    assert item.family == ("data.jsonl" if name == "bbh" else name)
    document = tmp_path / "data.json"
    document.write_text(json.dumps({"examples": [ROWS[name]]}))
    (again,) = public_items(name, document, None)
    assert (again.question, again.answer) == (item.question, item.answer)


def test_what_a_prompt_can_take_comes_out_of_the_forms(tmp_path: Path) -> None:
    def item(name: str) -> Item:
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROWS[name]))
        return public_items(name, tmp_path / f"{name}.jsonl", None)[0]

    assert item("svamp").question == "A pack costs 7 dollars. What do 2 cost?"
    assert item("svamp").answer == "14"
    assert item("musique").subquestions == ("What is the capital of Bel?",)
    assert item("musique").context == "T: Tor lies in Bel."
    assert item("strategyqa").subquestions == ("What is it?", "Is #1 so?")
    assert item("bamboogle").aliases == ("Anne",)
    assert item("drop").references == (("Ada", "Grace"),)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_lacks_something_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / "data.jsonl"
    empty = {key: [] if isinstance(value, list) else "" for key, value in ROWS[name].items()}
    for broken in ({}, empty):
        file.write_text(json.dumps(ROWS[name]) + "\n" + json.dumps(broken) + "\n")
        with pytest.raises(TaskError, match="Row 2"):
            public_items(name, file, None)


@pytest.mark.parametrize("name", [*ROWS, "gsm8k"])
def test_all_rows_that_lack_something_are_named_at_once(tmp_path: Path, name: str) -> None:
    row = ROWS.get(name, {"question": "What is 2 plus 2, Ann?", "answer": "4\n#### 4"})
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, [{}, row, {}, {**row, "id": 1, "question": 5, "Question": []}])) + "\n{")
    with pytest.raises(TaskError, match=r"^[34] rows of .*data.jsonl can't be used: row 1 .* \(also row 3\)") as caught:
        load_task(Task(name=name, path=file, train=1, test=1))
    assert "line 5 is not JSON" in caught.value.problem


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("musique", {"paragraphs": [{"paragraph_text": "Tor lies in Bel."}]}),
        ("musique", {"paragraphs": ["Tor lies in Bel."]}),
        ("musique", {"question_decomposition": [{"question": "Bel >> capital"}]}),
        ("musique", {"answer_aliases": "Thor"}),
        ("hotpotqa", {"context": [["T", ["One."], "more"]]}),
        ("hotpotqa", {"context": {"title": ["T"]}}),
        ("bamboogle", {"A1": 1812}),
        ("bamboogle", {"A2": "Ann"}),
        ("strategyqa", {"decomposition": "What is it?"}),
        ("drop", {"answers": None, "qa_pairs": [{"question": "Who?", "query_id": "d"}]}),
        ("drop", {"qdmr": "return Ada"}),
    ],
)
def test_a_row_of_another_form_is_named(tmp_path: Path, name: str, change: dict[str, object]) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(ROWS[name]) + "\n" + json.dumps({**ROWS[name], **change}) + "\n")
    with pytest.raises(TaskError, match=r"Row 2 of "):
        public_items(name, file, None)


def test_steps_can_be_read_back_from_a_prompt(tmp_path: Path) -> None:
    steps = ["return the  Federales", "return number of  #1", "return which is lowest of #1 ,  #2", "return if #1 is 4"]
    (tmp_path / "drop.jsonl").write_text(json.dumps({**ROWS["drop"], "qdmr": steps}))
    (item,) = public_items("drop", tmp_path / "drop.jsonl", None)
    assert item.subquestions == (
        "Find the Federales.",
        "Find number of #1.",
        "Which is lowest of #1, #2?",
        "Determine if #1 is 4.",
    )
    assert tuple(Subquestions.read(Subquestions(item.subquestions).render())) == item.subquestions
    told = {**ROWS["musique"], "question_decomposition": [{"question": "who led the #1", "answer": "Tor"}]}
    (tmp_path / "musique.jsonl").write_text(json.dumps(told))
    (item,) = public_items("musique", tmp_path / "musique.jsonl", None)
    assert item.subquestions == ("who led the #1?",)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "file", "share"),
    [
        ("drop", "drop_qdmr/drop_dev_with_qdmr.jsonl", 0.995),
        ("musique", "musique/musique_dev200.jsonl", 0.995),
        ("strategyqa", "strategyqa/train.json", 0.97),
    ],
)
def test_real_references_read_back(real_data: Path, name: str, file: str, share: float) -> None:
    items = public_items(name, real_data / file, None)
    read = 0
    for item in items:
        try:
            read += bool(Subquestions.read(Subquestions(item.subquestions).render()))
        except ValueError:
            continue
    assert read / len(items) >= share


def test_files_that_arent_data(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="can't be read"):
        public_items("svamp", tmp_path / "none.json", None)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(TaskError, match="no JSON document"):
        public_items("svamp", tmp_path / "x.json", None)
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(TaskError, match=r"Row 1 .*no JSON object"):
        public_items("svamp", tmp_path / "x.json", None)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(TaskError, match="holds no question"):
        public_items("svamp", tmp_path / "x.json", None)
    (tmp_path / "x.json").write_text("5")
    with pytest.raises(TaskError, match="neither a list of rows nor a mapping"):
        public_items("svamp", tmp_path / "x.json", None)
    whole = gzip.compress(json.dumps([ROWS["svamp"]] * 50).encode())
    for broken in (whole[:-20], b"not gzip", whole[:30] + b"\0\0\0\0" + whole[34:]):
        (tmp_path / "x.json.gz").write_bytes(broken)
        with pytest.raises(TaskError, match="no whole gzip file"):
            public_items("svamp", tmp_path / "x.json.gz", None)
    with pytest.raises(TaskError, match=r"holds no colours\.json"):
        public_items("bbh", tmp_path, None, "colours")


# ---- the real ones

COUNTS = {
    "svamp": ("svamp/SVAMP.json", 1000),
    "multiarith": ("multiarith/MultiArith.json", 600),
    "bamboogle": ("bamboogle/bamboogle.json", 125),
    "strategyqa": ("strategyqa/train.json", 2061),
    "musique": ("musique/musique_dev200.jsonl", 200),
    "hotpotqa": ("hotpotqa/hotpot_distractor_dev200.jsonl", 200),
    "drop": ("drop/drop_v0_dev.jsonl.gz", 9536),
    "drop contrast": ("drop_contrast/drop_contrast_sets_test.json", 947),
    "drop qdmr": ("drop_qdmr/drop_dev_with_qdmr.jsonl", 1222),
}
FORMS = {
    "number": ("{}", "{}.", "#### {}", "\\boxed{{{}}}", "Answer: {}", "**Answer:** {}", "The answer is {}.", "= {}",
               "{}\n\nPassage: more 17", "So I add.\nFinal answer: {}"),
    "yes_no": ("{}", "{}.", "{}, because it is.", "Answer: {}", "**Answer:** {}", "The answer is {}.", "**{}**",
               "{}\n\nPassage: no and yes", "So I think.\nFinal answer: {}", "\\boxed{{{}}}"),
    "": ("{}", "{}.", "Answer: {}", "**Answer:** {}", "The answer is {}.", "the answer: {}", "{}\n\nPassage: more",
         "So I look.\nFinal answer: {}", "  {}  ", "\\boxed{{{}}}"),
}  # fmt: skip


def real_items(real_data: Path, name: str) -> list[Item]:
    if name == "gsm8k":
        return gsm8k_items(real_data / "gsm8k" / "test.jsonl", None)
    if name == "bbh":
        return public_items("bbh", real_data / "bbh", None)
    path, _ = COUNTS[name]
    return public_items(name.split()[0], real_data / path, None)


@pytest.mark.realdata
@pytest.mark.parametrize("name", COUNTS)
def test_every_real_row_is_read(real_data: Path, name: str) -> None:
    items = real_items(real_data, name)
    assert len(items) == COUNTS[name][1]
    assert all(item.question and item.answer for item in items)
    assert not any(item.context == "None" for item in items)


@pytest.mark.realdata
@pytest.mark.parametrize("name", [*COUNTS, "gsm8k", "bbh"])
def test_gold_is_right_in_ten_forms_and_every_other_gold_is_wrong(real_data: Path, name: str) -> None:
    items = real_items(real_data, name)
    refused = []
    for item in items:
        kind = "number" if item.grader == "number" or name == "gsm8k" else item.grader
        for form in FORMS.get(kind, FORMS[""]):
            if not grade(item, form.format(item.answer)).right:
                refused.append((item.id, form, item.answer))
    assert not refused, (len(refused), refused[:10])
    taken = []
    step = max(1, len(items) // 97)
    for number, item in enumerate(items):
        other = items[(number + step) % len(items)]
        golds = {g.casefold() for g in (other.answer, *other.aliases)}
        accepted = {g.casefold() for g in (*item.aliases, *("; ".join(r) for r in item.references))}
        if item.grader == "choice" and item.family != other.family:
            continue
        same = grade(other, item.answer).right  # equal in another spelling
        if other.answer.casefold() in accepted or item.answer.casefold() in golds:
            continue
        if grade(item, other.answer).right and not same:
            taken.append((item.id, item.answer, other.answer))
    assert not taken, (len(taken), taken[:10])


@pytest.mark.realdata
def test_drops_official_scores_on_the_real_gold(real_data: Path) -> None:
    items = real_items(real_data, "drop contrast")
    several = [item for item in items if len(item.references[0]) > 1]
    assert len(several) > 40
    for item in several:
        verdict = grade(item, "\n".join(reversed(item.references[0])))
        assert (verdict.right, verdict.score) == (True, 1.0), item
        partial = grade(item, item.references[0][0])
        assert not partial.right
        assert 0 < partial.score < 1


def test_bbh_loads_as_a_task(tmp_path: Path) -> None:
    for name in ("colours", "dates"):
        rows = [{"input": f"Which of {i} in {name}?\nOptions:\n(A) red\n(B) blue", "target": "(B)"} for i in range(4)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"examples": rows}))
    task = load_task(Task(name="bbh", train=5, test=3, path=tmp_path))
    assert {item.family for item in task.train + task.test} == {"colours", "dates"}
    task = load_task(Task(name="bbh", train=2, test=1, path=tmp_path, subtask="dates"))
    assert {item.family for item in task.train + task.test} == {"dates"}
