"""Load a task: disjoint training and test questions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from divcon.benchmarks._numbers import is_number, numbers
from divcon.benchmarks.tasks._problems import Problems, TaskError, shown, unwritable
from divcon.benchmarks.tasks._task import TASKS, Reader, Source, Splits, Task, counted
from divcon.distill import AllowedOverlap, overlapping, refuse_overlap
from divcon.programs import Item
from divcon.signatures import DivconError

# A run of words in more questions than this is the task's own wording, such as "There are three guests at the ...".
COMMON = 10
LONGEST_QUESTION = 8_000  # characters; a longer text is a document, which belongs into `context`


@dataclass(frozen=True)
class LoadedTask:
    """A task's questions.

    Attributes:
        train: The training items.
        test: The held-out items.
        dropped_overlap: The number of training questions left out because they overlap with the test set.
        numbers_only_twins: The number of training questions that differ from a test question in their numbers alone.
        allowed: The overlaps with the test set that `task.allow` lets through.
    """

    train: list[Item]
    test: list[Item]
    dropped_overlap: int = 0
    numbers_only_twins: int = 0
    allowed: tuple[AllowedOverlap, ...] = ()

    def about_overlap(self) -> list[str]:
        """Notes on training questions that overlap with the test set, or nearly do."""
        notes = []
        if self.dropped_overlap:
            notes.append(f"{self.dropped_overlap} training questions dropped, since they overlap with the test set")
        if self.numbers_only_twins:
            notes.append(
                f"warning: {self.numbers_only_twins} training questions differ from a test question in numbers alone"
            )
        notes += [
            f"{one.train} overlaps with {one.test} ({one.how}) and is let through by task.allow: {one.reason}"
            for one in self.allowed
        ]
        return notes


class Fold(NamedTuple):
    """One of the equal parts of a task's questions: it is tested, and the others are trained on.

    Attributes:
        number: Which one, from 1.
        of: The number of parts.
    """

    number: int
    of: int


def load_task(task: Task, fold: Fold | None = None) -> LoadedTask:
    """Load and split a task.

    Args:
        task: The task.
        fold: The part of the questions that is tested. `task.test` is then the number of questions in all parts, and
            `task.train` the number that is drawn from the other parts; both are lowered to what is there.

    Raises:
        TaskError: The data is missing, broken or too small, or a question is too long.
        OverlapError: Training questions overlap with the test set, and `overlap` isn't `drop`.
    """
    source = TASKS[task.name]
    learn, held_out = _generate(task, source) if source.draw is not None else _read(task, source, fold)
    if task.percent:
        learn, held_out = [as_share(item) for item in learn], [as_share(item) for item in held_out]
    _check(learn + held_out)
    # Questions made from templates were drawn without overlap, so only equal ones are refused here. In a small set, the
    # template's own wording is in too few questions to be told from an overlap.
    common = 0 if task.overlap == "same" or source.template_made else COMMON
    # Generated questions of one family are near each other by design; their splits share no template instance.
    near = None if source.draw is not None else task.near_duplicate
    dropped = 0
    if task.overlap == "drop":
        found = overlapping(learn, held_out, common, near, task.allows)
        overlap = {pair[0].id for pair in found.pairs}
        learn, dropped = [item for item in learn if item.id not in overlap], len(overlap)
        if not learn:
            raise TaskError(
                "Every training question overlaps with the test set.",
                "Give other data, or set task.overlap to same where the questions are made from one template.",
            )
    else:
        found = refuse_overlap(learn, held_out, common, near, task.allows)
    return LoadedTask(learn, held_out, dropped, found.twins, tuple(found.allowed))


def refuse_overlap_across(learn: LoadedTask, learnt: Task, held_out: LoadedTask, tested: Task) -> None:
    """Refuse training questions of one task that overlap with the test questions of another.

    Args:
        learn: The questions of the task whose training questions are used. Ids begin with its name in the experiment.
        learnt: That task.
        held_out: The questions of the task whose test questions are used.
        tested: That task. Where it is the same, nothing is looked at: `load_task` has.

    Raises:
        OverlapError: There is an overlap that neither task allows.
    """
    if learn.test == held_out.test:
        return
    sources = TASKS[learnt.name], TASKS[tested.name]
    lenient = "same" in (learnt.overlap, tested.overlap)
    generated = all(source.draw is not None for source in sources)
    near = None if generated else min(learnt.near_duplicate, tested.near_duplicate)

    def allowing(train: str, test: str) -> str | None:
        # A task's own questions have the ids of its data, others the name of their task before them.
        own = [(learnt, _bare(train), test), (tested, train, _bare(test))]
        return next((reason for task, *ids in own if (reason := task.allows(*ids)) is not None), None)

    refuse_overlap(learn.train, held_out.test, 0 if lenient else COMMON, near, allowing)


def _bare(identity: str) -> str:
    return identity.partition(":")[2]


def _generate(task: Task, source: Source) -> tuple[list[Item], list[Item]]:
    """Generated training and test questions of all parts. The training questions don't overlap with the test set."""
    draw, parts = source.draw, source.parts
    assert draw is not None

    def learning(part: str) -> Callable[[int], list[Item]]:
        return lambda count: draw(task, part, "train", count, task.training_seed)

    test, train = counted(task.test, 0), counted(task.train, 0)  # numbers: the task refuses shares here
    each = -(-test // len(parts))
    held_out = _interleaved([draw(task, part, "test", each, task.seed) for part in parts])[:test]
    each = -(-train // len(parts))
    learn = _interleaved([_clear_of(held_out, learning(part), each, source.common) for part in parts])[:train]
    return learn, held_out


def _read(task: Task, source: Source, fold: Fold | None) -> tuple[list[Item], list[Item]]:
    """Training and test questions from existing data, drawn from one set, or each from a set of its own."""
    reader = source.read
    if reader is None:
        raise TaskError(f"The task {task.name} neither reads nor draws questions.", "Correct the package that adds it.")
    if task.test_path is None and task.test_split is None:
        return _split(_again(lambda: _questions(task, reader, None)), task, fold)
    there = task.model_copy(update={"path": task.test_path or task.path})
    read = _again(lambda: _questions(task, reader, lambda split: split != task.test_split))
    read_test = _again(lambda: _questions(there, reader, lambda split: split == task.test_split))
    learn = _drawn(read, task.name, task.train, task.training_seed, "task.train")
    held_out = _drawn(read_test, task.name, task.test, task.seed, "task.test")
    return learn, [replace(item, id=f"test-{item.id}") for item in held_out]


def _questions(task: Task, reader: Reader, splits: Splits | None) -> Iterable[Item]:
    """What a reader gives: a list as it is, anything else one by one. Errors of a reader of others are worded."""
    try:
        found = reader(task, splits)
        return found if isinstance(found, list) else _one_by_one(task, found)
    except DivconError:
        raise
    except Exception as error:
        raise _unread(task, error) from error


def _one_by_one(task: Task, found: Iterable[Item]) -> Iterator[Item]:
    try:
        yield from found
    except DivconError:
        raise
    except Exception as error:
        raise _unread(task, error) from error


def _unread(task: Task, error: Exception) -> TaskError:
    return TaskError(
        f"The task {task.name} can't be read: {type(error).__name__}: {error}.",
        "Correct the data, or the package that adds the task.",
    )


def _again(read: Callable[[], Iterable[Item]]) -> Callable[[], Iterable[Item]]:
    """A function that returns the questions each time: it keeps a list, and reads a lazy source again."""
    first = read()
    return (lambda: first) if isinstance(first, list) else read


def _drawn(read: Callable[[], Iterable[Item]], name: str, asked: int | str, seed: int, key: str) -> list[Item]:
    """So many questions of a set, drawn by position. A smaller draw is the beginning of a larger one."""
    order = list(range(sum(1 for _ in read())))
    count = counted(asked, len(order))
    if len(order) < count:
        raise TaskError(f"{key} asks for {count} questions of {name}, and there are {len(order)}.", f"Lower {key}.")
    random.Random(seed).shuffle(order)
    return _at(order[:count], read)


def _at(positions: Sequence[int], read: Callable[[], Iterable[Item]]) -> list[Item]:
    wanted = set(positions)
    kept = {position: item for position, item in enumerate(read()) if position in wanted}
    if wanted - set(kept):
        raise TaskError("The task gives fewer questions when it is read again.", "Have it give the same each time.")
    return [kept[position] for position in positions]


def _split(read: Callable[[], Iterable[Item]], task: Task, fold: Fold | None = None) -> tuple[list[Item], list[Item]]:
    """Training and test questions of one set, drawn by position, so that a large file isn't kept in memory."""
    order = list(range(sum(1 for _ in read())))
    # A fold's test questions are training questions of the other folds, so that neither number takes from the other.
    train = counted(task.train, len(order), 0 if fold or task.test == "all" else counted(task.test, len(order)))
    test = counted(task.test, len(order), 0 if fold else train)
    if fold is None and len(order) < train + test:
        raise TaskError(
            f"The task {task.name} has {len(order)} questions, and {train} + {test} are asked for.",
            "Lower task.train or task.test.",
        )
    random.Random(task.seed).shuffle(order)
    if fold is not None:
        learn, held_out = _parted(order[-test:], task, fold)
        learn = learn[:train]
    elif task.train_seed is None:
        learn, held_out = order[:train], order[train : train + test]
    else:
        learn, held_out = order[:-test], order[-test:]
        random.Random(task.train_seed).shuffle(learn)
        learn = learn[:train]
    found = _at([*learn, *held_out], read)
    return found[: len(learn)], found[len(learn) :]


def _parted(order: Sequence[int], task: Task, fold: Fold) -> tuple[list[int], list[int]]:
    """The positions that can be trained on, shuffled, and those to test, where one part of all is tested."""
    if len(order) < fold.of:
        raise TaskError(
            f"The task {task.name} has {len(order)} questions, too few for {fold.of} folds.",
            "Lower experiment.folds, or raise task.test, which is the number of questions in all folds.",
        )
    held_out = list(order[fold.number - 1 :: fold.of])
    learn = sorted(set(order) - set(held_out))
    random.Random(task.training_seed).shuffle(learn)
    return learn, held_out


def as_share(item: Item) -> Item:
    """The item, with a numeric answer marked as a share, so that "12 %" and "0.12" are equal."""
    return replace(item, grader="percent") if item.grader in ("", "number") and is_number(item.answer) else item


def _clear_of(
    held_out: Sequence[Item], draw: Callable[[int], list[Item]], count: int, common: int | None = None
) -> list[Item]:
    """Generated training items that don't overlap with the test set.

    The families' training and test splits share no template instance, but equal sentences may still occur in both.
    """
    more = count
    while True:
        more += count // 4 + 8
        items = draw(more)
        overlap = {pair[0].id for pair in overlapping(items, held_out, common).pairs}
        clear = [item for item in items if item.id not in overlap]
        if len(clear) >= count:
            return clear[:count]


def _interleaved(lists: Sequence[list[Item]]) -> list[Item]:
    return [item for group in zip(*lists, strict=True) for item in group]


def _check(items: Sequence[Item]) -> None:
    """Refuse questions that no run could finish.

    Raises:
        TaskError: There are such; the first ones are named.
    """
    seen: set[str] = set()
    problems = Problems(None, "question")
    for item in items:
        if not isinstance(item, Item):
            raise TaskError(
                f"The task gives a {type(item).__name__} as a question.", "Have it give divcon.Item objects."
            )
        if problem := next(_problems_of(item, seen), None):
            problems.add(*problem)
        seen.add(item.id)
    problems.require_none()


def _problems_of(item: Item, seen: set[str]) -> Iterator[tuple[str, str, str]]:
    name = f"'{shown(str(item.id))}'"
    texts = {
        "id": [item.id],
        "question": [item.question],
        "answer": [item.answer],
        "context": [item.context or ""],
        "aliases": item.aliases,
        "subquestions": item.subquestions,
        "references": [span for reference in item.references for span in reference],
        "family": [item.family],
    }
    for field, held in texts.items():
        if not all(isinstance(text, str) for text in held):
            yield f"the {field} of {name}", " is not text", "Correct the data, or the package that adds the task."
            return
        if any(map(unwritable, held)):
            yield f"the {field} of {name}", " holds half of a character (a lone surrogate)", "Correct the data."
            return
    if item.id in seen:
        yield "two questions", f" have the id {name}", "Give every question its own id."
    if not item.question.strip():
        yield f"the question of {name}", " is empty", "Correct the data."
    if item.grader in ("number", "percent") and not numbers(item.answer):
        problem = f" is '{shown(item.answer)}', which is no number"
        yield f"the answer of {name}", problem, "Correct the data."
    if len(item.question) > LONGEST_QUESTION:
        problem = f" has {len(item.question):,} characters, over {LONGEST_QUESTION:,}"
        yield f"the question of {name}", problem, "Put the passage into 'context' and keep the question short."
