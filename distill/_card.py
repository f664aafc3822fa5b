"""The model card beside every adapter, in the hub's format: what it is, what it learnt from, how it was measured."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from divcon.distill._manifest import Manifest
from divcon.signatures import masked

CARD = "README.md"
_WHAT = {
    "decomposer": "It splits a question into subquestions. Another model, the solver, answers these and the question.",
    "solver": "It answers a question with the help of subquestions that another model, the decomposer, has written.",
}
_LIMITS = (
    "It learnt the prompt above and no other one. With another instruction or layout its replies can't be relied on.",
    "It was trained on one kind of question. On other kinds, measure it before you use it.",
    "It repeats its teacher's habits and mistakes, as far as screening hasn't removed them.",
    "The limits and licence of its base hold for it too.",
)


@dataclass(frozen=True)
class Evaluated:
    """One program's result on held-out questions.

    Attributes:
        label: The program.
        right: Answers that are right.
        wrong: Answers that are wrong.
        failed: Answers that failed, and are in no accuracy.
        accuracy: From 0 to 1; None where too many failed.
        ci95: Its 95 % interval; None where there is no accuracy.
        own: Whether the adapter answers in it.
    """

    label: str
    right: int
    wrong: int
    failed: int
    accuracy: float | None
    ci95: tuple[float, float] | None
    own: bool = False


def model_card(manifest: Manifest, evaluated: Sequence[Evaluated] = ()) -> str:
    """The card of an adapter: YAML metadata, as the Hugging Face hub reads it, and the text.

    Args:
        manifest: The adapter's.
        evaluated: Results on held-out questions: the program with the adapter, and those to compare it with.
    """
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(_metadata(manifest, evaluated), stream)
    sections = "\n\n".join(_sections(manifest, evaluated))
    return masked(f"---\n{stream.getvalue()}---\n\n{sections}\n")


def _metadata(manifest: Manifest, evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    base, hub = manifest.base["id"], manifest.data.get("hub")
    found: dict[str, Any] = {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["divcon", "dspy", "lora", "question-decomposition", manifest.role],
    }
    if "/" in base:  # a folder's name is no model of a hub
        found = {"base_model": base, "base_model_relation": "adapter", **found}
    if hub:
        found["datasets"] = [hub]
    own = next((one for one in evaluated if one.own and one.accuracy is not None), None)
    if own is not None and hub:
        found["model-index"] = [
            {
                "name": manifest.served_name,
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"type": hub, "name": manifest.data.get("task", hub)},
                        "metrics": [{"type": "accuracy", "value": round(own.accuracy or 0.0, 4)}],
                    }
                ],
            }
        ]
    return found


def _sections(manifest: Manifest, evaluated: Sequence[Evaluated]) -> Iterator[str]:
    yield f"# {_cell(manifest.served_name)}"
    what = _WHAT.get(manifest.role, f"It has the role {manifest.role} in a DSPy program of several models.")
    yield f"A LoRA adapter, trained with divcon {manifest.versions.get('divcon', '')}. {what}"
    if manifest.teacher is not None and manifest.teacher.kind == "scripted":
        yield f"**{manifest.teacher.note}**"
    yield f"## Base\n\n`{manifest.base['id']}`, revision `{manifest.base['revision']}`."
    yield f"## Data\n\n{_listed(_data(manifest))}"
    yield f"## Prompt\n\n{_prompt(manifest)}"
    yield f"## Training\n\n{_listed(_training(manifest))}"
    yield f"## Evaluation\n\n{_evaluation(evaluated)}"
    yield f"## Limits\n\n{_listed(_LIMITS)}"


def _data(manifest: Manifest) -> Iterator[str]:
    source = manifest.data.get("hub") or manifest.data.get("task")
    licence = manifest.data.get("licence")
    if source:
        yield f"Questions: `{source}`" + (f", licence {licence}." if licence else ".")
    yield f"Rows: {manifest.rows:,}, sha256 `{manifest.data_hash}`."
    screened = manifest.screening
    if screened.get("collected") is not None:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted((screened.get("lost") or {}).items()))
        why = f" ({lost} lost)" if lost else ""
        yield f"Screening: {screened['kept']:,} of {screened['collected']:,} plans were kept{why}."
    teacher = manifest.teacher
    if teacher is None:
        yield "Teacher: not recorded."
    else:
        yield f"Teacher: `{teacher.model}`. {teacher.note}".rstrip()
    if manifest.allowed_overlap:
        yield f"Overlap with the test questions that was let through: {len(manifest.allowed_overlap):,} questions."


def _training(manifest: Manifest) -> Iterator[str]:
    settings, result = manifest.settings, manifest.result
    names = ("method", "rank", "epochs", "batch_size", "learning_rate", "max_length", "seed")
    yield ", ".join(f"{name} {settings[name]}" for name in names if name in settings) + f", {manifest.precision}."
    yield (
        f"{result.get('steps', '?')} steps, loss {result.get('first_loss', '?')} to {result.get('last_loss', '?')}, "
        f"{result.get('seconds', '?')} s."
    )
    yield ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())) + "."


def _prompt(manifest: Manifest) -> str:
    if not manifest.messages:
        return "Not recorded; the hashes of its parts stand in `manifest.json`."
    return "\n\n".join(
        f"{message['role']}:\n\n" + "\n".join(f"    {line}" for line in message["content"].splitlines())
        for message in manifest.messages
    )


def _evaluation(evaluated: Sequence[Evaluated]) -> str:
    if not evaluated:
        return "No results yet; `divcon evaluate` adds those of its run."
    rows = [
        f"| {_cell(one.label)}{' (this adapter)' if one.own else ''} | {_accuracy(one)} "
        f"| {one.right:,} / {one.wrong:,} / {one.failed:,} |"
        for one in evaluated
    ]
    head = "| program | accuracy (95 % interval) | right / wrong / failed |\n|---|---|---|"
    return "Accuracy on held-out questions; failed answers are in no accuracy.\n\n" + "\n".join([head, *rows])


def _accuracy(one: Evaluated) -> str:
    if one.accuracy is None or one.ci95 is None:
        return "no score, too many failed"
    return f"{100 * one.accuracy:.1f} % ({100 * one.ci95[0]:.1f} to {100 * one.ci95[1]:.1f})"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _listed(lines: Sequence[str] | Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
