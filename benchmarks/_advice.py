"""The advice of a report: which program to choose, whether the answers settle it, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from divcon.benchmarks._experiment_advice import EXPERIMENT_ADVICE
from divcon.benchmarks._figures import (
    dollars_per_1000,
    p_in_words,
    percent,
    points,
    points_between,
    retained_share,
    score,
)
from divcon.benchmarks._outcomes import Records
from divcon.benchmarks._statistics import compare_paired
from divcon.benchmarks._tables import answers_of
from divcon.benchmarks.arms import TEACHER


def advise(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The advice on the results of a run or an experiment, as cards; see `advice`.

    There is a card for each comparison of costs, and one for what an experiment varies: the task that a student learnt
    on, the steps that a question needs, the number of training questions, or the cap.

    Args:
        results: The content of the JSON file.
    """
    if "arms" in results:
        name = results["task"]["name"]
        return [advice(name, results["arms"], results["costs"])] if results.get("costs") else []
    cards = [advice(where, lines_of(results["rows"], costs), costs) for where, costs in results["costs"].items()]
    varied = EXPERIMENT_ADVICE.get(results["experiment"])
    return [*(varied(results) if varied else []), *cards]


def lines_of(rows: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The lines of an experiment that a comparison of costs is about."""
    whole = [row for row in rows if "steps" not in row]
    return [row for row in whole if all(row.get(key) == value for key, value in costs["where"].items())]


def evidence(costs: Mapping[str, Any], answers: Mapping[str, Sequence[Records]]) -> dict[str, Any] | None:
    """Whether the answers settle that the chosen program is the right one.

    The choice is right if it is at most the margin less accurate than each program that costs as much or more, and more
    accurate than each cheaper one. It is settled if one-sided paired tests at 2.5 % show each of these. All of them
    have to, so their p-values need no correction (Berger 1982, Technometrics 24:295-300). That the choice was made from
    the same answers isn't corrected for.

    Args:
        costs: The comparison of costs, as `compare_costs` returns it.
        answers: The outcomes of each program in it, for each of its seeds.

    Returns:
        `settled`, None where there is nothing to compare with; `questions`, about how many questions would settle it,
        None where it is settled or no number would; `alternatives`, the cheaper programs that aren't shown to be less
        accurate, the cheapest first; `tests`, one for each other program: `other`, `cheaper`, `difference` (the choice
        minus the other), `ci95`, `margin`, `p`, `discordant`, `n`, `questions` and `shown`, see `compare_paired`. None
        where no program is chosen.
    """
    chosen = costs["choice"]
    if chosen is None:
        return None
    keys = list(answers[chosen][0])
    mine, amount = answers_of(answers[chosen], keys), costs["points"][chosen][1]
    others = sorted((cost, name) for name, (_, cost) in costs["points"].items() if name != chosen)
    tests = []
    for cost, name in others:
        cheaper = cost < amount
        found = compare_paired(mine, answers_of(answers[name], keys), 0.0 if cheaper else costs["margin"])
        if found is not None:
            row = {**found._asdict(), "ci95": list(found.ci95), "shown": found.shown}
            tests.append({"other": name, "cheaper": cheaper, **row})
    missing = [test["questions"] for test in tests if not test["shown"]]
    left_out = costs.get("uncounted", [])
    settled = not missing and len(tests) == len(others) and not left_out
    return {
        "settled": settled if others or left_out else None,
        "questions": max(missing) if missing and None not in missing and not left_out else None,
        "alternatives": [test["other"] for test in tests if test["cheaper"] and not test["shown"]],
        "tests": tests,
    }


def _plans_uncounted(line: Mapping[str, Any]) -> bool:
    """Whether a program can't be chosen because nobody counted the tokens of its recorded teacher's plans."""
    # Programs with reference plans can't be chosen either, and their calls are counted. Recorded programs have no bill.
    asked = ((line.get("bill") or {}).get("by_role") or {}).get("decomposer") or {}
    return bool(not line.get("choosable", True) and asked.get("unknown_calls"))


def advice(task: str, lines: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Which program to choose, whether that is settled, and what it saves, in sentences.

    Args:
        task: The task's name.
        lines: The results of its arms.
        costs: The comparison of costs, as `compare_costs` returns it, with its `evidence`. Results that were recorded
            without it say nothing of whether the advice is settled.

    Returns:
        `task`; `status`, `settled` or `not settled`, None where nothing is advised or tested; `headline`; `sentences`;
        `tested`, what was tested; `warnings`. The last two are also in `sentences`.
    """
    by_name = {line["name"]: line for line in lines}
    card: dict[str, Any] = {"task": task, "status": None, "sentences": [], "tested": [], "warnings": []}
    if costs["unscored"]:
        why = [f"{by_name[name]['label']} has no score: {by_name[name]['withheld']}." for name in costs["unscored"]]
        return {**card, "headline": "No program is advised", "sentences": why, "warnings": why}
    chosen = by_name.get(costs["choice"] or "")
    if chosen is None:
        if costs.get("uncounted"):
            headline = "No program is advised: what they take is unknown, since tokens weren't counted"
        elif lines:
            headline = "No program is advised: none here can answer a new question"
        else:
            headline = "Nothing was measured."
        return {**card, "headline": headline}
    proof = costs.get("evidence") or {"settled": None, "tests": []}
    settled = proof["settled"]
    tested = _tested(chosen, by_name, costs, proof)
    sentences = [_right(chosen, by_name, costs), *tested, _spent(costs["points"][chosen["name"]][1], costs["in_money"])]
    theirs = costs["points"].get(TEACHER.name, [None, 0])[1]
    if chosen["name"] != TEACHER.name and theirs:
        saved = 1 - costs["points"][chosen["name"]][1] / theirs
        much = f"saves {percent(saved)}" if saved >= 0 else f"costs {percent(-saved)} more"
        sentences.append(
            f"With the teacher as planner {score(by_name[TEACHER.name])} are right; against it this {much}."
        )
    if chosen.get("retained"):
        sentences.append(f"It keeps {retained_share(chosen)} of the teacher's accuracy.")
    if chosen["name"] in costs["against_teacher"]:
        sentences.append(_pays(costs, chosen["name"], chosen["student"]))
    splitting = [test["shown"] for test in proof["tests"] if by_name[test["other"]]["splits"]]
    if splitting and not chosen["splits"]:
        sentences.append(
            "Don't decompose here: the solver alone does as well."
            if all(splitting)
            else "Whether decomposing gains anything here isn't settled."
        )
    warnings = []
    if costs["solver_dominates"]:
        share = costs["solver_share"]
        warnings.append(
            f"The solver makes {percent(share)} of the two-stage bill: moving the planner saves {percent(1 - share)} "
            "of it at most."
        )
    for name in costs.get("uncounted", []):
        left_out = by_name[name]
        warnings.append(
            f"{left_out['label']} ({score(left_out)} right) isn't compared: a server didn't count all of its tokens. "
            "Write the prices, or take a server that counts."
        )
    for line in lines:
        if _plans_uncounted(line):
            warnings.append(
                f"{line['label']} ({score(line)} right) isn't compared: the file of its plans doesn't say what they "
                "took. Add input_tokens and output_tokens to its rows."
            )
    label = chosen["label"]
    cheaper = [by_name[name] for name in proof.get("alternatives", [])]
    instead = f", or the cheaper {max(cheaper, key=lambda line: line['accuracy'])['label']}" if cheaper else ""
    headlines = {
        True: f"Settled: choose {label}",
        False: f"Not settled: {label} for now{instead}",
        None: f"Choose {label}",
    }
    return {
        **card,
        "status": {True: "settled", False: "not settled", None: None}[settled],
        "headline": headlines[settled],
        "sentences": [*sentences, *warnings],
        "tested": tested,
        "warnings": warnings,
    }


def _right(chosen: Mapping[str, Any], by_name: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]) -> str:
    """A sentence on the accuracy of the choice and of the most accurate program."""
    best = max(
        (by_name[name] for name in costs["points"]), key=lambda line: (line["accuracy"], line["name"] == chosen["name"])
    )
    low, high = chosen["ci95"]
    if best is chosen:
        most = "nothing that is compared here was more accurate"
    else:
        most = f"the most accurate was {best['label']} with {score(best)}"
    return f"{score(chosen)} right (95 % interval {percent(low)} to {percent(high)}); {most}."


def _spent(amount: float, in_money: bool) -> str:
    if in_money:
        return f"1,000 questions cost {dollars_per_1000(amount)} US dollars."
    return f"A question costs {amount:,.0f} tokens of models other than students."


def _tested(
    chosen: Mapping[str, Any],
    by_name: Mapping[str, Mapping[str, Any]],
    costs: Mapping[str, Any],
    proof: Mapping[str, Any],
) -> list[str]:
    """Sentences on what was tested, with the intervals, and on how many questions would settle it."""
    if proof["settled"] is None:
        return []
    sentences = []
    amount = costs["points"][chosen["name"]][1]
    lost = f"at most {100 * costs['margin']:g} points less accurate than"
    for cheaper, claim in ((False, lost), (True, "more accurate than the cheaper")):
        for shown in (True, False):
            tests = [test for test in proof["tests"] if (test["cheaper"], test["shown"]) == (cheaper, shown)]
            if tests:
                than = "; ".join(f"{by_name[test['other']]['label']} ({_interval(test)})" for test in tests)
                sentences.append(f"{'Shown' if shown else 'Not shown'} to be {claim} {than}.")
    for name in proof["alternatives"]:
        saved = 1 - costs["points"][name][1] / amount
        sentences.append(f"{by_name[name]['label']} costs {percent(saved)} less and isn't shown to be less accurate.")
    if not proof["settled"]:
        asked = max((test["n"] for test in proof["tests"]), default=0)
        needed = proof["questions"]
        sentences.append(
            f"About {_rounded(needed)} questions would settle it; there were {asked:,}."
            if needed
            else f"No number of questions is expected to settle it as things stand; there were {asked:,}."
        )
    return sentences


def _interval(test: Mapping[str, Any]) -> str:
    ends = points_between(test["ci95"])
    return f"{points(test['difference'])} points, 95 % interval {ends}, {p_in_words(test['p'])}"


def _rounded(number: int) -> str:
    """A number with two digits that count, since it is an estimate."""
    return f"{int(float(f'{number:.1e}')):,}"


def _pays(costs: Mapping[str, Any], name: str, student: str) -> str:
    """A sentence on when a student has paid for itself."""
    against, before = costs["against_teacher"][name], costs["upfront"][student]
    free = " (its own serving counted as free)" if against["student_free"] else ""
    if against["break_even"] is not None:
        return f"The student has paid for itself after {against['break_even']:,} questions{free}."
    tokens = "uncounted tokens" if before["tokens"] is None else f"{before['tokens']:,.0f} tokens"
    took = (
        f"Before its first answer the student took {before['calls']:,.0f} calls, {tokens} and "
        f"{before['seconds']:,.0f} s of training; "
    )
    if not costs["in_money"] or before["asked"] is None:
        return took + "when that has paid is unknown without prices."
    if before["training"] is None:
        return took + "when that has paid is unknown without costs.training_hour."
    return took + "it never pays, since a question costs no less with it."
