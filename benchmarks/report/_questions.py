"""The questions of a report: an index that the page reads at once, and parts that it unpacks where a row is opened.

The index has what the table of questions shows, sorts and filters. Everything else (passages, steps, prompts, raw
replies) is in parts of a hundred questions, packed with gzip and in base64. So a page of 10,000 questions with all of
their calls opens at once and stays small.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from divcon.benchmarks._outcomes import Record, Records
from divcon.benchmarks._tables import FACTORS
from divcon.benchmarks.report._names import program_of, row_label
from divcon.distill import Exchange, prompt_of, reply_of
from divcon.programs import Item
from divcon.signatures import masked_values, printable_values

_PART = 100  # questions of one packed part
_SHORT = 40  # characters of an answer in the table
_WITHIN = [name for name in FACTORS if name not in ("task", "steps")]


def shown_values(value: Any) -> Any:
    """A value as the page shows it: masked of secrets, its control characters made visible."""
    return printable_values(masked_values(value))


@dataclass(frozen=True)
class Shown:
    """The questions of one task, with the arms' answers.

    Attributes:
        task: The task's name.
        items: The test items.
        arms: The line of results and the outcomes of each arm. An outcome may be missing where a run isn't finished.
        calls: The calls that the outcomes name, by their keys, as far as they are known.
    """

    task: str
    items: Sequence[Item]
    arms: Sequence[tuple[Mapping[str, Any], Records]]
    calls: Mapping[str, Exchange] = field(default_factory=dict)

    @property
    def by_steps(self) -> bool:
        """Whether it is known how many steps each question needs."""
        return any(item.subquestions for item in self.items)

    def where(self, name: str, line: Mapping[str, Any]) -> int | None:
        """The place of an arm's answers; None where they aren't shown.

        Args:
            name: The arm's name; a level in brackets may follow, as in `sd-r (60)`.
            line: The levels of the factors that it was measured at.
        """
        bare, _, level = name.removesuffix(")").partition(" (")
        found = []
        for place, (arm, _) in enumerate(self.arms):
            same = arm["name"] == bare and all(arm.get(factor) == line[factor] for factor in _WITHIN if factor in line)
            at_level = not level or level in [str(arm[factor]) for factor in _WITHIN if factor in arm]
            own = bool(level) or "trained_on" in line or arm.get("trained_on", self.task) == self.task
            if same and at_level and own:
                found.append(place)
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Links:
    """Links to the questions behind a figure.

    Attributes:
        shown: The questions of each task.
    """

    shown: Sequence[Shown]

    def to(self, line: Mapping[str, Any], outcome: str = "", task: str | None = None) -> str:
        """The link to the questions of a line of results; empty where they aren't shown.

        Args:
            line: The results of an arm.
            outcome: Only questions with this outcome: `right`, `wrong` or `failed`.
            task: The line's task; by default what it says, or the only one.
        """
        part = self._part(task or line.get("task"))
        place = None if part is None else self.shown[part].where(line["name"], line)
        if part is None or place is None:
            return ""
        steps = f"&steps={line['steps']}" if "steps" in line else ""
        return f"#task={part}&a={place}{f'&was={outcome[0]}' if outcome else ''}{steps}"

    def between(self, row: Mapping[str, Any]) -> list[tuple[int, str]]:
        """The number of questions that one of two arms alone has right, and the link to them, for each of the two.

        Args:
            row: A comparison, with the arms `a` and `b`. Empty where their answers aren't shown.
        """
        number = self._part(row.get("task"))
        if number is None:
            return []
        part = self.shown[number]
        one, other = (part.where(str(row[side]), row) for side in "ab")
        if one is None or other is None:
            return []
        steps = row.get("steps")
        ids = [item.id for item in part.items if steps is None or len(item.subquestions) == steps]
        found = []
        for better, worse in ((one, other), (other, one)):
            mine, theirs = part.arms[better][1], part.arms[worse][1]
            alone = sum(
                mine[key]["outcome"] == "right" and theirs[key]["outcome"] == "wrong"
                for key in ids
                if key in mine and key in theirs
            )
            link = f"#task={number}&a={better}&was=r&b={worse}&other=w{f'&steps={steps}' if steps else ''}"
            found.append((alone, link if alone else ""))
        return found

    def _part(self, task: str | None) -> int | None:
        if task is None:
            return 0 if self.shown else None
        return next((number for number, part in enumerate(self.shown) if part.task == task), None)


def index_of(shown: Sequence[Shown]) -> str:
    """What the table of questions shows, as JSON that is safe in a script element."""
    parts = []
    for part in shown:
        named = [(program_of(line), row_label(line)) for line, _ in part.arms]
        arms = [{"letters": program.letters, "label": label} for program, label in named]
        questions = [
            {
                "id": item.id,
                "q": item.question,
                "g": item.answer,
                "n": len(item.subquestions),
                "r": [_brief(records.get(item.id)) for _, records in part.arms],
            }
            for item in part.items
        ]
        parts.append({"task": part.task, "arms": arms, "steps": part.by_steps, "questions": questions})
    text = json.dumps(shown_values(parts), ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _brief(record: Record | None) -> list[str]:
    """Outcome, status and answer of a question in the table."""
    if record is None:
        return ["-", "", ""]
    read = record.get("extracted")
    answer = record.get("answer", "") if read is None else read
    return [record["outcome"][0], record.get("status", ""), " ".join(str(answer).split())[:_SHORT]]


def packed(shown: Sequence[Shown]) -> list[tuple[str, str]]:
    """The packed parts: their names on the page, and their contents in base64."""
    found = []
    for number, part in enumerate(shown):
        for start in range(0, len(part.items), _PART):
            content = shown_values(_unpacked(part, part.items[start : start + _PART]))
            text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
            # A lone half of a character, which a server may send, has no UTF-8.
            raw = gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)
            found.append((f"part-{number}-{start // _PART}", base64.b64encode(raw).decode()))
    return found


def _unpacked(part: Shown, items: Sequence[Item]) -> dict[str, Any]:
    """The passages, answers and calls of some questions. Calls and system prompts that several share stand once."""
    calls: dict[str, Any] = {}
    systems: dict[str, int] = {}
    questions = []
    for item in items:
        answers = []
        for _, records in part.arms:
            record = records.get(item.id)
            answers.append(None if record is None else _answered(record))
            for key in (record or {}).get("calls", ()):
                if key not in calls and key in part.calls:
                    calls[key] = _called(part.calls[key], systems)
        questions.append({"c": item.context or "", "r": answers})
    return {"questions": questions, "calls": calls, "systems": list(systems)}


def _answered(record: Record) -> dict[str, Any]:
    """An answer as the page shows it."""
    how = [str(record[key]) for key in ("status", "reason", "rule") if record.get(key)]
    found: dict[str, Any] = {
        "how": ", ".join(how).replace("_", " "),
        "asked": record.get("subquestions", []),
        "steps": record.get("sub_answers", ""),
        "said": record.get("answer", record.get("error", "")),
        "seconds": record.get("seconds"),
        "usage": {
            role: [used["calls"], used["input_tokens"], used["cached_tokens"], used["output_tokens"], used.get("cost")]
            for role, used in record.get("usage", {}).items()
        },
        "calls": record.get("calls", []),
    }
    return found


def _called(call: Exchange, systems: dict[str, int]) -> dict[str, Any]:
    """A call as the page shows it: prompt, reply, finish reason, tokens, cost."""
    prompt = list(prompt_of(call))
    system = "\n".join(text for who, text in prompt if who == "system")
    return {
        "role": call.role,
        "model": call.model,
        "system": systems.setdefault(system, len(systems)),
        "prompt": [[who, text] for who, text in prompt if who != "system"],
        "reply": reply_of(call),
        "finish": call.response.get("finish_reason"),
        "tokens": [call.input_tokens, call.cached_tokens, call.output_tokens],
        "cost": call.cost,
        "seconds": round(call.seconds, 3),
    }
