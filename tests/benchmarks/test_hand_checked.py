"""The graders against people: replies judged by hand, one by one, before they were graded.

`hand_written.yaml` holds replies in the manner of many models to invented questions. `hand_checked.jsonl` holds real
replies of three embedded models to public questions, by the questions' ids; their gold answers are looked up in the
data, which isn't here. Replies that repeat a question's words were judged too and left out of the file.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from divcon.benchmarks import grade, item_of
from divcon.benchmarks.tasks import TASKS, gsm8k_items, public_items
from divcon.programs import Item

FILES = {
    "svamp": "svamp/SVAMP.json", "multiarith": "multiarith/MultiArith.json", "bamboogle": "bamboogle/bamboogle.json",
    "strategyqa": "strategyqa/dev.json", "drop": "drop_contrast/drop_contrast_sets_test.json", "bbh": "bbh",
}  # fmt: skip
HERE = Path(__file__).parent


def written() -> list[tuple[dict[str, Any], str, bool]]:
    groups = YAML(typ="safe").load((HERE / "hand_written.yaml").read_text(encoding="utf-8"))
    return [(group, reply, right) for group in groups for right in (True, False) for reply in group[_key(right)]]


def _key(right: bool) -> str:
    return "right" if right else "wrong"


def checked() -> list[dict[str, Any]]:
    lines = (HERE / "hand_checked.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_there_are_enough_of_them_and_of_several_models() -> None:
    assert len(written()) + len(checked()) >= 250
    assert len({row["model"] for row in checked()}) == 3
    assert {row["task"] for row in checked()} == {"gsm8k", *FILES}


def test_written_replies_are_graded_as_a_person_did_99_times_in_100() -> None:
    wrong = []
    for group, reply, right in written():
        item = item_of(TASKS[group["task"]].grader, group["gold"], group.get("question", ""))
        verdict = grade(item, reply)
        if verdict.right != right:
            wrong.append((group["task"], reply, verdict))
    # "12-yard" for "12 yards" is right to a person, and wrong by DROP's own definition.
    assert [reply for _, reply, _ in wrong] == ["12-yard"]
    assert len(wrong) <= 0.01 * len(written())


@pytest.mark.realdata
def test_real_replies_are_graded_as_a_person_did_99_times_in_100(real_data: Path) -> None:
    items: dict[tuple[str, str], Item] = {
        ("gsm8k", item.id): item for item in gsm8k_items(real_data / "gsm8k" / "test.jsonl", None)
    }
    for task, file in FILES.items():
        items |= {(task, item.id): item for item in public_items(task, real_data / file, None)}
    rows = checked()
    apart = [
        (row["task"], row["reply"], verdict)
        for row in rows
        if (verdict := grade(items[row["task"], row["id"]], row["reply"])).right != row["right"]
    ]
    assert len(apart) <= 0.01 * len(rows), apart
