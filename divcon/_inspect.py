"""The command `inspect`: one question of a run, with all plans, answers and calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from divcon._arguments import AsJSON, path_of
from divcon._completion import complete_question
from divcon._terminal import echo_json, fail, guarded, line, out
from divcon.signatures import DivconError

_LISTED = 10  # questions that are named where several fit
_NOT_CALLED = "calls on this question that no program above names"


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", parser=path_of, help="A run folder.")],
    question: Annotated[
        str, typer.Argument(metavar="[QUESTION_ID]", help="The question's id.", autocompletion=complete_question)
    ] = "",
    text: Annotated[str, typer.Option(help="Words of the question, where its id isn't known.")] = "",
    program: Annotated[str, typer.Option(help="Only this program, such as sd-r or cot.")] = "",
    as_json: AsJSON = False,
) -> None:
    """Show one question of a run: plans and verdicts, and each program's answer with its prompts and replies.

    It reads the folder alone. No model is called, and a run may go on meanwhile.

    Example: divcon inspect runs/pipeline --text 'How many plums' --program sd-r
    """
    if not question and not text:
        fail(DivconError("No question is named.", "Give its id, or words of it with --text."))
    found = guarded(lambda: None, lambda: _found(folder, question, text, program))
    if as_json:
        echo_json(found)
    else:
        _print(found)


def _found(folder: Path, question: str, text: str, program: str) -> dict[str, Any]:
    """What is shown, as JSON.

    Raises:
        DivconError: No question, or more than one, fits; or the folder can't be read.
    """
    from divcon._calls import as_plain
    from divcon.benchmarks.arms import read_arm
    from divcon.distill import RULES, UnknownName, inspect_question
    from divcon.pipeline import recorded_keys

    identity, item = _question(folder, question, text)
    held = inspect_question(folder, identity, item["text"] or text)
    if not identity and not held.calls:
        raise DivconError(
            f"No call in {folder} holds {text!r}. {item['note']}", "Give a question's id, or other words."
        )
    if program and program not in held.outcomes:
        answered = ", ".join(held.outcomes) or "none"
        raise DivconError(f"{identity} has no answer of '{program}' in {folder}.", f"Programs with one: {answered}.")
    digests = {one["digest"]: name.removeprefix("screen ") for name, one in recorded_keys(folder).items()}
    exchanges = {one.key: one for one in held.calls}
    programs = []
    for name, record in held.outcomes.items():
        try:
            kind = read_arm(name)[0]
            label, splits = kind.label, kind.splits
        except UnknownName:
            label, splits = name, bool(record.get("subquestions"))
        calls = [as_plain(exchanges[key].exchange) for key in record.get("calls", ()) if key in exchanges]
        rest = {key: value for key, value in record.items() if key not in ("calls", "usage")}
        programs.append({"program": name, "label": label, "splits": splits, **rest, "calls": calls})
    named = {key for record in held.outcomes.values() for key in record.get("calls", ())}
    plans = [
        {
            "sample": trace.sample,
            "subquestions": None if trace.subquestions is None else list(trace.subquestions),
            "lost": trace.lost,
            "detail": trace.detail,
            "reply": trace.reply,
            "verdicts": [
                {
                    "rule": rule if (rule := digests.get(one.screening)) in RULES else None,
                    "kept": one.kept,
                    "reason": one.reason,
                    "detail": one.detail,
                }
                for one in judged
            ],
        }
        for trace, judged in held.plans
    ]
    return {
        "id": identity or None,
        "question": item["text"],
        "context": item["context"],
        "gold": item["gold"],
        "note": item["note"],
        "plans": [] if program else plans,
        "programs": [one for one in programs if program in ("", one["program"])],
        "other_calls": []
        if program
        else [as_plain(one.exchange, one.station) for one in held.calls if one.key not in named],
    }


def _question(folder: Path, identity: str, text: str) -> tuple[str, dict[str, Any]]:
    """The id of the question that is meant, and its content as far as the run's data is still there.

    Raises:
        DivconError: None, or more than one, fits.
    """
    from divcon.benchmarks.tasks import load_task
    from divcon.config import load_saved_pipeline
    from divcon.distill import items_of

    known, lacking = items_of(folder), ""
    try:
        loaded = load_task(load_saved_pipeline(folder).task)
        items = {item.id: item for item in (*loaded.train, *loaded.test)}
    except DivconError as error:  # the folder of an experiment, or the data has moved
        items, lacking = {}, error.problem
    if identity:
        if identity not in known:
            first = ", ".join(known[:_LISTED])
            raise DivconError(f"{folder} knows no question '{identity}'.", f"Give one of {len(known):,}: {first}, ...")
    elif items:
        words = text.casefold()
        fitting = [one for one in items.values() if one.id in set(known) and words in one.question.casefold()]
        if len(fitting) != 1:
            shown = "; ".join(f"{one.id}: {' '.join(one.question.split())[:60]}" for one in fitting[:_LISTED])
            problem = f"{len(fitting)} questions of {folder} hold {text!r}."
            raise DivconError(problem, f"Give the id of one: {shown}" if fitting else "Give other words, or an id.")
        identity = fitting[0].id
    item = items.get(identity)
    if item is None:
        return identity, {"text": None, "context": None, "gold": None, "note": f"Its text isn't known: {lacking}"}
    gold = [item.answer, *item.aliases]
    return identity, {"text": item.question, "context": item.context, "gold": gold, "note": None}


def _print(found: dict[str, Any]) -> None:
    from divcon._calls import about_plan, print_call, print_lines

    out.print(line((found["id"] or "question", "bold"), f"  {found['question'] or ''}"))
    if found["note"]:
        print_lines([found["note"]], 2)
    if found["context"]:
        print_lines([f"Passage: {found['context']}"], 2)
    if found["gold"]:
        print_lines([f"Gold answer: {' or '.join(found['gold'])}"], 2)
    for plan in found["plans"]:
        out.print()
        out.print(line(("Teacher's plan", "bold"), f" {plan['sample'] + 1}"))
        if plan["lost"]:
            reply = plan["reply"] or "(empty)"
            print_lines([f"Lost ({plan['lost'].replace('_', ' ')}). The reply as it came:"], 2)
            print_lines([reply], 4)
        else:
            print_lines([f"{number}. {text}" for number, text in enumerate(plan["subquestions"], 1)], 2)
        for verdict in plan["verdicts"]:
            rule = f"by the rule {verdict['rule']}" if verdict["rule"] else "by an earlier screening"
            reason = "" if verdict["kept"] else f", {verdict['reason'].replace('_', ' ')}"
            detail = f" ({verdict['detail']})" if verdict["detail"] else ""
            print_lines([f"{'Kept' if verdict['kept'] else 'Not kept'} {rule}{reason}{detail}"], 2)
    for one in found["programs"]:
        out.print()
        style = {"right": "green", "wrong": "red"}.get(one["outcome"], "yellow")
        out.print(line((f"{one['label']}", "bold"), f" ({one['program']}): ", (one["outcome"], style)))
        if one["outcome"] == "failed":
            print_lines([one.get("error", "")], 2)
            continue
        if one["splits"]:
            asked = one.get("subquestions") or []
            print_lines([about_plan(one.get("status", ""), one.get("reason"), len(asked))], 2)
            print_lines([f"{number}. {text}" for number, text in enumerate(asked, 1)], 4)
        read = f"read as {one['extracted']!r}" if one.get("extracted") is not None else "no answer can be read"
        print_lines([f"Answer: {one.get('answer', '')}  ({read}, rule {one.get('rule')})"], 2)
        for number, call in enumerate(one["calls"], 1):
            print_call(number, call)
    if found["other_calls"]:
        out.print()
        out.print(line((f"{len(found['other_calls'])} {_NOT_CALLED}", "bold")))
        for number, call in enumerate(found["other_calls"], 1):
            print_call(number, call)
