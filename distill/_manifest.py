"""The manifest beside every adapter: what it was trained on and with, so that binding it can be checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dspy.adapters.utils import get_annotation_name
from pydantic import BaseModel, ConfigDict, Field, model_validator

from divcon.distill._teacher import SCRIPTED_MODEL, Author
from divcon.distill.serving.embedded import Base, Precision
from divcon.signatures import DivconError, masked

MANIFEST = "manifest.json"
_UNSAFE = ("adapter_model.bin", "program.pkl", "pytorch_model.bin", "training_args.bin")
_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".txt")
_BESIDE = (MANIFEST, "probe.json")  # they describe the adapter
_NAMES_OF_THE_BASE = ("base_model_name_or_path", "revision")


class ManifestError(DivconError):
    """An adapter has no readable manifest, or doesn't fit the base or the role it is bound to."""


class Manifest(BaseModel):
    """What an adapter was trained on and with.

    Attributes:
        schema_version: The version of this file's format; manifests without it are of version 1.
        role: The role of the adapter: `decomposer` or `solver`.
        student: The student's name in the paper (`SD-T`, `SD-R`), or a name of divcon's.
        base: Public name, revision and dtype of the base.
        prompt_hash: Hash of the system messages of the training prompts; see `prompt_hash`.
        prompt: Hashes of the parts of the training prompts, by name; see `prompt_parts`.
        messages: The training prompt with the names of its inputs, such as `{question}`, in their places. It is the
            instruction alone where the rows weren't exported, and empty in older manifests.
        chat_template_hash: Hash of the tokenizer's chat template.
        data_hash: Hash of the training file's bytes.
        data: Where the questions come from: `task`, its `hub` name and its `licence`, as far as they are known.
        rows: Rows trained on.
        screening: The screen's counts: traces collected, kept, and lost by reason.
        settings: The training settings.
        precision: The precision that the training computed in.
        result: Steps, losses, seconds and tokens of the training.
        teacher: Who wrote the plans that it was trained on; None where that isn't known.
        versions: Versions of the packages that trained it.
        allowed_overlap: The overlaps of training questions with the test set that the run's file lets through.
        content_hash: Hash of the adapter's weights and of its settings of LoRA; served names carry its beginning.
        files: Hashes of all files that decide what the adapter computes, by name. Manifests of divcon before this field
            have none, and only `content_hash` is checked.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    role: str
    student: str
    base: dict[str, str]
    prompt_hash: str
    prompt: dict[str, str] = Field(default_factory=dict)
    messages: list[dict[str, str]] = Field(default_factory=list)
    chat_template_hash: str
    data_hash: str
    data: dict[str, str] = Field(default_factory=dict)
    rows: int
    screening: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    precision: Precision = "bfloat16"
    result: dict[str, Any] = Field(default_factory=dict)
    teacher: Author | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    allowed_overlap: list[dict[str, str]] = Field(default_factory=list)
    content_hash: str
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_its_teacher(cls, written: Any) -> Any:
        # Older manifests only say whether the teacher was a script.
        if not isinstance(written, dict) or "scripted_teacher" not in written:
            return written
        known = {key: value for key, value in written.items() if key != "scripted_teacher"}
        return (
            {**known, "teacher": Author(model=SCRIPTED_MODEL, kind="scripted")}
            if written["scripted_teacher"]
            else known
        )

    @property
    def served_name(self) -> str:
        """The name that the adapter is served under, on any server; it carries the beginning of the content hash."""
        return f"{self.student or self.role}-{self.content_hash[:12]}"

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(masked(self.model_dump_json(indent=2)) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an adapter folder.

    Raises:
        ManifestError: It is missing or unreadable, the folder holds a pickle, or the weights have changed.
    """
    for name in _UNSAFE:
        if (folder / name).exists():
            raise ManifestError(f"{folder / name} is a pickle, and divcon loads no pickles.", "Save as safetensors.")
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{folder} has no {MANIFEST}.", "Give a folder that 'divcon train' wrote.") from error
    except ValueError as error:  # pydantic's, or a file that isn't UTF-8
        raise ManifestError(
            f"{folder / MANIFEST} can't be read: {error}", "Train the adapter again, or use the divcon that wrote it."
        ) from error
    try:
        changed = _changed(manifest.files, file_hashes(folder)) if manifest.files else ""
        same = content_hash(folder) == manifest.content_hash
    except (OSError, ValueError, AttributeError) as error:  # a file is missing, isn't UTF-8, or holds no JSON object
        raise ManifestError(f"The adapter in {folder} is damaged: {error}.", "Train it again.") from error
    if changed or not same:
        which = f" ({changed})" if changed else ""
        problem = f"The adapter in {folder} isn't the one its manifest describes{which}."
        raise ManifestError(problem, "Train it again.")
    return manifest


def _changed(known: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What was changed since training, in words; empty where nothing was."""
    gone, added = sorted(set(known) - set(found)), sorted(set(found) - set(known))
    changed = sorted(name for name in set(known) & set(found) if known[name] != found[name])
    parts = [("changed since", changed), ("missing", gone), ("added since", added)]
    return "; ".join(f"{', '.join(names)} {what}" for what, names in parts if names)


def manifest_for(folder: Path, base: Base) -> Manifest:
    """The manifest of an adapter that is to be served on `base`.

    Raises:
        ManifestError: As for `read_manifest`, or the adapter was trained on another base.
    """
    manifest = read_manifest(folder)
    if (manifest.base["id"], manifest.base["revision"]) != (base.id, base.revision):
        raise ManifestError(
            f"The adapter in {folder} was trained on {manifest.base['id']} ({manifest.base['revision'][:24]}), "
            f"not on {base.id} ({base.revision[:24]}).",
            "Serve it on its own base, or train it again on this one.",
        )
    return manifest


def file_hashes(folder: Path) -> dict[str, str]:
    """Hashes of the files of an adapter folder that decide what it computes, by name.

    These are weights, configurations, tokenizers and templates. An adapter's configuration is hashed without the name
    of its base, which the manifest has: PEFT loads an adapter onto whatever model it is given.

    Raises:
        OSError: A file can't be read.
        ValueError: The adapter's configuration is no JSON object.
    """
    found = {}
    for file in sorted(folder.iterdir()):
        if file.name == "adapter_config.json":
            config = {key: value for key, value in _config(folder).items() if key not in _NAMES_OF_THE_BASE}
            found[file.name] = text_hash(json.dumps(config, sort_keys=True))
        elif file.suffix in _DECIDING and file.name not in _BESIDE and file.is_file():
            with file.open("rb") as stream:
                found[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _config(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("adapter_config.json is no JSON object")
    return config


def content_hash(folder: Path) -> str:
    """Hash of an adapter's weights and of the LoRA settings that decide what they compute."""
    digest = hashlib.sha256()
    config = _config(folder)
    shaping = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias")
    digest.update(json.dumps({key: config.get(key) for key in shaping}, sort_keys=True).encode())
    digest.update((folder / "adapter_model.safetensors").read_bytes())
    return digest.hexdigest()


def prompt_hash(prompts: Sequence[Sequence[Mapping[str, str]]]) -> str:
    """Hash of the distinct system messages in `prompts`. It is independent of the questions.

    Args:
        prompts: Chat messages without the reply, one list per row.
    """
    system = sorted({message["content"] for prompt in prompts for message in prompt if message["role"] == "system"})
    return hashlib.sha256("\x00".join(system).encode()).hexdigest()


def prompt_parts(predictor: Any) -> dict[str, str]:
    """Hashes of the parts of a predictor's prompt: `instruction`, `demos`, `layout` (of inputs), `set of outputs`.

    Args:
        predictor: A `RolePredict`.
    """
    inputs = {name: f"<{name}>" for name in predictor.signature.input_fields}
    *before, user = predictor.prompt(**inputs)
    # Some adapters put the instruction at the end of the prompt. Then there is no system message, and the instruction
    # is part of the layout.
    system, demos = (before[0], before[1:]) if before and before[0]["role"] == "system" else (None, before)
    label = getattr(predictor.adapter, "label", lambda name: name)
    outputs = [
        (name, label(name), get_annotation_name(field.annotation))
        for name, field in predictor.signature.output_fields.items()
    ]
    return {
        "instruction": text_hash(json.dumps(system)),
        "demos": text_hash(json.dumps(demos)),
        "layout": text_hash(json.dumps([user, type(predictor.adapter).__name__])),
        "set of outputs": text_hash(json.dumps(outputs)),
    }


def prompt_messages(predictor: Any) -> list[dict[str, str]]:
    """A predictor's prompt with the names of its inputs, such as `{question}`, in their places.

    Args:
        predictor: A `RolePredict`.
    """
    names = {name: f"{{{name}}}" for name in predictor.signature.input_fields}
    messages: list[dict[str, str]] = predictor.prompt(**names)
    return messages


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def template_hash(tokenizer: Any) -> str:
    """The hash of a tokenizer's chat template; of the empty text where it has none."""
    return text_hash(tokenizer.chat_template or "")


def package_versions() -> dict[str, str]:
    """Versions of the packages that influence what an adapter learns."""
    names = ("divcon", "dspy", "torch", "transformers", "peft", "trl")
    return {name: metadata.version(name) for name in names}
