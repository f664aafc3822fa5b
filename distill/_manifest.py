"""The manifest beside every adapter: what it was trained from, so that binding it elsewhere can be checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dspy.adapters.utils import get_annotation_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from divcon.distill.serving.embedded import Base, Precision
from divcon.signatures import DivconError

MANIFEST = "manifest.json"
_UNSAFE = ("adapter_model.bin", "program.pkl", "pytorch_model.bin", "training_args.bin")


class ManifestError(DivconError):
    """An adapter without a readable manifest, or one that doesn't fit what it is bound to."""


class Manifest(BaseModel):
    """What an adapter was trained on and with.

    Attributes:
        schema_version: Of this file's form; 1 in manifests of before it was written.
        role: What the adapter does: `decomposer` or `solver`.
        student: The paper's name for it (`SD-T`, `SD-R`), or a name of ours.
        base: Public name, revision and dtype of the base.
        prompt_hash: Hash of the system messages of the training prompts; see `prompt_hash`.
        prompt: Hashes of what the training prompts were made of, by name; see `prompt_parts`.
        chat_template_hash: Hash of the tokenizer's chat template.
        data_hash: Hash of the training file's bytes.
        rows: Rows trained on.
        screening: Collected, kept and lost by reason, as the screen counted them.
        settings: The training settings.
        precision: What the training computed in.
        result: Steps, losses, seconds and tokens of the training.
        scripted_teacher: Whether the training data came from a script rather than from a model.
        versions: The packages that trained it.
        content_hash: Hash of the adapter's weights and configuration; served names carry it.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    role: str
    student: str
    base: dict[str, str]
    prompt_hash: str
    prompt: dict[str, str] = Field(default_factory=dict)
    chat_template_hash: str
    data_hash: str
    rows: int
    screening: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    precision: Precision = "bfloat16"
    result: dict[str, Any] = Field(default_factory=dict)
    scripted_teacher: bool = False
    versions: dict[str, str] = Field(default_factory=dict)
    content_hash: str

    @property
    def served_name(self) -> str:
        """The name the adapter is served under wherever that is, which carries its content hash."""
        return f"{self.student or self.role}-{self.content_hash[:12]}"

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an adapter folder.

    Raises:
        ManifestError: It is missing or unreadable, the folder holds pickled weights, or the weights changed since.
    """
    for name in _UNSAFE:
        if (folder / name).exists():
            raise ManifestError(f"{folder / name} is a pickle, and nothing is unpickled here.", "Save as safetensors.")
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{folder} has no {MANIFEST}.", "Give a folder that 'divcon train' wrote.") from error
    except ValidationError as error:
        raise ManifestError(
            f"{folder / MANIFEST} can't be read: {error}", "Train the adapter again, or use the divcon that wrote it."
        ) from error
    if content_hash(folder) != manifest.content_hash:
        raise ManifestError(f"The adapter in {folder} isn't the one its manifest describes.", "Train it again.")
    return manifest


def manifest_for(folder: Path, base: Base) -> Manifest:
    """The manifest of an adapter that is to be served on `base`.

    Raises:
        ManifestError: As for `read_manifest`; or it was trained on another base.
    """
    manifest = read_manifest(folder)
    if (manifest.base["id"], manifest.base["revision"]) != (base.id, base.revision):
        raise ManifestError(
            f"The adapter in {folder} was trained on {manifest.base['id']} ({manifest.base['revision'][:24]}), "
            f"not on {base.id} ({base.revision[:24]}).",
            "Serve it on its own base, or train it again on this one.",
        )
    return manifest


def content_hash(folder: Path) -> str:
    """Hash of an adapter's weights and of the settings that shape them."""
    digest = hashlib.sha256()
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    shaping = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias")
    digest.update(json.dumps({key: config.get(key) for key in shaping}, sort_keys=True).encode())
    digest.update((folder / "adapter_model.safetensors").read_bytes())
    return digest.hexdigest()


def prompt_hash(prompts: Sequence[Sequence[Mapping[str, str]]]) -> str:
    """Hash of the distinct system messages in `prompts`: what the model was told, whatever it was asked.

    Args:
        prompts: Chat messages without the reply, one list a row.
    """
    told = sorted({message["content"] for prompt in prompts for message in prompt if message["role"] == "system"})
    return hashlib.sha256("\x00".join(told).encode()).hexdigest()


def prompt_parts(predictor: Any) -> dict[str, str]:
    """Hashes of what a predictor's prompt is made of: `instruction`, `demos`, `layout` (inputs), `set of outputs`.

    Args:
        predictor: A `RolePredict`.
    """
    inputs = {name: f"<{name}>" for name in predictor.signature.input_fields}
    *before, user = predictor.prompt(**inputs)
    # Where the instruction ends the prompt there is no system message, and it is part of the layout.
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


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what an adapter becomes."""
    names = ("divcon", "dspy", "torch", "transformers", "peft", "trl")
    return {name: metadata.version(name) for name in names}
