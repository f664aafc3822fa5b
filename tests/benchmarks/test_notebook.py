"""Results and comparisons as notebooks show them."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.arms import arm_named

from divcon.benchmarks import (
    RunResults,
    compare_costs,
    compare_paired,
    differences,
    evidence,
    retained,
    summarize_arm,
    upfront,
)


class _Balanced(HTMLParser):
    """Collects tags, and finds out whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


_TAGS = {"table", "caption", "b", "thead", "tbody", "tr", "th", "td"}


def run_results(label: str = "SD-R") -> RunResults:
    """The results of three programs on twenty questions."""
    records: dict[str, Any] = {
        name: {
            f"i{number}": {"outcome": "right" if number % every else "wrong", "status": "decomposed", "usage": {}}
            for number in range(20)
        }
        for name, every in (("cot", 2), ("teacher", 5), ("sd-r", 6))
    }
    arms = [arm_named("cot"), arm_named("teacher"), arm_named("sd-r", label=label, local=("decomposer",))]
    lines = [summarize_arm(arm, [records[arm.name]], 100, teacher=[records["teacher"]]) for arm in arms]
    seeds = {name: [found] for name, found in records.items()}
    costs = compare_costs(lines, {"sd-r": upfront([], 60.0, None)})
    return RunResults(
        task={"name": "bags"},
        questions=20,
        arms=lines,
        differences=differences(seeds, 100),
        costs={**costs, "evidence": evidence(costs, seeds)},
    )


def test_a_run_is_tables_of_programs_and_differences_with_the_advice() -> None:
    shown = run_results()._repr_html_()
    page = _Balanced(shown)
    assert not page.open
    assert page.tags == _TAGS
    assert all(part in shown for part in ("bags: 20 questions", "COT", "TEACHER", "SD-R", "80.0 %", "Differences"))
    assert "Advice: bags" in shown
    assert "http" not in shown


@pytest.mark.parametrize("name", ["transfer", "cap"])
def test_an_experiment_is_a_table_with_its_factors(root: Path, name: str) -> None:
    results = RunResults(json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8")))
    shown = results._repr_html_()
    assert _Balanced(shown).tags <= _TAGS
    assert all(line["label"] in shown for line in results["rows"])
    assert {"transfer": "trained on", "cap": "subquestions allowed"}[name] in shown
    assert len(shown) < 100_000


def test_texts_of_others_are_escaped() -> None:
    assert _Balanced(run_results("<img src=x onerror=alert(1)>")._repr_html_()).tags == _TAGS


def test_results_stay_a_dict() -> None:
    results = run_results()
    assert json.loads(json.dumps(results)) == json.loads(json.dumps(dict(results)))


def test_comparisons_say_the_difference_its_interval_and_whether_it_is_shown() -> None:
    better, worse = np.array([1.0] * 30 + [0.0] * 10), np.array([1.0] * 10 + [0.0] * 30)
    found = compare_paired(better, worse)
    assert found is not None
    assert all(part in found._repr_html_() for part in ("+50.0", "yes (one-sided p &lt; 0.001)", ">40<"))
    kept = retained(worse, better)
    assert kept is not None
    assert all(part in kept._repr_html_() for part in ("33 %", ">40<"))
