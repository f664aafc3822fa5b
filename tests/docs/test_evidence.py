"""The page on evidence holds the tables and the figures that were recorded."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from divcon import load_pipeline
from divcon.benchmarks import holm, points_between, points_with_interval
from divcon.benchmarks import points as shown
from divcon.config import load_experiment
from divcon.programs import priced


@pytest.fixture
def page(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "path", [str(root / "benchmarks" / "real"), *sys.path])
    return (root / "docs" / "evidence.md").read_text(encoding="utf-8")


def recorded(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "benchmarks/results/real/published.json").read_text(encoding="utf-8"))
    return found


def experiment(root: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[tuple[str, str], Any]]:
    """A recorded experiment, its programs by name, and its comparisons by pair."""
    found = json.loads((root / "benchmarks/results/real" / f"{name}.json").read_text(encoding="utf-8"))
    return (
        found,
        {row["name"]: row for row in found["rows"]},
        {(row["a"], row["b"]): row for row in found["comparisons"]},
    )


def not_settled(compared: dict[tuple[str, str], Any], a: str, b: str) -> str:
    """A difference of two programs, which isn't settled, in words."""
    row = compared[a, b]
    assert row["ci95"][0] <= 0 <= row["ci95"][1], "not settled"
    return points_with_interval(row["difference"], row["ci95"])


def cells_of(table: str) -> dict[str, list[str]]:
    """The cells of a table of `claims.halves`, by program."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {line[1]: line for line in lines}


def dearer(table: dict[str, list[str]]) -> str:
    """How many times as much as the teacher's a right answer of the trained solvers costs, from a table in money."""
    each = {name: float(cells[-1]) for name, cells in table.items()}
    times = [each[f"Two-stage, {name} solves"] / each["Two-stage, teacher"] for name in ("SE-T", "SE-A")]
    return f"{min(times):.0f} to {max(times):.0f}"


def test_the_tables_are_those_of_the_records(page: str, root: Path) -> None:
    import claims
    import published

    assert published.table(recorded(root)) in page
    assert published.halves_table(recorded(root)) in page
    assert claims.table(claims.recorded(claims.RESULTS, claims.MARGIN)) in page
    price = claims.listed_price(claims.RESULTS)
    for one in claims.experiments(claims.RESULTS).values():
        assert all(table in page for table in claims.tables(one, price))


def test_the_sentences_against_the_thesis_are_those_of_the_records(page: str, root: Path) -> None:
    words = " ".join(page.split())
    for solver, said in (("chatgpt", "keep {:.0f} to {:.0f} %"), ("llama13b", "{:.0f} to {:.0f} % where LLaMA")):
        lines = recorded(root)["solvers"][solver]["programs"]
        shares = [100 * line["retained"]["share"] for line in lines.values() if "retained" in line]
        assert said.format(min(shares), max(shares)) in words
        losses = [line["minus_teacher"]["ci95"][1] for line in lines.values() if "minus_teacher" in line]
        assert len(losses) == 6 and max(losses) < -0.02  # "these twelve differences"
    strong, weak = (recorded(root)["solvers"][solver] for solver in ("chatgpt", "llama13b"))
    for name, line in strong["programs"].items():
        if name != "teacher":
            assert line["retained"]["share"] > weak["programs"][name]["retained"]["share"]
            assert line["minus_teacher"]["difference"] < weak["programs"][name]["minus_teacher"]["difference"]
    gains = [shown(row["difference"]).lstrip("+") for row in strong["filtered_minus_plain"].values()]
    assert "gains {}, {} and {} points under ChatGPT".format(*gains) in words
    assert min(holm([row["p"] for one in (strong, weak) for row in one["filtered_minus_plain"].values()])) > 0.05
    pooled, other = strong["pooled_over_sizes"], weak["pooled_over_sizes"]
    assert f"gain is {points_with_interval(pooled['difference'], pooled['ci95'])}. Under LLaMA 13B no gain" in words
    assert holm([pooled["p"], other["p"]])[0] < 0.05 < other["p"]


def test_the_sentences_on_the_two_halves_are_those_of_the_record(page: str, root: Path) -> None:
    words, found = " ".join(page.split()), recorded(root)["halves"]
    rows = {(row["planner"], row["solver"]): row for row in found["programs"]}
    cost = {pair: row["planner_usd"] + row["solver_usd"] for pair, row in rows.items()}
    right = {pair: cost[pair] / row["accuracy"] for pair, row in rows.items()}
    both, planner, solver = ("ChatGPT", "ChatGPT"), ("355M student", "ChatGPT"), ("ChatGPT", "LLaMA 13B")
    said = {
        pair: f"loses {-100 * rows[pair]['minus_strong']['difference']:.1f} points and saves "
        f"{100 * (1 - cost[pair] / cost[both]):.0f} %"
        for pair in (planner, solver)
    }
    assert f"{said[planner]} of the bill. With LLaMA 13B as solver it {said[solver]}." in words
    gains = [row["minus_weaker_solver"] for row in rows.values() if "minus_weaker_solver" in row]
    assert len(gains) == 3 and all(gain["ci95"][0] > 0 for gain in gains)
    differences = [100 * gain["difference"] for gain in gains]
    assert f"by {min(differences):.1f} to {max(differences):.1f} points" in words
    assert max(right, key=lambda pair: right[pair]) == solver
    assert f"cost ${right[solver]:.2f}, against ${right[both]:.2f} with ChatGPT in both roles" in words
    assert f"and ${right[planner]:.2f} with the planner of 355M" in words
    cheapest = min(right, key=lambda pair: right[pair])
    assert cheapest == ("355M student", "LLaMA 13B") and rows[cheapest]["accuracy"] < 0.25
    assert f"at ${right[cheapest]:.2f} for 1,000" in words
    prices = {name: f"{price['input']:.2f} and {price['output']:.2f}" for name, price in found["prices"].items()}
    for name, listed in (("ChatGPT", "gpt-3.5-turbo"), ("LLaMA 13B", "LLaMA 2 13B on Replicate")):
        assert f"{listed} {prices[name]}" in words
    assert f"for the students {prices['student']}" in words


def test_the_published_figures_are_met(root: Path) -> None:
    """What others worked out from the same files: 0.71, 0.75, 0.80 where ChatGPT solves, and 0.54, 0.61, 0.71."""
    shares = [
        [one["programs"][f"{size} plain"]["retained"]["share"] for size in ("82M", "124M", "355M")]
        for one in recorded(root)["solvers"].values()
    ]
    assert shares == [pytest.approx([0.71, 0.75, 0.80], abs=0.01), pytest.approx([0.54, 0.61, 0.71], abs=0.01)]


def test_the_sentences_on_students_of_135m_are_those_of_the_record(page: str, root: Path) -> None:
    words = " ".join(page.split())
    found, rows, compared = experiment(root, "gsm8k-135m")
    points = partial(not_settled, compared)
    covered = {name: rows[name]["agreement_with_teacher"]["covered"] for name in ("sd-t", "sd-rec", "sd-r")}
    screened = [one["rows"] for one in found["screening"] if one["student"] == "sd-r"]
    teacher = rows["teacher"]
    right = {name: f"{100 * rows[name]['accuracy']:.1f} %" for name in ("sd-t", "untuned", "teacher", "cot")}
    for said in (
        f"SD-T minus ChatGPT's own plans is {points('sd-t', 'teacher')}, SD-REC {points('sd-rec', 'teacher')} and "
        f"SD-R {points('sd-r', 'teacher')}",
        f"gains {points('sd-t', 'untuned')} for SD-T and {points('sd-r', 'untuned')} for SD-R",
        f"ChatGPT's plans minus chain of thought is {points('teacher', 'cot')}",
        f"{100 * teacher['cut_off'] / (teacher['right'] + teacher['wrong']):.0f} % of its replies with ChatGPT's plans",
        f"cover {100 * covered['sd-t']:.0f} % of ChatGPT's steps, SD-REC's {100 * covered['sd-rec']:.0f} % and "
        f"SD-R's {100 * covered['sd-r']:.0f} %",
        f"leaves {min(screened)} to {max(screened)} of 400 plans",
        f"answers {right['sd-t']} of 200 questions of GSM8K, with the untrained one {right['untuned']}, with ChatGPT's "
        f"plans {right['teacher']} and by chain of thought {right['cot']}",
    ):
        assert said in words, said


def test_the_sentences_on_students_of_05b_are_those_of_the_record(page: str, root: Path) -> None:
    words = " ".join(page.split())
    found, rows, compared = experiment(root, "gsm8k-05b")
    points = partial(not_settled, compared)
    students = ("sd-t", "sd-rec", "sd-r")
    taught = {name: [one["rows"] for one in found["screening"] if one["student"] == name] for name in students}
    lists = {name: f"{min(rows)} to {max(rows)} lists" for name, rows in taught.items()}
    right = {name: f"{100 * row['accuracy']:.1f} %" for name, row in rows.items()}
    trained = sorted(rows[name]["accuracy"] for name in students)
    covered = {
        name: f"{100 * rows[name]['agreement_with_teacher']['covered']:.0f} %" for name in (*students, "untuned")
    }
    usable = {name: f"{100 * row['usable_rate']:.0f} %" for name, row in rows.items()}
    cut = {name: f"{100 * row['cut_off'] / (row['right'] + row['wrong']):.0f} %" for name, row in rows.items()}
    assert {name: len(rows) for name, rows in taught.items()} == dict.fromkeys(students, 3), "three trainings"
    assert 4.5 < sum(taught["sd-t"]) / sum(taught["sd-r"]) < 5.5, "a fifth of the lists"
    assert covered["sd-t"] == covered["sd-rec"]
    for said in (
        f"not at all (SD-T, {lists['sd-t']}), by whether ChatGPT's own answer was right (SD-REC, {lists['sd-rec']}), "
        f"and by whether the 0.5B solver answered right with the plan (SD-R, {lists['sd-r']})",
        f"The plans of SD-T and SD-REC cover {covered['sd-t']} of ChatGPT's steps, those of SD-R {covered['sd-r']}, "
        f"and those of the untrained base {covered['untuned']}",
        f"list for {usable['sd-t']}, {usable['sd-rec']} and {usable['sd-r']} of the questions, and the base for "
        f"{usable['untuned']}",
        f"SD-T gains {points('sd-t', 'untuned')} points, SD-REC {points('sd-rec', 'untuned')} and SD-R "
        f"{points('sd-r', 'untuned')}. Minus ChatGPT's own plans they are {points('sd-t', 'teacher')}, "
        f"{points('sd-rec', 'teacher')} and {points('sd-r', 'teacher')}. ChatGPT's plans minus chain of thought is "
        f"{points('teacher', 'cot')}.",
        f"SD-REC minus SD-T is {points('sd-rec', 'sd-t')} points, and SD-R minus SD-T {points('sd-r', 'sd-t')}",
        f"{cut['teacher']} run out of 320 tokens with ChatGPT's plans, {cut['sd-t']} with SD-T's, {cut['sd-rec']} with "
        f"SD-REC's, {cut['sd-r']} with SD-R's, and {cut['untuned']} with",
        f"learnt from {min(taught['sd-r'])} to {max(taught['sd-t'])} plans, the solver answers {100 * trained[0]:.1f} "
        f"to {100 * trained[-1]:.1f} % of 128 questions of GSM8K, with the untrained one {right['untuned']}, with "
        f"ChatGPT's plans {right['teacher']} and by chain of thought {right['cot']}",
    ):
        assert said in words, said


def test_the_sentences_on_ways_to_train_are_those_of_the_record(page: str, root: Path) -> None:
    import students

    words, found = " ".join(page.split()), json.loads(students.RESULTS.read_text(encoding="utf-8"))
    assert students.table(found["ways"]) in page
    ways = {one["way"]: one for one in found["ways"]}
    first = ways["3 passes, rank 16"]
    covered = {name: f"{100 * one['student']['teacher']['covered']:.1f}" for name, one in ways.items()}
    seeds = sorted(covered[name] for name in ("3 passes, rank 16", "seed 1", "seed 2"))
    bars = {label: f"{100 * one['teacher']['covered']:.1f}" for label, one in found["yardsticks"].items()}
    assert students.table_of_yardsticks(found["yardsticks"]) in page
    people = "people's lists"
    larger_ones = [float(bars[f"a published student of {size}"]) for size in ("124M", "355M")]
    assert float(bars[people]) < min(larger_ones)
    by = {name: one["programs"] for name, one in recorded(root)["solvers"].items()}

    def both(solver: str, size: str, *keys: str) -> str:
        """A figure of the two students of a size, those of all plans and of screened ones, in percent."""
        found = []
        for screened in ("plain", "filtered"):
            value = by[solver][f"{size} {screened}"]
            for key in keys:
                value = value[key]
            found.append(f"{100 * value:.0f}")
        return " and ".join(found)

    covered_of, kept = ("chatgpt", "covered"), ("retained", "share")
    for said in (
        f"the two students of 82M cover {both('chatgpt', '82M', *covered_of)} % of ChatGPT's steps and keep "
        f"{both('chatgpt', '82M', *kept)} % of its accuracy where ChatGPT solves; the two of 355M cover "
        f"{both('chatgpt', '355M', *covered_of)} % and keep {both('chatgpt', '355M', *kept)} %",
        f"Where LLaMA 13B solves, those two keep {both('llama13b', '355M', *kept)} %",
        f"People's own lists cover {bars[people]} %",
        f"in which they cover {100 * first['published']['teacher']['covered']:.1f} %",
        f"base of 135M covers {100 * first['untrained']['teacher']['covered']:.1f} %",
        f"3 passes over {first['rows']} lists",
        f"between {seeds[0]} and {seeds[-1]} %",
        f"A rank of 64 covers {covered['rank 64']} %, a learning rate of 0.003 covers "
        f"{covered['learning rate 0.003']} %, six passes cover {covered['6 passes']} %, and all three together "
        f"{covered['6 passes, rank 64, learning rate 0.003']} %. One pass is too few, with {covered['1 pass']} %",
        f"aren't shown to teach better than all plans**: {covered['only plans that led to a right answer']} %",
    ):
        assert said in words, said
    less = {name: one["student"]["covered_minus_published"] for name, one in ways.items()}
    short = "250 lists, an instruction of three words"
    two = "250 questions, ChatGPT's list and people's of each"
    staged = "250 lists, after 1,000 generated word problems of a scripted teacher"
    six, told = "6 passes", "250 lists, a detailed instruction"
    few, larger, fewer = "250 lists", "a base of 0.5B parameters", "250 lists, a base of 0.5B parameters"
    behind = sorted(-100 * one["difference"] for name, one in less.items() if name not in (larger, fewer))
    assert f"They cover {behind[0]:.1f} to {behind[-1]:.1f} points fewer steps" in words
    assert {name for name, one in less.items() if "ci95" in one} == {six, few, short, told, staged, two, larger, fewer}
    assert max(less[name]["ci95"][1] for name in (few, short, told, staged, two)) < 0
    assert min(less[name]["ci95"][0] for name in (larger, fewer)) > 0
    assert less[six]["ci95"][0] < 0 < less[six]["ci95"][1], "not shown to be behind either"
    more = {
        name: f"{100 * one['difference']:.1f} points more ({100 * one['ci95'][0]:+.1f} to {100 * one['ci95'][1]:+.1f})"
        for name, one in less.items()
        if name in (larger, fewer)
    }
    assert [ways[name]["rows"] for name in (larger, "3 passes, rank 16", fewer, few)] == [991, 991, 247, 247]
    untrained = ways[larger]["untrained"]
    bare = f"{100 * ways[larger]['student']['salvaged']:.0f}"
    for said in (
        f"From 991 lists in six passes it is {100 * less[six]['difference']:+.1f} points "
        f"({points_between(less[six]['ci95'])})",
        f"From 991 lists it covers {covered[larger]} %, which is {more[larger]}",
        f"from 247 lists {covered[fewer]} %, {more[fewer]}",
        f"The base covers {100 * untrained['teacher']['covered']:.1f} % untrained",
        f"students of 135M cover {covered['3 passes, rank 16']} and {covered[few]} %",
        f"The published student of 355M covers {bars['a published student of 355M']} % of the same steps, and keeps "
        f"{100 * by['chatgpt']['355M plain']['retained']['share']:.0f} %",
        f"After six passes over {ways[six]['rows']} lists it is {100 * ways[six]['student']['salvaged']:.0f} %, of the "
        f"students of 0.5B {100 * ways[fewer]['student']['salvaged']:.0f} and {bare} %, and of their untrained base "
        f"{100 * untrained['salvaged']:.0f} %",
        f"With people's list of each question beside ChatGPT's, 250 questions cover {covered[two]} %",
        f'Told "{students.SHORT}" instead of divcon\'s own instruction, a student of 250 lists covers '
        f"{covered[short]} %. Told in detail how to split, it covers {covered[told]} %, and with divcon's own "
        f"{covered[few]} %",
        f"From the same 250 lists, a base that had learnt 1,000 plans of a scripted teacher covers {covered[staged]} %",
        "After the scripted teacher's plans alone it covers "
        f"{100 * ways[staged]['untrained']['teacher']['covered']:.1f} %",
        f"where 0.5B took {ways[larger]['seconds'] / 60:.0f} minutes for 991 lists",
    ):
        assert said in words, said
    assert float(covered[two]) < float(covered[few]) == float(covered[staged]), "as one without does"
    assert float(covered[fewer]) > float(bars["a published student of 124M"])
    assert f"250 cover {covered['250 lists']} %" in words
    assert abs(float(covered["250 lists"]) - float(covered["1 pass"])) < 0.5, "as many as one pass"
    salvaged = [f"{100 * ways['250 lists'][name]['salvaged']:.0f} %" for name in ("student", "untrained")]
    assert f"the student of 250 lists, {salvaged[0]} are the whole part" in words
    assert f"or is cut off, and {salvaged[1]} of the untrained base's" in words
    assert list(ways) == list(students.WAYS), "every way has been run"


def test_the_sentences_on_multiarith_are_those_of_the_record(page: str, root: Path) -> None:
    import claims

    words, price = " ".join(page.split()), claims.listed_price(claims.RESULTS)
    found, rows, compared = experiment(root, "multiarith")
    right = {name: f"{100 * row['accuracy']:.1f} %" for name, row in rows.items()}
    apart = compared["sd-r", "se-a"]
    taught = [one["collected"] for one in found["screening"] if one["student"] == "sd-t"]
    solved = [one["rows"] for one in found["screening"] if one["student"] == "sd-r"]
    own, students = right["teacher"], right["sd-r"]
    untuned, trained = rows["untuned"], rows["sd-t"]
    covered = [100 * row["agreement_with_teacher"]["covered"] for row in (untuned, trained)]
    usable = [100 * row["usable_rate"] for row in (untuned, trained)]
    cot = rows["cot"]["bill"]["by_role"]["solver"]
    dollars = 1000 * priced(price, cot["input_tokens"], cot["output_tokens"])
    reads = [rows[name]["bill"]["by_role"]["decomposer"]["input_tokens"] for name in ("sd-t", "teacher")]
    for said in (
        f"it is {right['sd-t']} with SD-T's plans, and {right['untuned']} with what the solver can use",
        f"{right['cot']} of 64 questions by chain of thought, {own} with its own plans, and {students} with",
        f"SD-R minus SE-A is {shown(apart['difference'])} points ({points_between(apart['ci95'])})",
        f"a test question, {min(taught)} to {max(taught)} are left",
        f"from the {min(solved)} to {max(solved)} with which the solver was right",
        "lists from {:.0f} % to {:.0f} %".format(*usable),
        "the teacher's from {:.0f} % to {:.0f} %".format(*covered),
        "reads {:.0f} tokens for a question, and the teacher {:.0f}".format(*reads),
        f"${dollars:.3f} for 1,000 questions, and ${dollars / rows['cot']['accuracy']:.2f} for 1,000 right answers",
    ):
        assert said in words, said
    assert all(0.03 <= rows[name]["accuracy"] < 0.045 for name in ("se-untuned", "se-t", "se-a"))  # "3 to 4 %"
    planners = {"teacher", "cot", "untuned", "sd-t", "sd-r"}
    for (a, b), row in compared.items():
        assert not {a, b} <= planners or row["ci95"][0] < 0 < row["ci95"][1]  # "none is shown to be better"
    table = cells_of(claims.halves(found, price))
    for program, saved in (("SD-T", 45), ("SD-R", 47), ("SE-T solves", 33), ("SE-A solves", 32)):
        assert f"{saved} %" in table[f"Two-stage, {program}"]
    assert f"A right answer of a trained solver costs {dearer(table)} times as much" in words


def test_the_sentences_on_svamp_are_those_of_the_record(page: str, root: Path) -> None:
    import claims

    words, price = " ".join(page.split()), claims.listed_price(claims.RESULTS)
    found, rows, compared = experiment(root, "svamp")
    right = {name: f"{100 * row['accuracy']:.1f} %" for name, row in rows.items()}
    counts = {one: [row for row in found["screening"] if row["student"] == one] for one in ("sd-t", "sd-r")}
    taught = [row["collected"] for row in counts["sd-t"]]
    read, solved = ([row["rows"] for row in counts[one]] for one in ("sd-t", "sd-r"))
    cot = rows["cot"]["bill"]["by_role"]["solver"]
    dollars = 1000 * priced(price, cot["input_tokens"], cot["output_tokens"])
    shares = [100 * kept / of for kept, of in zip(solved, read, strict=True)]
    usable = {name: f"{100 * rows[name]['usable_rate']:.0f} %" for name in ("sd-t", "sd-r")}

    def points(a: str, b: str) -> str:
        row = compared[a, b]
        return f"{shown(row['difference'])} points ({points_between(row['ci95'])})"

    for said in (
        f"{right['cot']} of 64 questions by chain of thought, {right['teacher']} with its own plans",
        f"and {right['sd-t']} with those of a student that learnt from all of them",
        f"aren't shown to teach better: {right['sd-r']}",
        f"{min(taught)} to {max(taught)} are left",
        f"the {min(read)} to {max(read)} plans that can be read",
        f"from the {min(solved)} to {max(solved)} with which the solver was right",
        f"SD-R minus SE-A is {points('sd-r', 'se-a')}",
        f"right with {min(shares):.0f} to {max(shares):.0f} % of the plans",
        f"is right in {right['se-untuned']}",
        f"comes within {points('sd-t', 'teacher')} of its teacher",
        f"SD-R minus SD-T is {points('sd-r', 'sd-t')}, and {usable['sd-r']} of its lists are usable",
        f"usable, against {usable['sd-t']}",
        f"${dollars:.3f} for 1,000 questions, and ${dollars / rows['cot']['accuracy']:.2f} for 1,000 right answers",
    ):
        assert said in words, said
    assert all(0.03 <= rows[name]["accuracy"] < 0.045 for name in ("se-t", "se-a"))  # "3 to 4 %"
    not_shown = {"teacher", "cot", "untuned", "sd-t", "sd-r"}, {"se-untuned", "se-t", "se-a"}
    for (a, b), row in compared.items():
        assert not any({a, b} <= names for names in not_shown) or row["ci95"][0] < 0 < row["ci95"][1]
    table = cells_of(claims.halves(found, price))
    for program, saved in (("SD-T", 47), ("SD-R", 45), ("SE-T solves", 34), ("SE-A solves", 34)):
        assert f"{saved} %" in table[f"Two-stage, {program}"]
    assert f"A right answer of a trained solver costs {dearer(table)} times as much" in words


def test_the_sentences_on_transfer_are_those_of_the_record(page: str, root: Path) -> None:
    words, (found, _, _) = " ".join(page.split()), experiment(root, "transfer")
    rows = {(row["task"], row["name"], row.get("trained_on")): row for row in found["rows"]}
    sets = list(found["tasks"])
    right = {key: 100 * row["accuracy"] for key, row in rows.items()}
    moved = [one for one in found["comparisons"] if "(" in one["a"]]
    assert len(moved) == 6 and all("sd-t" in one["a"] for one in moved)
    # The first of a pair is the set's own student.
    changes = [-100 * one["difference"] for one in moved]
    assert min(holm([one["p"] for one in moved])) > 0.05 and all(100 * one["ci95"][1] > 2 for one in moved)
    widest = max(moved, key=lambda one: one["ci95"][1] - one["ci95"][0])
    low, high = (shown(-end) for end in reversed(widest["ci95"]))
    trained = [one for one in found["comparisons"] if {one["a"], one["b"]} == {"sd-t", "untuned"}]
    assert len(trained) == 3 and all(one["ci95"][0] < 0 < one["ci95"][1] for one in trained)
    untuned = [f"{right[task, 'untuned', None]:.1f} %" for task in sets]
    own = [f"{right[task, 'sd-t', task]:.1f} %" for task in sets]
    lists = [one["rows"] for one in found["screening"]]

    def covers(task: str, origin: str) -> str:
        return f"{100 * rows[task, 'sd-t', origin]['agreement_with_teacher']['covered']:.0f} %"

    for said in (
        f"a planner answers from {-min(changes):.1f} points fewer to {max(changes):.1f} points more on a set",
        f"between {-min(changes):.1f} points fewer and {max(changes):.1f} points more than the planner",
        f"The widest interval is {low} to {high}",
        "The base answers {}, {} and {}".format(*untuned),
        "the student of each set {}, {} and {}".format(*own),
        f"{min(lists)} to {max(lists)} lists each",
        f"It covers {covers('multiarith', 'gsm8k')} of the teacher's steps of MultiArith",
        f"where the student of MultiArith covers {covers('multiarith', 'multiarith')}",
        f"On SVAMP they are {covers('svamp', 'gsm8k')}, against {covers('svamp', 'svamp')} by its own student",
        f"MultiArith covers {covers('gsm8k', 'multiarith')} of ChatGPT's steps, and its own student "
        f"{covers('gsm8k', 'gsm8k')}",
    ):
        assert said in words, said
    apart = [
        abs(right[task, name, task if name == "sd-t" else None] - 100 * row["accuracy"])
        for task in ("multiarith", "svamp")
        for name, row in experiment(root, task)[1].items()
        if name in ("cot", "teacher", "untuned", "sd-t")
    ]
    assert f"up to {max(apart):.1f} points more or fewer than there" in words
    assert found["teacher"]["model"] == "Qwen2.5-Coder-0.5B-Instruct"
    assert {task: one["model"] for task, one in found["teachers"].items()} == {"gsm8k": "gpt-3.5-turbo (recorded)"}


def test_no_figure_of_the_page_is_of_a_scripted_teacher_without_its_line_saying_so(page: str, root: Path) -> None:
    import students

    files = list((root / "benchmarks" / "results" / "real").glob("*.json"))
    assert files
    for file in files:
        assert "scripted/references" not in file.read_text(encoding="utf-8"), file
    ways = json.loads(students.RESULTS.read_text(encoding="utf-8"))["ways"]
    [first] = [one for one in ways if any(students.FIRST_STAGE in text for text in one["set"])]
    assert "of a scripted teacher" in students.row_of(first)
    own = students.row_of(first).split("|", 2)[2]
    shown = [line for line in page.splitlines() if own in line or "After the scripted teacher's plans" in line]
    assert len(shown) == 2
    [lost] = [line for line in page.splitlines() if f"{100 * first['untrained']['teacher']['covered']:.1f} %" in line]
    assert "scripted teacher" in lost


def test_the_files_of_the_experiments_are_valid(root: Path) -> None:
    files = {file.stem: file for file in (root / "benchmarks" / "real").glob("*.yaml")}
    pipelines = {name: files.pop(name) for name in ("published", "precheck", "students", "first-stage")}
    assert all(load_pipeline(file) for file in pipelines.values())
    designs = {name: load_experiment(file).experiment for name, file in files.items()}
    assert {name for name, design in designs.items() if len(design.seeds) >= 3} == set(designs)
    # The transfer finds in the folder of the two others what they have trained.
    cells = {
        name: [
            load_experiment(files[name])
            .pipeline(task, 0, list(design.measured))
            .model_dump(exclude={"collect", "screen", "evaluate"})
            for task in design.tasks
        ]
        for name, design in designs.items()
    }
    assert cells["transfer"][1:] == cells["multiarith"] + cells["svamp"]


def test_a_comparison_says_what_a_claim_comes_to(page: str) -> None:
    from claims import CLAIMS, Claim, Finding, judged

    better, as_good = CLAIMS[0], next(one for one in CLAIMS if one.kind == "as good")

    def verdicts(claim: Claim, *rows: tuple[float, float, float, float]) -> list[str]:
        """Of comparisons: the difference, its interval, and its p-value."""
        found = [Finding(claim, "GSM8K", "a", "b", "c", one, (low, high), p) for one, low, high, p in rows]
        return [one.verdict for one in judged(found, 0.02)]

    up, open_, down = (0.03, 0.01, 0.05, 0.001), (0.01, -0.01, 0.02, 0.4), (-0.03, -0.05, -0.01, 0.002)
    assert verdicts(better, up, open_, down) == ["holds", "not settled", "doesn't hold"]
    close, wide = (0.01, -0.01, 0.03, 0.4), (-0.02, -0.05, 0.01, 0.2)
    assert verdicts(as_good, close, wide, down) == ["holds", "not settled", "doesn't hold"]
    barely = (0.03, 0.001, 0.06, 0.03)
    assert verdicts(better, barely) == ["holds"]
    assert verdicts(better, barely, barely) == ["not settled"] * 2, "two looks, each at half the level"
