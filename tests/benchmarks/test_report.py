import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.arms import arm_named
from support.browser import browser_page, opened

from divcon.benchmarks import (
    Shown,
    compare_costs,
    differences,
    summarize_arm,
    upfront,
    write_experiment_report,
    write_report,
)
from divcon.benchmarks._report import advice
from divcon.programs import Item

USED = {"calls": 1, "input_tokens": 80, "cached_tokens": 8, "output_tokens": 20, "unpriced_calls": 1}


def outcome(right: bool, *roles: str) -> dict[str, Any]:
    return {
        "outcome": "right" if right else "wrong", "rule": "only_number", "answer": "7", "status": "decomposed",
        "subquestions": ["How many <b>bags</b>?"], "sub_answers": "1. 3 * 4 = 12", "started": 1.0, "seconds": 0.5,
        "usage": dict.fromkeys(roles, USED),
    }  # fmt: skip


def answers(items: list[Item], every: int, *roles: str) -> dict[str, dict[str, Any]]:
    return {item.id: outcome(number % every > 0, *roles) for number, item in enumerate(items)}


def arms_of(items: list[Item]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        "cot": answers(items, 2, "solver"),
        "teacher": answers(items, 5, "decomposer", "solver"),
        "sd-r": answers(items, 6, "decomposer", "solver"),
    }


LOCAL = {"sd-r": ("decomposer",)}


def lines_of(records: dict[str, Any], resamples: int = 200) -> list[dict[str, Any]]:
    return [
        summarize_arm(arm_named(name, local=LOCAL.get(name, ())), [found], resamples) for name, found in records.items()
    ]


@pytest.fixture
def run_report(tmp_path: Path, items: list[Item]) -> Callable[..., Path]:
    def write(records: dict[str, Any] | None = None, questions: list[Item] | None = None) -> Path:
        asked = questions or items
        found = records or arms_of(asked)
        lines = lines_of(found)
        results = {
            "task": {"name": "t"}, "questions": len(asked),
            "teacher": {"model": "scripted/references", "scripted": True}, "solver": "s", "student_base": "b",
            "arms": lines,
            "differences": differences({name: [seen] for name, seen in found.items()}, 200),
            "costs": compare_costs(lines, {"sd-r": upfront([], 60.0, None)}),
            "screening": {"by_student": {"sd-r": {"collected": 2, "kept": 1, "lost": {"unsolved": 1}}}},
            "training": {"sd-r": {"rows": 1, "steps": 1, "first_loss": 2.0, "last_loss": 1.0, "seconds": 1.0}},
            "versions": {"divcon": "9.9"},
        }  # fmt: skip
        file = tmp_path / "report.html"
        write_report(results, found, asked, file)
        return file

    return write


def test_it_is_one_file_that_needs_no_network_and_escapes_what_models_write(
    run_report: Callable[..., Path], items: list[Item]
) -> None:
    records = {
        "direct": {i.id: {**outcome(True), "answer": "</script><b>&"} for i in items},
        "sd-r": {i.id: {"outcome": "failed", "error": "LMError: <script>alert(1)</script>"} for i in items},
    }
    html = run_report(records).read_text(encoding="utf-8")
    HTMLParser().feed(html)
    assert "<script>alert" not in html
    assert "</script><b>" not in html
    assert "scripted" in html
    assert "1 unsolved" in html
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", html.replace("http://www.w3.org", ""))


def test_one_glance_says_which_program_to_choose_and_what_it_saves(run_report: Callable[..., Path]) -> None:
    html = " ".join(run_report().read_text(encoding="utf-8").split())
    glance = html[html.index('id="glance-1"') : html.index("</section>")]
    assert "Choose SD-R" in glance
    assert "80.0 % right" in glance
    assert "With the teacher as planner 80.0 % are right; against it this saves 50 %." in glance
    assert "60 s of training; when that has paid is unknown without prices." in glance


@pytest.mark.parametrize(
    ("prices", "hour", "said"),
    [
        ({"teacher": 4.0, "student": 1.0}, 0.0, "has paid for itself after 100,000 questions"),
        ({"teacher": 4.0, "student": 9.0}, 0.0, "it never pays"),
        ({"teacher": 4.0, "student": 1.0}, None, "unknown without costs.training_hour"),
    ],
)
def test_when_a_student_pays_is_said_as_it_is(
    items: list[Item], prices: dict[str, float], hour: float | None, said: str
) -> None:
    def line(name: str, planner: float) -> dict[str, Any]:
        found = {"decomposer": {"input": planner, "output": 0.0}, "solver": {"input": 0.0, "output": 0.0}}
        answered = answers(items, 5 if name == "teacher" else 6, "decomposer", "solver")
        if name == "teacher":  # the student is chosen for its accuracy, whatever it costs
            answered = answers(items, 2, "decomposer", "solver")
        return summarize_arm(arm_named(name, local=LOCAL.get(name, ()), prices=found), [answered], 200)

    lines = [line("teacher", prices["teacher"]), line("sd-r", prices["student"])]
    paid = {"calls": 5, "input_tokens": 1, "output_tokens": 1, "cost": 24.0, "unpriced_calls": 0}
    costs = compare_costs(lines, {"sd-r": upfront([{"teacher": paid}], 60.0, hour)})
    found = advice("t", lines, costs)
    assert found["headline"] == "Choose SD-R"
    assert any(said in sentence for sentence in found["sentences"]), found


def test_a_teacher_whose_answers_all_failed_is_in_no_advice(items: list[Item]) -> None:
    failed = {item.id: {"outcome": "failed", "error": "429"} for item in items}
    records = {"teacher": failed, "sd-r": arms_of(items)["sd-r"]}
    lines = [summarize_arm(arm_named(name), [found], 200) for name, found in records.items()]
    found = advice("t", lines, compare_costs(lines, {"sd-r": upfront([], 1.0, None)}))
    assert found["headline"] == "Choose SD-R"
    assert advice("t", lines[:1], compare_costs(lines[:1], {}))["headline"] == "Nothing was measured."


def test_half_a_character_that_a_server_sent_is_no_obstacle(run_report: Callable[..., Path], items: list[Item]) -> None:
    records = {"cot": {item.id: {**outcome(True), "answer": "\ud83d"} for item in items}}
    assert run_report(records).stat().st_size > 0


def test_a_browser_finds_filters_and_opens_questions(run_report: Callable[..., Path], items: list[Item]) -> None:
    with browser_page(viewport={"width": 1200, "height": 900}) as page:
        opened(page, run_report())
        assert page.locator("details summary").filter(has_text="plus zero").count() == 20
        page.select_option("#only", "split")
        split = int(page.inner_text("#count").split()[0])
        assert 0 < split < 20
        page.select_option("#only", "all")
        page.select_option("#arm", label="COT")
        page.select_option("#outcome", "w")
        assert page.inner_text("#count") == "10 questions"
        page.fill("#words", "What is 4 plus")
        assert page.inner_text("#count") == "1 questions"
        page.locator("#questions summary").click()
        page.locator("#questions pre").first.wait_for()  # a browser tells of the opening a moment after the click
        shown = page.inner_text("#questions")
        assert "1. How many <b>bags</b>?" in shown
        assert "Answer: 7" in shown
        assert items[4].answer in shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_plots_can_be_read_in_light_and_dark(run_report: Callable[..., Path], scheme: str) -> None:
    brightness = "c => c.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    script = f"""() => {{
        const bright = {brightness}, canvas = getComputedStyle(document.documentElement).backgroundColor;
        const back = canvas === 'rgba(0, 0, 0, 0)' ? ('{scheme}' === 'dark' ? 18 : 255) : bright(canvas);
        const of = (one, name) => bright(getComputedStyle(document.querySelector(one))[name]);
        return [back, of('p', 'color'), of('svg text', 'fill'), of('.r', 'color'), of('.w', 'color')];
    }}"""
    with browser_page(color_scheme=scheme) as page:
        opened(page, run_report())
        back, *inks = page.evaluate(script)
    assert all(abs(ink - back) > 90 for ink in inks), (back, inks)


def test_it_fits_a_phone_and_prints_without_controls(run_report: Callable[..., Path]) -> None:
    with browser_page(viewport={"width": 360, "height": 740}) as page:
        opened(page, run_report())
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.emulate_media(media="print")
        assert not page.locator(".controls").is_visible()
        assert page.locator("table").first.is_visible()


def test_ten_thousand_questions_open_in_under_two_seconds(run_report: Callable[..., Path]) -> None:
    questions = [
        Item(id=f"q{n}", question=f"What is {n} plus zero? {'More words stand here. ' * 10}", answer=str(n))
        for n in range(10_000)
    ]
    file = run_report(arms_of(questions), questions)
    with browser_page() as page:
        started = time.perf_counter()
        opened(page, file)
        page.wait_for_selector("#questions details")
        seconds = time.perf_counter() - started
        assert page.inner_text("#count") == "10000 questions"
        assert page.locator("#questions details").count() == 50
        page.click("#more")
        assert page.locator("#questions details").count() == 100
    print(f"{file.stat().st_size / 1e6:.1f} MB opened in {seconds:.2f} s")


@pytest.mark.parametrize("kind", ["main", "transfer", "depth", "curve", "cap"])
def test_every_kind_of_experiment_has_its_plots(tmp_path: Path, items: list[Item], kind: str) -> None:
    axis = {"depth": "steps", "curve": "questions", "cap": "cap"}.get(kind)
    rows = []
    for task in ("a", "b"):
        for value in (1, 2, 16) if axis else (None,):
            for line in lines_of(arms_of(items)):
                moved = kind == "transfer" and line["name"] == "sd-r"
                for origin in ("a", "b") if moved else (None,):
                    factors = {"task": task, axis or "": value, "trained_on": origin}
                    rows.append({**{key: value for key, value in factors.items() if key and value}, **line})
    whole = [row for row in rows if row["task"] == "a"]
    compared = compare_costs(whole, {"sd-r": upfront([], 60.0, None)})
    costs = {task: {"where": {"task": task}, **compared} for task in ("a", "b")} if kind == "main" else {}
    found = {name: [seen] for name, seen in arms_of(items).items()}
    results = {
        "experiment": kind, "question": "Why?", "design": {"seeds": [0, 1]}, "tasks": {"a": {}, "b": {}},
        "teacher": {"model": "m", "scripted": False}, "solver": "s", "student_base": "b", "rows": rows,
        "comparisons": [{**row, "task": "a"} for row in differences(found, 200)], "costs": costs,
        "screening": [{"cell": "a/seed-0", "student": "SD-R", "collected": 2, "kept": 1, "lost": {}, "rows": 1,
                       "steps": 1, "first_loss": 1.0, "last_loss": 1.0, "seconds": 1.0}],
        "versions": {},
    }  # fmt: skip
    shown = [Shown(task, items, list(arms_of(items).items())) for task in ("a", "b")]
    file = tmp_path / "x.html"
    write_experiment_report(results, shown, file)
    html = file.read_text(encoding="utf-8")
    assert html.count("<svg ") == {"main": 4, "transfer": 3}.get(kind, 2)
    assert ("glance-2" in html) == (kind == "main")
    data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert [part["task"] for part in json.loads(data[1])] == ["a", "b"]


def test_what_the_contamination_check_lets_through_is_noted(tmp_path: Path, items: list[Item]) -> None:
    found = arms_of(items)
    allow = [{"id": "q<1>", "reason": "written apart"}, {"pair": ["a", "b"], "reason": "a classic"}]
    results = {
        "task": {"name": "t", "allow": allow}, "questions": len(items),
        "teacher": {"model": "m", "scripted": False}, "solver": "s", "student_base": "b",
        "arms": lines_of(found), "differences": [],
        "screening": {"by_student": {}}, "training": {}, "versions": {},
    }  # fmt: skip
    results["costs"] = compare_costs(results["arms"], {})
    write_report(results, found, items, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "The contamination check lets through q&lt;1&gt;: written apart" in text
    assert "The contamination check lets through a ~ b: a classic" in text
