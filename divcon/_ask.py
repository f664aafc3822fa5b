"""The command `ask`: answer one question with the program of a run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from divcon._arguments import AsJSON, GivenRun, Student
from divcon._opening import leaving
from divcon._terminal import Terminal, echo_json, err, guarded, line, log_into, out


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    run: GivenRun,
    context: Annotated[str | None, typer.Option(help="A passage the question is about.")] = None,
    student: Student = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show each call: prompt, reply, finish reason, tokens and cost.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Answer one question with the program of a run folder.

    Example: divcon ask --run runs/pipeline 'How many plums does Ada have?' -v
    """
    made: list[Any] = []

    def work() -> Any:
        from divcon.config import load_saved_pipeline
        from divcon.pipeline import Run
        from divcon.programs import Ledger

        made.append(Run(load_saved_pipeline(run), run, Terminal(err)))
        log_into(run)
        with leaving(made[0]), Ledger() as ledger:
            prediction = made[0].ask(question, context, student)
            calls = made[0].store.exchanges(ledger.calls)
            return prediction, [calls[key] for key in ledger.calls if key in calls]

    started = time.perf_counter()
    prediction, calls = guarded(lambda: made[0].pipeline, work)
    seconds = round(time.perf_counter() - started, 2)
    if as_json:
        echo_json(_as_plain(question, prediction, seconds, calls if verbose else None))
        return
    _print_answer(prediction, seconds, calls)
    if verbose:
        from divcon._calls import as_plain, print_call

        for number, call in enumerate(calls, 1):
            print_call(number, as_plain(call))


def _as_plain(question: str, prediction: Any, seconds: float, calls: Sequence[Any] | None) -> dict[str, Any]:
    from divcon._calls import as_plain

    return {
        "question": question,
        "student": prediction.student,
        "status": prediction.status,
        "reason": prediction.reason,
        "subquestions": list(prediction.subquestions),
        "sub_answers": prediction.sub_answers.splitlines(),
        "answer": prediction.answer,
        "usage": prediction.usage,
        "seconds": seconds,
        **({"calls": [as_plain(call) for call in calls]} if calls is not None else {}),
    }


def _print_answer(prediction: Any, seconds: float, calls: Sequence[Any]) -> None:
    from divcon._calls import about_plan
    from divcon.distill import quoted_reply, reply_of

    status, asked = prediction.status, list(prediction.subquestions)
    out.print(line(("Subquestions", "bold"), f" ({prediction.student.upper()}, {status})"))
    if status != "decomposed" or prediction.reason:
        out.print(f"  {about_plan(status, prediction.reason, len(asked))}", soft_wrap=True)
    if status in ("fell_back", "salvaged") and (planned := [one for one in calls if one.role != "solver"]):
        out.print(f"  Its reply: {quoted_reply(reply_of(planned[0]))}", soft_wrap=True)
    if asked:
        out.print(prediction.subquestions.render())
    out.print(line(("Sub-answers" if asked else "Reasoning", "bold")))
    out.print(prediction.sub_answers)
    out.print(line(("Answer", "bold"), f"  {prediction.answer}"))
    for role, used in prediction.usage.items():
        cost = "price unknown" if used["cost"] is None else f"${used['cost']:.6f}"
        calls_made = f"{used['calls']} call{'' if used['calls'] == 1 else 's'}"
        out.print(f"  {role}: {calls_made}, {used['input_tokens']} tokens in, {used['output_tokens']} out, {cost}")
    out.print(f"  {seconds} s")
