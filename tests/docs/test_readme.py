"""The README's table and drawings are made from a recorded experiment, and its figures are those of the records."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LONGEST = 120  # lines


@pytest.fixture
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def figures(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", root / "docs" / "figures.py")
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "figures", found)  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


def recorded(root: Path, name: str) -> Any:
    return json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_it_is_short(readme: str) -> None:
    assert len(readme.splitlines()) <= LONGEST


def test_the_table_is_made_from_the_record(readme: str, figures: ModuleType) -> None:
    assert figures.table() in readme
    assert f"${figures.INPUT:.2f} per million in and ${figures.OUTPUT:.0f} out" in readme


def test_the_drawings_are_made_from_the_record(root: Path, readme: str, figures: ModuleType) -> None:
    for file, drawn in figures.drawings():
        assert (root / file).read_text(encoding="utf-8") == drawn, "run make generated"
        assert str(file) in readme


def test_a_scripted_teacher_is_named_so_beside_its_figures(figures: ModuleType) -> None:
    rows = dict(zip((program.arm for program in figures.PROGRAMS), figures.table().splitlines()[2:], strict=True))
    assert "cripted" in rows["teacher"] and "cripted" in rows["se-a"]


def test_what_it_says_of_the_experiment_was_recorded(root: Path, readme: str) -> None:
    found = recorded(root, "main")
    said = " ".join(readme.split())
    rows = {row["name"]: row for row in found["rows"] if row["task"] == "word-problems"}
    student, teacher = (100 * rows[name]["accuracy"] for name in ("sd-r", "teacher"))
    asked = f"On {rows['sd-r']['questions_tested']} word problems the trained planner of 135M parameters got"
    assert f"{asked} {student:.1f} % right (mean of three trainings), and the script {teacher:.1f} %; the" in said
    assert rows["teacher"]["questions_tested"] == rows["sd-r"]["questions_tested"]
    costs = found["costs"]["word-problems"]
    saved = 100 * costs["against_teacher"]["sd-r"]["saves"]
    assert f"The tokens of solver and script fell by {saved:.0f} %" in said
    assert len(found["design"]["seeds"]) == 3
    differences = {(row["a"], row["b"]): row for row in found["comparisons"] if row["task"] == "word-problems"}
    for pair, words in ((("sd-r", "teacher"), "SD-R minus the teacher is"), (("sd-r", "cot"), "chain of thought")):
        row = differences[pair]
        low, high = (100 * end for end in row["ci95"])
        corrected = f", p = {row['p_holm']:.2f} corrected" if row["p_holm"] < 1 else ""
        assert row["p_holm"] >= 0.05  # "neither is settled"
        end = f"({low:+.1f} to {high:+.1f}{corrected})"
        assert f"{words} {100 * row['difference']:+.1f} points {end}" in said


def test_what_it_says_of_the_demo_was_recorded(root: Path, readme: str) -> None:
    found = recorded(root, "demo")
    arms = {arm["name"]: arm for arm in found["arms"]}
    student, teacher, untuned = (arms[name]["accuracy"] for name in ("sd-r", "teacher", "untuned"))
    said = " ".join(readme.split())
    assert f"On the demo's own {found['questions']} questions the trained planner gets {100 * student:.1f} %" in said
    assert f"the script {100 * teacher:.1f} %, and the untrained planner {100 * untuned:.1f} %" in said
    assert f"a table of {('five', 'six', 'seven')[len(arms) - 5]} programs" in said
    assert f"of which training {found['seconds']['train'] / 60:.1f}" in said


def test_what_it_says_of_gsm8k_was_recorded(root: Path, readme: str) -> None:
    found = recorded(root, "gsm8k")
    said = " ".join(readme.split())
    training = found["training"]["sd-t"]
    assert f"One pass over {training['rows']} plans of GSM8K takes {training['seconds'] / 60:.0f} minutes" in said


def test_what_it_says_of_published_students_was_recorded(root: Path, readme: str) -> None:
    solvers = recorded(root, "real/published")["solvers"].values()
    kept = [line["retained"]["share"] for one in solvers for line in one["programs"].values() if "retained" in line]
    shares = f"reach {100 * min(kept):.0f} to {100 * max(kept):.0f} % of the accuracy of ChatGPT's own plans"
    said = f"planners of 82M to 355M parameters that others trained on ChatGPT's plans {shares}"
    assert len(kept) == 12 and said in " ".join(readme.split())
    rows = {(row["planner"], row["solver"]): row for row in recorded(root, "real/published")["halves"]["programs"]}
    cost = {pair: row["planner_usd"] + row["solver_usd"] for pair, row in rows.items()}
    planner, solver = ("355M student", "ChatGPT"), ("ChatGPT", "LLaMA 13B")
    saved = 1 - cost[planner] / cost["ChatGPT", "ChatGPT"]
    lost = {pair: -100 * rows[pair]["minus_strong"]["difference"] for pair in (planner, solver)}
    money = f"That of 355M saves {100 * saved:.0f} % of the bill at list prices and loses {lost[planner]:.1f} points"
    other = f"a cheaper solver in its place, with ChatGPT's plans, loses {lost[solver]:.1f}"
    assert f"{money}; {other}" in " ".join(readme.split())
    students = recorded(root, "real/students")
    [larger] = [one for one in students["ways"] if one["way"] == "a base of 0.5B parameters"]
    theirs = students["yardsticks"]["a published student of 355M"]["teacher"]["covered"]
    assert (
        f"A planner of 0.5B, trained here on {larger['rows']} of ChatGPT's plans, asks for "
        f"{100 * larger['student']['teacher']['covered']:.0f} % of its steps, as a published one of 355M does "
        f"({100 * theirs:.0f} %)"
    ) in " ".join(readme.split())
