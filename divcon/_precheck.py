"""The command `precheck`, and the page that it prints."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding

from divcon._arguments import AsJSON, Overrides, PipelineFile, RunFolder, Wait
from divcon._opening import leaving, opened
from divcon._tables import new_table, page
from divcon._terminal import console_of, echo_json, guarded, line, log_into

_QUESTIONS = 200


def precheck(
    file: PipelineFile,
    questions: Annotated[int, typer.Option(min=2, help="Training questions that are asked, at most.")] = _QUESTIONS,
    both: Annotated[bool, typer.Option("--both", help="Train two small students, a planner and a solver.")] = False,
    as_json: AsJSON = False,
    run: RunFolder = None,
    overrides: Overrides = None,
    wait: Wait = False,
) -> None:
    """Tell whether moving the planner is worth it, before a training is paid for. No test question is asked.

    The exit status is 0 for worth it, 3 for not worth it, and 4 for not settled.

    Example: divcon precheck pipeline.yaml --questions 100
    """
    made: list[Any] = []
    given = shlex.join([str(file), *(["--run", str(run)] if run else []), *_flags("--set", overrides or [])])

    limit = None if questions == _QUESTIONS else questions

    def shown(found: dict[str, Any]) -> None:
        from divcon.precheck import next_commands

        if as_json:
            echo_json(found)
        else:
            print_precheck(
                found, made[0].folder / "precheck" / "precheck.json", next_commands(found, given, limit, both)
            )

    def work() -> Any:
        from divcon.pipeline import Incomplete
        from divcon.precheck import Precheck

        made.append(opened(file, run, overrides, console_of(as_json)))
        with leaving(made[0]):
            made[0].hold(wait)
            log_into(made[0].folder)
            try:
                return Precheck(made[0], questions, both=both).do()
            except Incomplete as error:
                if error.results is not None:
                    shown(error.results)
                raise

    found = guarded(lambda: made[0].pipeline, work)
    shown(found)
    from divcon.precheck import STATUSES

    raise typer.Exit(STATUSES[found["verdict"]])


def _flags(name: str, values: list[str]) -> list[str]:
    """An option that is given once for each value."""
    return [part for value in values for part in (name, value)]


def print_precheck(found: dict[str, Any], file: Path, next_commands: Sequence[str]) -> None:
    """Print what a precheck has found: the programs, the verdict with its reasons, and the commands that come next."""
    from divcon._watch import in_words
    from divcon.benchmarks import dollars, score
    from divcon.benchmarks.arms import REFERENCES
    from divcon.distill import Author

    printed = page(most=100)
    title = f"{found['task']}: {found['questions']} of {found['training_questions']} training questions"
    table = new_table(title, ("program", "accuracy", "95 %", "$ per 1,000", "steps"))
    for arm in found["arms"]:
        low_high = "–" if arm["ci95"] is None else f"{100 * arm['ci95'][0]:.0f}–{100 * arm['ci95'][1]:.0f}"
        bare = "recording" in arm or arm["name"] == REFERENCES.name  # nobody pays for it
        known = arm["bill"] is not None and arm["bill"]["cost"] is not None
        cost = "–" if bare else dollars(arm["bill"]) if known else "unknown"
        table.add_row(arm["label"], score(arm), low_high, cost, "–" if arm["steps"] is None else f"{arm['steps']:.1f}")
    printed.print(table)
    if note := Author(**found["teacher"]).note:
        printed.print(note)
    if found["verdict"] is not None:
        printed.print(line("Verdict: ", (found["verdict"], "bold")))
    for text in (*found["reasons"], *found["notes"]):
        printed.print(Padding(text, (0, 0, 0, 2)))
    took = found["seconds"]
    later = took["expected_after_first"]
    after = f", and {in_words(later)} at most after its first questions" if later is not None else ""
    printed.print(f"It said {in_words(took['expected'])} before it began{after}; it took {in_words(took['took'])}.")
    for command in next_commands:
        printed.print(f"  {command}", soft_wrap=True)
    printed.print(str(file), soft_wrap=True)
