"""The checks before a run: everything that can fail is checked before a call is paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from divcon._data import lacking_references, too_few_steps, too_long_to_learn
from divcon._doctor import diagnose
from divcon.benchmarks.arms import read_arm
from divcon.config import Pipeline
from divcon.distill import RECORDED, NothingToLearn, fingerprint, write_whole
from divcon.pipeline._context import Context, announce_conversion
from divcon.pipeline._errors import Failures, Unfit
from divcon.pipeline._keys import Keys
from divcon.pipeline._stations import nothing_to_collect
from divcon.programs import Item
from divcon.signatures import Subquestions


def contents_of(items: Sequence[Item]) -> dict[str, str]:
    """Fingerprints of what the questions hold, each with how its answers are graded, by id."""
    return {
        item.id: fingerprint(
            item.question, item.context, item.answer, item.aliases, item.subquestions, *item.references
        )
        + f":{item.grader}"
        for item in items
    }


def check(context: Context, failures: Failures) -> None:
    """Check the folder, the data, the base and the endpoints, and write the pipeline into the run folder.

    Args:
        context: The run's context.
        failures: Gets whatever would stop the run.
    """
    notes: list[str] = []
    with failures.gathering("data"):
        notes = _about_data(context)
    for name in () if context.pipeline.only_recorded else ("base", "solver", "teacher"):
        with failures.gathering(name):
            getattr(context.models, name)  # made on first use
    if failures:
        return
    write_whole(context.folder / "pipeline.json", context.pipeline.model_dump_json(indent=2) + "\n")
    context.reporter.finished("check", "; ".join(notes) or "no problems")


def _about_data(context: Context) -> list[str]:
    """Notes on the questions.

    Raises:
        DivconError: They can't be had, differ from those that the run folder knows, or lack what an arm needs.
    """
    for line in context.coverage():
        context.reporter.finished("check", line)
    task, pipeline = context.task, context.pipeline
    contents = (*task.train, *task.test)
    context.store.know_items(contents_of(contents))
    context.reporter.station("check", f"{len(task.train)} training and {len(task.test)} test questions")
    if (failure := lacking_references(pipeline, contents) or too_long_to_learn(pipeline, task.train)) is not None:
        raise Unfit(failure.text, failure.remedy)
    needing = [arm for arm in pipeline.arms if read_arm(arm)[0].planner == "references"]
    if (few := too_few_steps(pipeline, len(task.train))) is not None:
        context.reporter.finished(few.what, f"warning: {few.text}. {few.remedy}")
    _require_prices(pipeline)
    _require_outcomes(context)
    return [*_about_references(context, contents, bool(needing)), *task.about_overlap()]


def _require_prices(pipeline: Pipeline) -> None:
    """Raise where money is limited and a price is unknown, since no call could be held to the limit.

    Raises:
        Unfit: A model that is asked has no price.
    """
    roles = {"teacher": pipeline.roles.teacher, "solver": pipeline.roles.solver}
    bare = [role for role, one in roles.items() if not (one.price or one.ours) and one.asked]
    if bare and pipeline.budget.limits_dollars and not pipeline.only_recorded:
        raise Unfit(
            f"The budget limits dollars, and the price of the {' and the '.join(bare)} is unknown.",
            f"Write {' and '.join(f'roles.{role}.price' for role in bare)}, or limit tokens or calls instead.",
        )


def _require_outcomes(context: Context) -> None:
    """Raise where the rule `recorded` judges, and outcomes weren't recorded.

    Raises:
        Unfit: The file has neither the outcome nor the reply of some plans.
    """
    if RECORDED not in context.pipeline.screen.rules or context.pipeline.only_recorded:
        return
    plans = [(item.id, right) for item in context.task.train for right in item.plans_right]
    unknown = [name for name, right in plans if right is None]
    if unknown:
        raise Unfit(
            f"The rule recorded needs the outcome of every plan, and {len(unknown)} of {len(plans)} plans "
            f"have neither 'right' nor 'reply', first {unknown[0]}.",
            "Name the field of either in roles.teacher.fields, or take the rule none or oracle.",
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


def examine(context: Context, keys: Callable[[], Keys], failures: Failures) -> None:
    """Have the doctor check the models that still have to be called.

    Args:
        context: The run's context.
        keys: Returns the keys of the stations' results; it may fail where something else does.
        failures: Gets whatever would stop the run.
    """
    if context.pipeline.only_recorded:
        return
    with failures.gathering():
        if not context.task.train:
            raise NothingToLearn(*nothing_to_collect(context))
    # What has failed already is in the way of knowing what is left to ask, so then the doctor looks at everything.
    asks = ("teacher", "solver", "decomposer") if failures else tuple(_asked(context, keys()))
    if not asks:
        return
    announce_conversion(context.pipeline, context.reporter)
    failures.look_at(diagnose(context.pipeline, context.folder, asks=asks, data=False))


def _asked(context: Context, keys: Keys) -> Iterator[str]:
    """The roles whose models still have to be called."""
    pipeline = context.pipeline
    if len(context.store.trace_keys(keys.collection().digest)) < len(context.to_collect):
        yield "teacher"
    if not (context.folder / "results.json").is_file():
        yield "solver"
        if any(read_arm(arm)[0].served_here for arm in pipeline.arms):
            yield "decomposer"
