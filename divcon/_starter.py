"""A first pipeline file: written from the questions and the names of two models, with a comment on every key."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from divcon._providers import DEFAULT_MODEL, listed_price, missing_keys
from divcon.benchmarks.tasks import Fields, Form, Task, file_items, guess_fields, load_task, seen_form
from divcon.config import ConfigError, load_pipeline, split_override
from divcon.distill import FORM_STEPS, OverlapError, TrainSettings
from divcon.programs import Item
from divcon.signatures import DivconError

_TEST = 0.3  # the share of the questions that is held out
_MOST_TEST, _MOST_TRAIN = 500, 2_000
_STEPS = 2 * FORM_STEPS
_MOST_EPOCHS = 10
_LONGEST = 60  # characters of a question that are shown


@dataclass(frozen=True)
class Questions:
    """A file of questions, as far as it was looked at.

    Attributes:
        path: The file or the folder.
        fields: Its columns.
        form: How it is written.
        count: The number of questions.
        first: The first question.
        given: Other keys of `task`.
        drops: Whether training questions that overlap with test questions have to be left out.
    """

    path: Path
    fields: Fields
    form: Form
    count: int
    first: Item
    given: Mapping[str, Any]
    drops: bool = False

    @property
    def test(self) -> int:
        return min(_MOST_TEST, max(1, math.floor(_TEST * self.count)))

    @property
    def apart(self) -> bool:
        """Whether the test questions are in a file or a split of their own, which isn't counted."""
        return bool({"test_path", "test_split"} & self.given.keys())

    @property
    def train(self) -> int:
        return min(_MOST_TRAIN, self.count - (0 if self.apart else self.test))

    @property
    def sizes(self) -> dict[str, int | str]:
        """`train` and `test`, as the file has them."""
        return {"train": self.train, "test": "all" if self.apart else self.test}

    @property
    def columns(self) -> dict[str, str]:
        """The columns by our names, where they are called otherwise."""
        usual = Fields().model_dump()
        return {ours: theirs for ours, theirs in self.fields.model_dump().items() if theirs != usual[ours]}

    def task(self, **more: Any) -> Task:
        """The section `task`."""
        form = {key: value for key, value in vars(self.form).items() if value is not None}
        fields = {"fields": self.columns} if self.columns else {}
        return Task(**{"name": "file", "path": self.path, **form, **fields, **self.sizes, **self.given, **more})

    def said(self) -> list[str]:
        """What was found, in sentences."""
        columns = [f"{ours} is '{theirs}'" for ours, theirs in self.columns.items() if theirs is not None]
        guessed = f" Its columns, as they seem to be: {', '.join(columns)}." if columns else ""
        text = " ".join(self.first.question.split())
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        lines = [
            f"{self.path}: {self.count:,} questions.{guessed}",
            f"The first question: {shown!r}, and its answer: {self.first.answer[:_LONGEST]!r}.",
        ]
        if self.drops:
            lines.append("Some questions repeat each other: those that overlap with test questions aren't learnt from.")
        return lines


def look_at(path: Path, overrides: Sequence[str] = ()) -> Questions:
    """Look at a file of questions: its columns, how it is written, and how many questions there are.

    Args:
        path: The file or the folder.
        overrides: Keys of `task` that are known, as `--set` takes them; others are left alone.

    Raises:
        ConfigError: An override can't stand in a pipeline file.
        TaskError: It can't be read, has no answers, or holds fewer than two questions.
        OverlapError: Every training question overlaps with a test question.
    """
    _require_valid(path, overrides)
    given: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    for key, value in map(split_override, overrides):
        if key.startswith("task.fields."):
            columns[key.removeprefix("task.fields.")] = value
        elif key.startswith("task."):
            given[key.removeprefix("task.")] = value
    known = {key: given.pop(key, None) for key in ("format", "encoding", "delimiter")}
    form = seen_form(path, Form(**known))
    fields = guess_fields(path, form, Fields(**columns))
    count, first = 0, None
    held_out = given.get("test_split")
    for item in file_items(path, fields, form, None if held_out is None else lambda split: split != held_out):
        first = first or item
        count += 1
    if first is None or count < 2:
        raise DivconError(f"{path} holds {count} question.", "Give two at least: one to learn from and one to test.")
    found = Questions(path, fields, form, count, first, given)
    try:
        load_task(found.task())
    except OverlapError:
        if "overlap" in given:
            raise
        found = Questions(path, fields, form, count, first, {**given, "overlap": "drop"}, drops=True)
        load_task(found.task())
    return found


def _require_valid(path: Path, overrides: Sequence[str]) -> None:
    """Raise where the keys of `task` that are given can't stand in a pipeline file on these questions."""
    overrides = [one for one in overrides if split_override(one)[0].partition(".")[0] == "task"]
    if "task.name" in dict(map(split_override, overrides)):
        raise ConfigError("--set task.name: divcon init reads a file or folder of yours.", "Leave it out.")
    task = f"{{name: file, path: {_written(str(path))}, train: 1, test: 1}}"
    roles = f"{{teacher: {{model: {DEFAULT_MODEL}}}, solver: {{model: {DEFAULT_MODEL}}}}}"
    require_loads(f"task: {task}\nroles: {roles}\n", "What is given", overrides)


def require_loads(text: str, name: str, overrides: Sequence[str] = ()) -> None:
    """Raise where a text, which is in no file yet, is no pipeline file.

    Args:
        text: The text.
        name: What errors call it.
        overrides: Other keys, as `--set` takes them.

    Raises:
        ConfigError: It isn't valid; see `load_pipeline`.
    """
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "pipeline.yaml"
        draft.write_text(text, encoding="utf-8")
        try:
            load_pipeline(draft, overrides)
        except ConfigError as error:
            raise ConfigError(error.problem.replace(str(draft), name), error.remedy) from error


def starter(
    questions: Questions,
    out: Path,
    teacher: str = DEFAULT_MODEL,
    solver: str | None = None,
    base: str = "embedded",
    addresses: Mapping[str, str | None] | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """The text of a pipeline file.

    Args:
        questions: What was found in the data.
        out: The file that it will be written to.
        teacher: The teacher's model.
        solver: The solver's model; the teacher's by default.
        base: The base of the student.
        addresses: The addresses of servers, by role.
        overrides: Other keys, as `--set` takes them.
    """
    task, addresses = questions.task(), addresses or {}
    values = task.model_dump(mode="json", exclude_unset=True)
    batch = 16 if 2 * questions.train >= 16 * _STEPS else 4
    epochs = max(2, min(_MOST_EPOCHS, math.ceil(_STEPS * batch / questions.train)))
    steps = TrainSettings(batch_size=batch, epochs=epochs).steps(questions.train)
    lines = [
        f"# Written by 'divcon init' from {questions.path}. Look it over; then ask whether it is worth it:",
        f"#   divcon precheck {out}",
        "# 'divcon schema' prints every key that such a file can have. Nothing secret stands in it.",
        "",
        "task:                      # the questions",
        "  name: file",
        f"  path: {_written(str(questions.path))}",
        *(f"  {key}: {_written(values[key])}" for key in ("format", "encoding", "delimiter") if key in values),
    ]
    if questions.columns:
        columns = ", ".join(f"{ours}: {_written(theirs)}" for ours, theirs in questions.columns.items())
        lines.append(f"  fields: {{{columns}}}   # which of its columns are what")
    lines += [
        _commented(
            f"  train: {questions.sizes['train']}", "the teacher plans these, and the small model learns from its plans"
        ),
        _commented(f"  test: {questions.sizes['test']}", "held out: they measure, and nobody learns from them"),
    ]
    if questions.drops:
        lines.append(_commented("  overlap: drop", "leave out training questions that repeat a test question"))
    lines += ["", "roles:"]
    for role, model, does in (
        ("teacher", teacher, "splits a question into subquestions; the small model learns it from this one"),
        ("decomposer", base, "the small model that takes the teacher's place, on this machine"),
        ("solver", solver or teacher, "answers the question with the subquestions; divcon doesn't change it"),
    ):
        lines.append(_commented(f"  {role}:", does))
        if role == "decomposer":
            lines.append(_commented(f"    base: {_written(base)}", "a folder, or a model at the Hugging Face hub, too"))
            continue
        lines += [f"    {line}" for line in _endpoint(model, addresses.get(role))]
    lines += [
        "",
        "screen:",
        _commented("  rule: oracle", "keep the plans with which the solver is right; none keeps all of them"),
        "",
        _commented("train:", f"{questions.train} rows, {epochs} times, {batch} at once: {steps} steps at most"),
        f"  epochs: {epochs}",
        f"  batch_size: {batch}",
        "",
        "# budget: {usd: 5}         # the most that a run may pay; no call is made that could exceed it",
        "",
    ]
    return _changed("\n".join(lines), overrides)


def _endpoint(model: str, address: str | None) -> list[str]:
    price, missing = listed_price(model), missing_keys(model)
    key = f"the key comes from the environment: {' and '.join(missing)}" if missing else ""
    lines = [_commented(f"model: {_written(model)}", key)]
    if address:
        lines.append(f"api_base: {_written(address)}")
    if price:
        listed = ", ".join(f"{name}: {value:g}" for name, value in price.items())
        lines.append(f"price: {{{listed}}}   # dollars per million tokens, from LiteLLM {metadata.version('litellm')}")
    elif not model.startswith(("embedded/", "scripted/")):
        lines.append("# price: {input: 0.4, output: 1.6}   # dollars per million tokens; unknown, so fill it in")
    return lines


def _commented(text: str, comment: str) -> str:
    return f"{text:<24}   # {comment}" if comment else text


def _written(text: Any) -> str:
    """A value in YAML."""
    plain = isinstance(text, str) and re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text)
    reserved = isinstance(text, str) and text.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return text if plain and not reserved else json.dumps(text, ensure_ascii=False)


def _changed(text: str, overrides: Sequence[str]) -> str:
    """The text with other values, and its comments as they are."""
    if not overrides:
        return text
    yaml = YAML()
    yaml.width = 120
    document = yaml.load(text)
    for key, value in map(split_override, overrides):
        *parents, last = key.split(".")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    stream = StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
