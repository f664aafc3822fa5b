import csv
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
from support.report_page import parts_of, questions_of

from divcon.benchmarks import (
    Shown,
    advise,
    compare_costs,
    differences,
    evidence,
    summarize_arm,
    upfront,
    write_experiment_report,
    write_report,
)
from divcon.benchmarks._advice import advice
from divcon.distill import Exchange
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
        records: dict[str, Any] | None = None,
        questions: list[Item] | None = None,
        label: str = "",
        calls: dict[str, Exchange] | None = None,
        **more: Any,
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
        write_report(results, found, asked, file, calls)
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
    assert "</script><b>&" in parts_of(html)[0]["questions"][0]["r"][0]["said"]
    assert "scripted" in html
    assert "1 unsolved" in html
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", html.replace("http://www.w3.org", ""))


def test_one_glance_says_which_program_to_choose_and_what_it_saves(run_report: Callable[..., Path]) -> None:
    html = " ".join(run_report().read_text(encoding="utf-8").split())
    glance = html[html.index('id="glance-1"') : html.index("</section>")]
    assert "Not settled: SD-R for now" in glance
    assert '<section class="glance not-settled"' in html, "only what is settled is marked so"
    assert "80.0 % right" in glance
    assert "Not shown to be at most 2 points less accurate than TEACHER (+0.0 points, 95 % interval" in glance
    assert "It keeps 100 % (" in glance and "of the teacher&#39;s accuracy." in glance
    assert ">of the teacher&#39;s (95 % interval)</th>" in html
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
    paid = {"calls": 5, "input_tokens": 1, "output_tokens": 1, "cost": 24.0, "unpriced_calls": 0, "unknown_calls": 0}
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
    assert "direct −" not in html and "− direct" not in html
    assert "SD-R − " in html or "− SD-R" in html


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
    assert f"<dt>Solver</dt><dd><bdi>{SHOWN}</bdi></dd>" in html
    question, held = questions_of(html)[0]["questions"][0], parts_of(html)[0]["questions"][0]
    assert question["q"].endswith(SHOWN)
    assert (held["c"], question["g"], question["r"][0][2]) == (SHOWN, SHOWN, SHOWN)
    assert (held["r"][0]["asked"], held["r"][0]["steps"], held["r"][0]["said"]) == ([SHOWN], f"a\n{SHOWN}", SHOWN)


def test_right_to_left_text_turns_nothing_beside_it(run_report: Callable[..., Path], items: list[Item]) -> None:
    """The words before and after a Hebrew answer stay where they are, and the answer is read from the right."""
    said = {**outcome(True), "answer": "שלום 123", "subquestions": ["מה?"], "sub_answers": "אחת"}
    with browser_page() as page:
        opened(page, run_report({"cot": {item.id: said for item in items}}, solver="מודל"))
        page.locator("#table .open").first.click()
        page.locator("#table pre").first.wait_for()
        isolated = page.evaluate(
            "() => [...document.querySelectorAll('#table bdi, dd bdi')].filter(e => /[א-ת]/.test(e.textContent))"
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
    heading = '<h2 id="questions">Questions</h2>'
    assert heading in html
    page_file.write_text(html.replace(heading, put + heading), encoding="utf-8")
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
        assert page.locator("#table .open").count() == 20, "the page's own script runs"
    assert len(chromium_errors) >= 4


@pytest.mark.parametrize("label", ["a $x^2 + \\foo$ b", "<b>&", "'\"", "=1+1"])
def test_a_label_is_text_in_tables_and_plots(run_report: Callable[..., Path], items: list[Item], label: str) -> None:
    html = run_report(label=label).read_text(encoding="utf-8")
    assert html.count(str(markupsafe.escape(label))) + html.count(html_escape(label, quote=False)) >= 3


WIDTHS = [{"width": 1280, "height": 900}, {"width": 390, "height": 840}]


@pytest.fixture(params=WIDTHS, ids=["1280", "390"])
def viewport(request: pytest.FixtureRequest) -> dict[str, int]:
    return dict(request.param)


def test_a_browser_finds_filters_and_opens_questions(
    run_report: Callable[..., Path], items: list[Item], viewport: dict[str, int]
) -> None:
    with browser_page(viewport=viewport) as page:
        opened(page, run_report())
        assert page.locator("#table .open").filter(has_text="plus zero").count() == 20
        page.select_option("#only", "split")
        split = int(page.inner_text("#count").split()[0])
        assert 0 < split < 20
        page.select_option("#only", "all")
        page.select_option("#arm", label="COT")
        page.select_option("#outcome", "w")
        assert page.inner_text("#count") == "10 of 20 questions"
        page.fill("#words", "What is 4 plus")
        assert page.inner_text("#count") == "1 of 20 questions"
        page.locator("#table .open").click()
        page.locator("#table pre").first.wait_for()
        shown = page.inner_text("#table")
        assert "How many <b>bags</b>?" in shown
        assert "Answer 7" in shown
        assert items[4].answer in shown
        page.locator("#table .open").click()
        assert page.locator("#table tr.whole").count() == 0
        page.click("#clear")
        assert page.inner_text("#count") == "20 of 20 questions"


def test_two_programs_are_set_against_each_other(
    run_report: Callable[..., Path], items: list[Item], viewport: dict[str, int]
) -> None:
    found = arms_of(items)
    alone = {
        (a, b): sum(found[a][i.id]["outcome"] == "right" and found[b][i.id]["outcome"] == "wrong" for i in items)
        for a, b in (("teacher", "cot"), ("cot", "teacher"))
    }
    assert alone["teacher", "cot"] != alone["cot", "teacher"]
    with browser_page(viewport=viewport) as page:
        opened(page, run_report(found))
        page.select_option("#arm", label="TEACHER")
        page.select_option("#arm-b", label="COT")
        page.click("#a-not-b")
        assert page.inner_text("#count") == f"{alone['teacher', 'cot']} of 20 questions"
        page.click("#swap")
        assert page.inner_text("#count") == f"{alone['cot', 'teacher']} of 20 questions"
        page.click("#clear")
        page.select_option("#status", "decomposed")
        assert page.inner_text("#count") == "20 of 20 questions"


def test_a_cell_and_a_point_lead_to_their_questions(run_report: Callable[..., Path], viewport: dict[str, int]) -> None:
    with browser_page(viewport=viewport) as page:
        opened(page, run_report())
        page.locator("table.cards a", has_text="10 wrong").first.click()
        assert page.inner_text("#count") == "10 of 20 questions"
        assert page.locator("#arm option:checked").inner_text() == "COT"
        page.click("#clear")
        page.locator("table.cards a", has_text="10 wrong").first.click()
        assert page.inner_text("#count") == "10 of 20 questions", "a link works a second time"
        width = "wide" if viewport["width"] > 640 else "narrow"
        page.locator(f"figure .{width} svg a", has_text="SD-R").first.click()
        page.locator("#count", has_text="4 of 20 questions").wait_for()  # a browser tells of a new hash a moment later
        page.locator("#comparisons ~ table a").first.click()
        page.wait_for_function("location.hash.includes('&was=r&') && location.hash.includes('&other=w')")
        shown = page.evaluate("['outcome', 'outcome-b'].map(id => document.getElementById(id).value)")
        assert shown == ["r", "w"]
        assert 0 < int(page.inner_text("#count").split()[0]) < 20


def test_columns_are_sorted(run_report: Callable[..., Path]) -> None:
    with browser_page() as page:
        opened(page, run_report())
        marks = "() => [...document.querySelectorAll('#table tbody tr')].map(r => r.cells[1].textContent.trim()[0])"
        before = page.evaluate(marks)
        page.locator("#table th button", has_text="cot").click()
        assert page.evaluate(marks) == sorted(before)
        assert page.locator("#table th[aria-sort=ascending]").count() == 1
        page.locator("#table th button", has_text="cot").click()
        assert page.evaluate(marks) == sorted(before, reverse=True)
        page.locator("#table th button", has_text="cot").click()
        assert page.evaluate(marks) == before


def test_questions_and_tables_are_downloaded_as_csv(run_report: Callable[..., Path], items: list[Item]) -> None:
    said = {**outcome(True), "answer": '=1+1, "x"', "extracted": '=1+1, "x"'}
    records = {"cot": {item.id: said for item in items}}
    with browser_page() as page:
        opened(page, run_report(records))
        with page.expect_download() as got:
            page.click("#csv")
        rows = list(csv.reader(got.value.path().read_text(encoding="utf-8").splitlines()))
        assert got.value.suggested_filename == "questions-t.csv"
        assert rows[0] == ["id", "question", "gold", "steps", "cot", "cot status", "cot answer"]
        assert rows[1][0] == items[0].id and rows[1][4:] == ["right", "decomposed", '\'=1+1, "x"']
        assert len(rows) == 21
        with page.expect_download() as got:
            page.locator("button.csv").first.click()
        rows = list(csv.reader(got.value.path().read_text(encoding="utf-8").splitlines()))
        assert rows[0][:3] == ["program", "accuracy", "95 % interval"]
        assert rows[1][1] == "100.0 %"


def test_a_row_opens_the_prompts_and_raw_replies_of_every_call(tmp_path: Path, items: list[Item]) -> None:
    request = {
        "system": "Split the <i>question</i>.",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "Question: why?"}]}],
    }
    response = {"message": {"parts": [{"type": "text", "text": "1. How </script>many?"}]}, "finish_reason": "length"}
    call = Exchange("decomposer", "small-model", request, response, 93, 41, 7, 1.25, 0.000123)
    records = {"sd-r": {item.id: {**outcome(True, "decomposer"), "calls": ["k", "lost"]} for item in items}}
    lines = lines_of(records)
    results = {
        "task": {"name": "t"}, "questions": len(items), "teacher": {"model": "m", "kind": "model"}, "solver": "s",
        "student_base": "b", "arms": lines, "differences": [], "costs": compare_costs(lines, {}),
        "screening": {"by_student": {}}, "training": {}, "versions": {},
    }  # fmt: skip
    write_report(results, records, items, tmp_path / "r.html", {"k": call})
    with browser_page() as page:
        opened(page, tmp_path / "r.html")
        page.locator("#table .open").first.click()
        page.locator("#table details summary").click()
        shown = " ".join(page.inner_text("#table tr.whole").split())
    for part in (
        "decomposer small-model: 93 tokens in (7 cached), 41 out", "finish length", "$0.000123", "1.25 s",
        "Split the <i>question</i>.", "Question: why?", "1. How </script>many?",
    ):  # fmt: skip
        assert part in shown


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


@pytest.mark.parametrize("kind", ["run", "main", "transfer", "depth"])
def test_it_fits_and_tables_become_cards_on_a_phone(
    run_report: Callable[..., Path], tmp_path: Path, items: list[Item], kind: str, viewport: dict[str, int]
) -> None:
    file = run_report() if kind == "run" else experiment_report(tmp_path / "x.html", items, kind)
    with browser_page(viewport=viewport) as page:
        opened(page, file)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.locator("#table .open").first.click()
        page.locator("#table pre").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        beyond = "e => e.getBoundingClientRect().right > innerWidth + 1"
        assert not page.evaluate(f"[...document.querySelectorAll('body *')].filter({beyond}).map(e => e.outerHTML)")
        phone = viewport["width"] < 640
        assert page.locator("table.cards thead").first.is_visible() != phone
        assert page.locator("figure .narrow").first.is_visible() == phone
        assert page.locator("figure .wide").first.is_visible() != phone
        if phone:
            heights = "[...document.querySelectorAll('.narrow svg text')].map(e => e.getBoundingClientRect().height)"
            assert min(page.evaluate(heights)) >= 10


def test_it_prints_without_controls(run_report: Callable[..., Path]) -> None:
    with browser_page() as page:
        opened(page, run_report())
        page.emulate_media(media="print")
        assert not page.locator(".controls").first.is_visible()
        assert page.locator("table").first.is_visible()


def test_ten_thousand_questions_open_in_under_two_seconds(run_report: Callable[..., Path]) -> None:
    questions = [
        Item(id=f"q{n}", question=f"What is {n} plus zero? {'More words stand here. ' * 10}", answer=str(n))
        for n in range(10_000)
    ]
    asked = {"role": "user", "parts": [{"type": "text", "text": "Why? " * 60}]}
    prompt = {"system": "Split it. " * 40, "messages": [asked]}
    response = {"message": {"parts": [{"type": "text", "text": "1. What is it?\n" * 4}]}, "finish_reason": "stop"}
    call = Exchange("decomposer", "model", prompt, response, 93, 41, 0, 1.0, 0.0001)
    records = arms_of(questions)
    keys = {(name, key): f"{name} {key}" for name in records for key in records[name]}
    for (name, key), made in keys.items():
        records[name][key]["calls"] = [made]
    file = run_report(records, questions, calls=dict.fromkeys(keys.values(), call))
    with browser_page() as page:
        seconds = []
        for _ in range(3):  # the machine may be busy with something else meanwhile
            started = time.perf_counter()
            opened(page, file)
            page.wait_for_selector("#table .open")
            seconds.append(time.perf_counter() - started)
        assert page.inner_text("#count") == "10,000 of 10,000 questions"
        assert page.locator("#table .open").count() == 50
        page.click("#more")
        assert page.locator("#table .open").count() == 100
        page.locator("#table .open").last.click()
        page.locator("#table details.call").first.wait_for()
    print(f"{file.stat().st_size / 1e6:.1f} MB opened in {min(seconds):.2f} s")
    assert min(seconds) < 2


def varied(kind: str, task: str, difference: float = 0.3, p: float = 0.01) -> list[dict[str, Any]]:
    """The comparisons between levels of what an experiment varies."""
    row = {"difference": difference, "ci95": [difference - 0.1, difference + 0.1], "n": 20, "p_holm": p, "task": task}
    pair = {
        "transfer": ("sd-r (a)", "sd-r (b)"), "curve": ("sd-r (16)", "sd-r (2)"), "cap": ("sd-r (16)", "sd-r (2)"),
        "multitask": ("sd-r", "sd-r/all"), "depth": ("sd-r", "cot"),
    }.get(kind)  # fmt: skip
    return [{**row, "a": pair[0], "b": pair[1], **({"steps": 2} if kind == "depth" else {})}] if pair else []


@pytest.mark.parametrize(
    ("kind", "shown", "unshown"),
    [
        ("transfer", "Train SD-R on each task: it loses where it is moved", "No loss is shown where SD-R is moved"),
        ("multitask", "Train SD-R on each task: one for all loses on a", "One SD-R for all tasks: no loss is shown"),
        ("cap", "Allow 16 subquestions (SD-R)", "Allow 2 subquestions (SD-R): no larger number is shown to gain"),
        ("curve", "Collect more questions for SD-R: it still gains", "More questions for SD-R aren't shown to gain"),
        ("depth", "Splitting is shown to gain on questions of 2 steps", "Splitting isn't shown to gain at any number"),
    ],
)
def test_advice_on_what_an_experiment_varies(kind: str, shown: str, unshown: str) -> None:
    for p, headline in ((0.01, shown), (0.2, unshown)):
        results = {"experiment": kind, "rows": [], "costs": {}, "comparisons": varied(kind, "a", p=p)}
        (card,) = advise(results)
        assert card["headline"].startswith(headline)
        assert "95 % interval" in card["sentences"][-1]


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
        "comparisons": [*({**row, "task": "a"} for row in differences(found, 200)), *varied(kind, "a")],
        "costs": costs,
        "screening": [{"cell": "a/seed-0", "student": "SD-R", "collected": 2, "kept": 1, "lost": {}, "rows": 1,
                       "steps": 1, "first_loss": 1.0, "last_loss": 1.0, "seconds": 1.0}],
        "versions": {},
    }  # fmt: skip
    asked = [replace(item, subquestions=("x",) * (1 + n % 2)) for n, item in enumerate(items)]
    answered = arms_of(items)
    shown = [
        Shown(task, asked, [(row, answered[row["name"]]) for row in rows if row["task"] == task and "steps" not in row])
        for task in ("a", "b")
    ]
    write_experiment_report(results, shown, file)
    return file


@pytest.mark.parametrize("kind", ["main", "transfer", "depth", "curve", "cap"])
def test_every_kind_of_experiment_has_its_plots(tmp_path: Path, items: list[Item], kind: str) -> None:
    html = experiment_report(tmp_path / "x.html", items, kind).read_text(encoding="utf-8")
    assert html.count("<svg ") == 2 * {"main": 4, "transfer": 3}.get(kind, 2), "each plot in two widths"
    assert "glance-1" in html, "advice stands on every kind"
    assert [part["task"] for part in questions_of(html)] == ["a", "b"]


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
    plot = html.split("<figcaption", 2)[2].partition('<div class="narrow">')[0]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", plot)
    assert {"cot", "teacher", "SD-R"} <= set(texts)
    assert texts.count("0") == 2
    assert "tokens of models other than students a question, with 95 % intervals" in texts
