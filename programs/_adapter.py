"""The compact adapter: a prompt short enough for a small model, and the same bytes in training as at inference.

DSPy's ChatAdapter explains its field markers in every prompt; for a model of 135 million parameters on a CPU the
prompt is the cost. Here the system message is the instruction alone, each input is a labelled block, and a reply is
the first output's text followed by one labelled line for each further output.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import dspy
from dspy.adapters.utils import apply_output_field_defaults, format_field_value, parse_value
from dspy.utils.exceptions import AdapterParseError

from divcon.signatures import (
    Subquestions,
    SubquestionsError,
    UnusableArgument,
    ends_in_answer,
    plain,
    read_answer,
    thinks_still,
    without_thinking,
)

_LABELS = {
    "context": "Passage",
    "subquestions": "Hints",
    "sub_answers": "Steps",
    "reasoning": "Steps",
    "sub_answer": "Final answer",
    "answer": "Final answer",
}


class _Adapter(dspy.ChatAdapter):
    """DSPy's ChatAdapter without its second call in JSON, and with demonstrations that need no optional inputs."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("use_json_adapter_fallback", False)
        super().__init__(**kwargs)

    def format_demos(self, signature: type[dspy.Signature], demos: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The demonstrations as turns. A demonstration that lacks only optional inputs is complete.

        DSPy would introduce it with "some input or output fields are not supplied", although none is missing.
        """
        messages: list[dict[str, Any]] = []
        for demo in demos:
            fields = signature.input_fields.items()
            lacking = tuple(name for name, field in fields if demo.get(name) is None and not field.is_required())
            messages += super().format_demos(_without(signature, lacking), [demo])  # type: ignore[arg-type]
        return messages


class CompactAdapter(_Adapter):
    """Renders a call in as few tokens as it can, and reads the reply back.

    It derives from DSPy's ChatAdapter, because DSPy takes training rows for chats only then (`infer_data_format`).

    Inputs that are None or blank are left out, never rendered as "None". A reply that can't be read raises
    `AdapterParseError`; no second call in another format is made.

    Args:
        labels: The labels of fields in the prompt, by the field's name. By default a label is the name in words. A
            trained student has learnt its labels, so they are part of the prompt that a manifest fixes.
        instruction: Where the instruction is, which decides what a server that caches prefixes can share.

            - `first`: it is the system message. The calls of one role about a passage share their beginning.
            - `last`: it ends the prompt. Where one model has both roles, their calls about a passage share it too.
    """

    def __init__(
        self,
        labels: Mapping[str, str] | None = None,
        instruction: Literal["first", "last"] = "first",
        **kwargs: Any,
    ) -> None:
        if instruction not in ("first", "last"):
            raise UnusableArgument(f"instruction is {instruction!r}.", "Take 'first' or 'last'.")
        super().__init__(**kwargs)
        self.labels = {**_LABELS, **(labels or {})}
        self.instruction = instruction

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = super().format(signature, demos, inputs)
        if self.instruction == "first":
            return messages
        system, *others = messages
        content = others[-1]["content"]
        if isinstance(content, str):
            others[-1] = {**others[-1], "content": f"{content}\n{system['content']}"}
        else:  # parts, where an input is no text
            others[-1] = {**others[-1], "content": [*content, {"type": "text", "text": f"\n{system['content']}"}]}
        return others

    def label(self, name: str) -> str:
        """The label of a field, with its colon."""
        return self.labels.get(name, name.replace("_", " ").capitalize()) + ":"

    def _label_line(self, name: str) -> re.Pattern[str]:
        """A pattern of one of a field's labels at a line's beginning: plain, in bold or as a heading."""
        labels = "|".join(re.escape(label[:-1]) for label in self._labels(name))
        return re.compile(rf"(?im)^[ \t*#]*(?:{labels})[ \t*]*:[ \t*]*")

    def _labels(self, name: str) -> tuple[str, ...]:
        """A field's label, with "Answer:" as another for "Final answer:", since models write either."""
        label = self.label(name)
        return (label, "Answer:") if label == "Final answer:" else (label,)

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        return " ".join(signature.instructions.split())

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        blocks = [prefix] if prefix else []
        for name, field in signature.input_fields.items():
            text = _render(field, inputs.get(name))
            if text:
                blocks.append(f"{self.label(name)}{_gap(text)}{text}")
        return "\n".join([*blocks, suffix] if suffix else blocks)

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        blocks = []
        for position, (name, field) in enumerate(signature.output_fields.items()):
            text = _render(field, outputs.get(name)) or (missing_field_message or "")
            blocks.append(text if position == 0 else f"{self.label(name)} {text}")
        return "\n".join(block for block in blocks if block)

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        if ends_in_answer(signature):
            return _answered(self, signature, completion)
        try:
            text = without_thinking(completion).strip()
        except SubquestionsError as error:
            raise _unreadable(self, signature, completion, error.problem) from error
        names = list(signature.output_fields)
        found: dict[str, str] = {}
        # From the last label backwards, so that a label quoted in the first field's text can't end it early.
        for name in reversed(names[1:]):
            hits = list(self._label_line(name).finditer(text))
            if not hits:
                continue
            found[name], text = text[hits[-1].end() :].strip(), text[: hits[-1].start()].strip()
        # A model may write the first label although the prompt asks for none.
        begun = self._label_line(names[0]).match(text)
        found[names[0]] = text[begun.end() :].lstrip() if begun else text
        values = {}
        for name, raw in found.items():
            try:
                values[name] = _read_field(signature.output_fields[name].annotation, raw)
            except ValueError as error:  # SubquestionsError is one
                raise _unreadable(self, signature, completion, f"{name}: {error}") from error
        values = apply_output_field_defaults(signature, values)
        missing = [name for name in names if name not in values]
        if missing:
            labels = ", ".join(f"'{self.label(name)}'" for name in missing)
            raise _unreadable(self, signature, completion, f"The reply has no line that begins with {labels}.")
        return values

    def partial(self, signature: type[dspy.Signature], text: str, field: str, ended: bool = False) -> tuple[str, bool]:
        """A field's text in a reply that is still being written, and whether the field is complete.

        Text that may become a label is held back, and so is an open think block. An answer is shown behind its label
        alone; without one, it is known when the reply has ended. Where a label comes twice, the field ends at the first
        one here, and at the last one in `parse`.

        Args:
            signature: What was asked.
            text: The reply up to here.
            field: An output field.
            ended: Whether the reply has ended, so that nothing is held back.
        """
        if thinks_still(text):
            return "", False
        text = without_thinking(text).lstrip()
        names = list(signature.output_fields)
        answer = names[-1] if ends_in_answer(signature) else None
        starts = {names[0]: 0} if names[0] != answer else {}
        for name in names[len(starts) :]:
            if hit := self._label_line(name).search(text):
                starts[name] = hit.start()
        if field not in starts:
            found = read_answer(text, steps=len(names) > 1) if ended and field == answer else None
            return (found.text, True) if found else ("", False)
        later = [at for name, at in starts.items() if at > starts[field]]
        value = text[starts[field] : min(later, default=len(text))]
        if begun := self._label_line(field).match(value):
            value = value[begun.end() :].lstrip()
        elif not (later or ended or "\n" in value) and self._may_become_label(value, [field]):
            return "", False
        if not later and not ended and field != names[-1]:
            body, newline, line = value.rpartition("\n")
            if (newline or not body) and self._may_become_label(line, names[1:]):
                value = body
        return value.rstrip(), bool(later)

    def _may_become_label(self, line: str, names: Sequence[str]) -> bool:
        """Whether a line that is still being written may become the label of one of these fields."""
        begun = line.strip(" \t*#").casefold()
        return any(label.casefold().startswith(begun) for name in names for label in self._labels(name))

    def format_finetune_data(
        self,
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> dict[str, list[Any]]:
        """The messages of a training row; all but the last are what inference sends, byte for byte."""
        prompt = self.format(signature=signature, demos=demos, inputs=inputs)
        reply = self.format_assistant_message_content(signature=signature, outputs=outputs)
        return {"messages": [*prompt, {"role": "assistant", "content": reply}]}


class ChatAdapter(_Adapter):
    """DSPy's ChatAdapter with five changes, for models that are used to its format.

    - Subquestions are read from the raw text, not from repaired JSON.
    - Subquestions have no JSON Schema in the prompt, since small models copy it.
    - A missing input is left out, not sent as "None".
    - A reply that can't be read raises `AdapterParseError`; no second call in JSON is made.
    - An answer is read with DSPy's markers or without them.
    """

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        *shown, given = [
            {name: _text(value, name in signature.input_fields) for name, value in dict(one).items()}
            for one in (*demos, inputs)
        ]
        messages: list[dict[str, Any]] = super().format(_as_text(signature), shown, given)  # type: ignore[arg-type]
        return messages

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        given = {name: value for name, value in inputs.items() if value is not None}
        return super().format_user_message_content(signature, given, prefix, suffix, main_request)

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        answered = ends_in_answer(signature)
        raw = _as_text(signature)  # type: ignore[arg-type]
        try:
            values = super().parse(raw, without_thinking(completion))
        except SubquestionsError as error:
            raise _unreadable(self, signature, completion, error.problem) from error
        except AdapterParseError:
            if not answered:
                raise
            return _answered(self, signature, completion)  # a reply without the markers
        if answered:
            *_, last = signature.output_fields
            found = read_answer(values[last])
            values[last] = found.text if found else plain(values[last])
        for name, field in signature.output_fields.items():
            if field.annotation is Subquestions:
                try:
                    values[name] = Subquestions.read(values[name])
                except SubquestionsError as error:
                    raise _unreadable(self, signature, completion, str(error)) from error
        return values


@functools.lru_cache(maxsize=256)  # making a signature takes longer than all the rest of a prompt
def _without(signature: type[dspy.Signature], names: tuple[str, ...]) -> type[dspy.Signature]:
    """The signature without these fields."""
    for name in names:
        signature = signature.delete(name)
    return signature


@functools.lru_cache(maxsize=256)
def _as_text(signature: type[dspy.Signature]) -> type[dspy.Signature]:
    """The signature with text where it has subquestions."""
    for name, field in signature.fields.items():
        if field.annotation is Subquestions:
            signature = signature.with_updated_fields(name, type_=str)
        elif field.annotation == Subquestions | None:
            signature = signature.with_updated_fields(name, type_=str | None)
    return signature


def _text(value: Any, given: bool) -> Any:
    """A value with its subquestions as text; None for an empty list that is given, since there is nothing to show."""
    if not isinstance(value, Subquestions):
        return value
    return value.render() if len(value) or not given else None


def _answered(adapter: dspy.Adapter, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
    """The values of a signature that ends in an answer, from a reply that gives it in any form."""
    *steps, last = signature.output_fields
    found = read_answer(completion, steps=bool(steps))
    if found is None:
        raise _unreadable(adapter, signature, completion, "The reply gives no answer in a known form.")
    label = adapter._label_line(steps[0]) if steps and isinstance(adapter, CompactAdapter) else None
    # A model may write the first label although the prompt asks for none.
    before = found.before[begun.end() :].lstrip() if label and (begun := label.match(found.before)) else found.before
    return {**dict.fromkeys(steps, before), last: found.text}


def _read_field(annotation: Any, raw: str) -> Any:
    """Parse a field's text into its value; subquestions never go through JSON repair."""
    return Subquestions.read(raw) if annotation is Subquestions else parse_value(raw, annotation)


def _render(field: Any, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Subquestions):
        return _text(value, field.json_schema_extra["__dspy_field_type"] == "input") or ""
    return str(format_field_value(field, value)).strip()


def _gap(text: str) -> str:
    return "\n" if "\n" in text or text.startswith("1. ") else " "


def _unreadable(
    adapter: dspy.Adapter, signature: type[dspy.Signature], completion: str, message: str
) -> AdapterParseError:
    return AdapterParseError(
        adapter_name=type(adapter).__name__, signature=signature, lm_response=completion, message=message
    )
