import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape as html_escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markupsafe
import pytest
from support.arms import arm_named
from support.browser import browser_page, opened

from divcon.benchmarks import (
    Shown,
    compare_costs,
    differences,
    evidence,
    summarize_arm,
    upfront,
    write_experiment_report,
    write_report,
)
from divcon.benchmarks._advice import advice
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
    teacher = [records["teacher"]] if "teacher" in records else []
    return [
        summarize_arm(arm_named(name, local=LOCAL.get(name, ())), [found], resamples, teacher=teacher)
        for name, found in records.items()
    ]


def costs_of(lines: list[dict[str, Any]], records: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    costs = compare_costs(lines, before)
    return {**costs, "evidence": evidence(costs, {name: [found] for name, found in records.items()})}


@pytest.fixture
def run_report(tmp_path: Path, items: list[Item]) -> Callable[..., Path]:
    def write(
        records: dict[str, Any] | None = None, questions: list[Item] | None = None, label: str = "", **more: Any
    ) -> Path:
        asked = questions or items
        found = records or arms_of(asked)
        lines = [{**line, "label": label or line["label"]} for line in lines_of(found)]
        results = {
            "task": {"name": "t"}, "questions": len(asked),
            "teacher": {"model": "scripted/references", "kind": "scripted"}, "solver": "s", "student_base": "b",
            "arms": lines,
            "differences": differences({name: [seen] for name, seen in found.items()}, 200),
            "costs": costs_of(lines, found, {"sd-r": upfront([], 60.0, None)}),
            "screening": {"by_student": {"sd-r": {"collected": 2, "kept": 1, "lost": {"unsolved": 1}}}},
            "training": {"sd-r": {"rows": 1, "steps": 1, "first_loss": 2.0, "last_loss": 1.0, "seconds": 1.0}},
            "versions": {"divcon": "9.9"}, **more,
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
    assert "Not settled: SD-R for now" in glance
    assert "80.0 % right" in glance
    assert "Not shown to be at most 2 points less accurate than TEACHER (+0.0 points, 95 % interval" in glance
    assert "It keeps 100 % (" in glance and "of the teacher&#39;s accuracy." in glance
    assert "<th>of the teacher's (95 % interval)</th>" in html
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


def test_where_an_arm_has_no_score_nothing_is_advised(items: list[Item]) -> None:
    failed = {item.id: {"outcome": "failed", "error": "429"} for item in items}
    records = {"teacher": failed, "sd-r": arms_of(items)["sd-r"]}
    lines = [summarize_arm(arm_named(name), [found], 200) for name, found in records.items()]
    found = advice("t", lines, compare_costs(lines, {"sd-r": upfront([], 1.0, None)}))
    assert found["headline"] == "No program is advised"
    assert found["warnings"] == ["TEACHER has no score: 20 of 20 answers failed; the first: 429."]
    costs = compare_costs(lines, {})
    assert (costs["choice"], costs["pareto_front"], costs["unscored"]) == (None, [], ["teacher"])
    assert advice("t", [], compare_costs([], {}))["headline"] == "Nothing was measured."


def test_most_answers_of_an_arm_failed_and_the_page_shows_no_score_of_it(
    run_report: Callable[..., Path], items: list[Item]
) -> None:
    failed = {item.id: {"outcome": "failed", "error": "LMError: 429"} for item in items[:16]}
    records = {**arms_of(items), "direct": {**failed, **answers(items[16:], 99, "solver")}}
    html = " ".join(run_report(records).read_text(encoding="utf-8").split())
    assert "ettled: " not in html and "Choose" not in html
    assert "– (16 of 20 failed)" in html
    assert "DIRECT has no score: 16 of 20 answers failed; the first: LMError: 429." in html
    assert "<td>direct −" not in html and "− direct</td>" not in html


def test_half_a_character_that_a_server_sent_is_no_obstacle(run_report: Callable[..., Path], items: list[Item]) -> None:
    records = {"cot": {item.id: {**outcome(True), "answer": "\ud83d"} for item in items}}
    assert run_report(records).stat().st_size > 0


TURNED = "\u202eevil.exe\u2066\u200f\x1b[2J"
SHOWN = "[U+202E]evil.exe[U+2066][U+200F][U+001B][2J"


def turned_round(items: list[Item]) -> tuple[dict[str, Any], list[Item]]:
    """Outcomes and questions in which everything that others write has controls of the reading direction."""
    said = {
        **outcome(True), "answer": TURNED, "subquestions": [TURNED], "sub_answers": f"a\n{TURNED}", "reason": TURNED,
        "rule": TURNED,
    }  # fmt: skip
    questions = [replace(item, question=f"{item.question} {TURNED}", context=TURNED, answer=TURNED) for item in items]
    return {"cot": {item.id: said for item in items}}, questions


def test_what_turns_text_round_is_visible(run_report: Callable[..., Path], items: list[Item]) -> None:
    html = run_report(*turned_round(items), solver=TURNED, student_base=TURNED).read_text(encoding="utf-8")
    assert not re.search("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f-\x9f]", html)
    assert f"Solver: <bdi>{SHOWN}</bdi>" in html
    data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    question = json.loads(data[1])[0]["questions"][0]
    assert question["q"].endswith(SHOWN)
    assert (question["c"], question["g"]) == (SHOWN, SHOWN)
    assert question["r"][0][2:] == [[SHOWN], f"a\n{SHOWN}", SHOWN]


def test_right_to_left_text_turns_nothing_beside_it(run_report: Callable[..., Path], items: list[Item]) -> None:
    """The words before and after a Hebrew answer stay where they are, and the answer is read from the right."""
    said = {**outcome(True), "answer": "שלום 123", "subquestions": ["מה?"], "sub_answers": "אחת"}
    with browser_page() as page:
        opened(page, run_report({"cot": {item.id: said for item in items}}, solver="מודל"))
        page.locator("#questions summary").first.click()
        page.locator("#questions pre").first.wait_for()
        isolated = page.evaluate(
            "() => [...document.querySelectorAll('#questions bdi, p bdi')].filter(e => /[א-ת]/.test(e.textContent))"
            ".map(e => getComputedStyle(e).unicodeBidi + ' ' + getComputedStyle(e).direction)"
        )
    assert len(isolated) >= 4
    assert set(isolated) == {"isolate rtl"}


def test_a_page_runs_and_loads_nothing_but_its_own(run_report: Callable[..., Path], items: list[Item]) -> None:
    html = run_report().read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert policy is not None
    assert html.index(policy[0]) < html.index("<style>"), "it holds for what comes after it"
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert {name: rules[name] for name in ("img-src", "base-uri", "form-action")} == {
        "img-src": "'none'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules["script-src"])
    assert re.fullmatch(r"'unsafe-hashes'( 'sha256-[\w+/]{43}=')+", rules["style-src"])
    for word in ("unsafe-inline", "unsafe-eval", "http", "*", "'self'"):
        assert word not in policy[1]


def test_a_browser_refuses_what_is_put_into_the_page(run_report: Callable[..., Path], tmp_path: Path) -> None:
    """As if something of a model's had got into the page as it is."""
    file = run_report()
    html = file.read_text(encoding="utf-8")
    put = "<script>document.title = 'owned'</script><p id=put style='color: red' onclick='document.title = 1'>x</p>"
    put += "<style>#put { font-size: 99px }</style><img src='http://127.0.0.1:9/x' onerror='document.title = 2'>"
    page_file = tmp_path / "put.html"
    page_file.write_text(html.replace("<h2>Questions</h2>", f"{put}<h2>Questions</h2>"), encoding="utf-8")
    chromium_errors = []
    with pytest.raises(AssertionError, match="Content Security Policy"), browser_page() as page:
        page.on("console", lambda message: chromium_errors.append(message.text))
        opened(page, page_file)
        page.locator("#put").click()
        assert page.title().startswith("divcon: ")
        style = "() => (s => [s.color, s.fontSize])(getComputedStyle(document.getElementById('put')))"
        color, size = page.evaluate(style)
        assert color != "rgb(255, 0, 0)"
        assert size != "99px"
        assert page.locator("#questions details").count() == 20, "the page's own script runs"
    assert len(chromium_errors) >= 4


@pytest.mark.parametrize("label", ["a $x^2 + \\foo$ b", "<b>&", "'\"", "=1+1"])
def test_a_label_is_text_in_tables_and_plots(run_report: Callable[..., Path], items: list[Item], label: str) -> None:
    html = run_report(label=label).read_text(encoding="utf-8")
    assert html.count(str(markupsafe.escape(label))) + html.count(html_escape(label, quote=False)) >= 3


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


def experiment_report(file: Path, items: list[Item], kind: str) -> Path:
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
        "teacher": {"model": "m", "kind": "model"}, "solver": "s", "student_base": "b", "rows": rows,
        "comparisons": [{**row, "task": "a"} for row in differences(found, 200)], "costs": costs,
        "screening": [{"cell": "a/seed-0", "student": "SD-R", "collected": 2, "kept": 1, "lost": {}, "rows": 1,
                       "steps": 1, "first_loss": 1.0, "last_loss": 1.0, "seconds": 1.0}],
        "versions": {},
    }  # fmt: skip
    shown = [Shown(task, items, list(arms_of(items).items())) for task in ("a", "b")]
    write_experiment_report(results, shown, file)
    return file


@pytest.mark.parametrize("kind", ["main", "transfer", "depth", "curve", "cap"])
def test_every_kind_of_experiment_has_its_plots(tmp_path: Path, items: list[Item], kind: str) -> None:
    html = experiment_report(tmp_path / "x.html", items, kind).read_text(encoding="utf-8")
    assert html.count("<svg ") == {"main": 4, "transfer": 3}.get(kind, 2)
    assert ("glance-2" in html) == (kind == "main")
    data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert [part["task"] for part in json.loads(data[1])] == ["a", "b"]


@pytest.mark.parametrize("kind", ["transfer", "depth"])
def test_the_plots_of_experiments_are_drawn_under_the_policy(tmp_path: Path, items: list[Item], kind: str) -> None:
    """A matrix is an image in the page; a browser would say what it doesn't draw."""
    with browser_page() as page:
        opened(page, experiment_report(tmp_path / "x.html", items, kind))
        assert page.locator("svg").count() >= 2
        image = "() => getComputedStyle(document.querySelector('svg path[style]')).fill"
        assert page.evaluate(image)


def test_what_the_contamination_check_lets_through_is_noted(tmp_path: Path, items: list[Item]) -> None:
    found = arms_of(items)
    allow = [{"id": "q<1>", "reason": "written apart"}, {"pair": ["a", "b"], "reason": "a classic"}]
    results = {
        "task": {"name": "t", "allow": allow}, "questions": len(items),
        "teacher": {"model": "m", "kind": "model"}, "solver": "s", "student_base": "b",
        "arms": lines_of(found), "differences": [],
        "screening": {"by_student": {}}, "training": {}, "versions": {},
    }  # fmt: skip
    results["costs"] = compare_costs(results["arms"], {})
    write_report(results, found, items, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "The contamination check lets through q&lt;1&gt;: written apart" in text
    assert "The contamination check lets through a ~ b: a classic" in text


def test_the_plot_of_costs_begins_at_zero_and_names_its_points(run_report: Callable[..., Path]) -> None:
    html = run_report().read_text(encoding="utf-8")
    plot = html.split("<figcaption", 2)[2].partition("</figure>")[0]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", plot)
    assert {"cot", "teacher", "sd-r"} <= set(texts)
    assert texts.count("0") == 2
    assert "tokens of models other than students a question, with 95 % intervals" in texts
