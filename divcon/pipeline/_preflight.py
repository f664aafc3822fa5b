"""The checks before a run: everything that can fail is checked before a call is paid for."""

from __future__ import annotations

from collections.abc import Sequence

from divcon._doctor import diagnose
from divcon.benchmarks.arms import read_arm
from divcon.config import Pipeline
from divcon.distill import fingerprint, write_whole
from divcon.pipeline._context import Context, announce_conversion
from divcon.pipeline._errors import Unfit, stop_at_failures
from divcon.pipeline._keys import Keys
from divcon.programs import Item
from divcon.signatures import Subquestions


def contents_of(items: Sequence[Item]) -> dict[str, str]:
    """Fingerprints of what the questions hold, by id."""
    return {
        item.id: fingerprint(
            item.question, item.context, item.answer, item.aliases, item.subquestions, *item.references
        )
        for item in items
    }


def check(context: Context) -> None:
    """Check the folder, the data, the base and the endpoints, and write the pipeline into the run folder.

    Raises:
        DivconError: Something would stop the run; the message says what to do.
    """
    task, pipeline = context.task, context.pipeline
    contents = (*task.train, *task.test)
    context.store.know_items(contents_of(contents))
    context.reporter.station("check", f"{len(task.train)} training and {len(task.test)} test questions")
    models = context.models
    models.base, models.solver, models.teacher  # noqa: B018 - each is made on first use, which may raise an error
    needing = [arm for arm in pipeline.arms if read_arm(arm)[0].planner == "references"]
    bare = [item.id for item in contents if not item.subquestions]
    if bare and needing:
        raise Unfit(
            f"The arm {needing[0]} needs reference subquestions; {len(bare)} questions have none, first {bare[0]}.",
            "Leave it out of the arms, or take a task whose data has them.",
        )
    _require_prices(pipeline)
    notes = _about_references(context, contents, bool(needing))
    write_whole(context.folder / "pipeline.json", pipeline.model_dump_json(indent=2) + "\n")
    if task.dropped_overlap:
        notes.append(f"{task.dropped_overlap} training questions dropped, since they overlap with the test set")
    if task.numbers_only_twins:
        notes.append(
            f"warning: {task.numbers_only_twins} training questions differ from a test question in numbers alone"
        )
    context.reporter.finished("check", "; ".join(notes) or "no problems")


def _require_prices(pipeline: Pipeline) -> None:
    """Raise where money is limited and a price is unknown, since no call could be held to the limit.

    Raises:
        Unfit: A model that is asked has no price.
    """
    roles = {"teacher": pipeline.roles.teacher, "solver": pipeline.roles.solver}
    bare = [role for role, one in roles.items() if not (one.price or one.scripted or one.embedded)]
    if bare and pipeline.budget.limits_dollars:
        raise Unfit(
            f"The budget limits dollars, and the price of the {' and the '.join(bare)} is unknown.",
            f"Write {' and '.join(f'roles.{role}.price' for role in bare)}, or limit tokens or calls instead.",
        )


def _about_references(context: Context, items: Sequence[Item], measured: bool) -> list[str]:
    """Warnings about reference decompositions that can't be read back or are too long, if any of them will be used.

    Raises:
        Unfit: None of them can be read.
    """
    if not measured and not context.pipeline.roles.teacher.scripted:
        return []
    given = [item for item in items if item.subquestions]
    cap = context.pipeline.program.max_subquestions
    unread = sum(not _reads_back(item.subquestions) for item in given)
    if given and unread == len(given):
        raise Unfit(
            f"None of the {unread} reference decompositions is a list of subquestions, first {given[0].id}.",
            "Write each step as a question or an instruction.",
        )
    longer = sum(len(item.subquestions) > cap for item in given)
    notes = []
    if unread:
        notes.append(f"warning: {unread} of {len(given)} reference decompositions can't be read and fall back")
    if longer:
        notes.append(
            f"warning: {longer} of {len(given)} reference decompositions are cut to program.max_subquestions ({cap})"
        )
    return notes


def _reads_back(asked: Sequence[str]) -> bool:
    try:
        return bool(Subquestions.read(Subquestions(asked).render()))
    except ValueError:  # SubquestionsError, or pydantic's around it
        return False


def examine(context: Context, keys: Keys) -> None:
    """Have the doctor check the models that still have to be called.

    Raises:
        Unfit: Something would stop the run; the message names the first such problem.
    """
    pipeline = context.pipeline
    wanted = len(context.task.train) * pipeline.collect.samples
    asks = []
    if len(context.store.trace_keys(keys.collection().digest)) < wanted:
        asks.append("teacher")
    if not (context.folder / "results.json").is_file():
        served = any(read_arm(arm)[0].served_here for arm in pipeline.arms)
        asks += ["solver", *(["decomposer"] if served else [])]
    if not asks:
        return
    announce_conversion(pipeline, context.reporter)
    stop_at_failures(diagnose(pipeline, context.folder, asks=tuple(asks)), context.reporter)
