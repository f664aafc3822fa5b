"""What an adapter asks of a server, and the merged copy of a base for servers that take no adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from divcon.distill._manifest import Manifest, manifest_for
from divcon.distill.serving.embedded import LOADING, Base, cache_folder, whole_folder
from divcon.distill.serving.server._errors import ServerError
from divcon.distill.serving.server._software import ServerSoftware


@dataclass(frozen=True)
class Adapter:
    """A trained adapter, read.

    Attributes:
        folder: Where it lies.
        manifest: What it was made from.
        rank: Its largest rank, with `rank_pattern` counted.
        server_rank: The smallest limit on ranks, of those that the software can be given, that takes it.
        targets: The modules it changes.
        not_as_lora: Why it can't be served unmerged; None where it can.
    """

    folder: Path
    manifest: Manifest
    rank: int
    server_rank: int
    targets: tuple[str, ...]
    not_as_lora: str | None

    @property
    def name(self) -> str:
        """The name it is served under, which carries its content hash."""
        return self.manifest.served_name


def read_adapter(folder: Path, base: Base, software: ServerSoftware) -> Adapter:
    """Read an adapter's needs, and check that it belongs to `base`.

    Args:
        folder: The adapter's.
        base: What it has to be trained on.
        software: Of the server that is to serve it.

    Raises:
        ManifestError: It has no manifest, was changed since, or was trained on another base.
        ServerError: It can't be served at all: it brings whole modules or tokens of its own.
    """
    manifest = manifest_for(folder, base)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("modules_to_save"):
        raise ServerError(
            f"The adapter in {folder} brings whole modules of its own ({', '.join(config['modules_to_save'])}), "
            f"which {software.title} doesn't take.",
            "Train it without modules_to_save.",
        )
    if (folder / "added_tokens.json").is_file() or config.get("trainable_token_indices"):
        raise ServerError(
            f"The adapter in {folder} adds tokens to the base, which {software.title} doesn't take.",
            "Train it without.",
        )
    pattern: dict[str, int] = config.get("rank_pattern") or {}
    rank = max([config["r"], *pattern.values()])
    targets = config.get("target_modules") or []
    why = None
    if config.get("use_dora"):
        why = "it is a DoRA adapter"
    elif config.get("bias", "none") != "none":
        why = "it changes biases"
    elif str(config.get("init_lora_weights")).lower().startswith(("pissa", "olora", "corda", "loftq")):
        why = "its first weights (init_lora_weights) changed the base's own"
    elif rank > software.ranks[-1]:
        why = f"its rank is over {software.ranks[-1]}"
    return Adapter(
        folder=folder,
        manifest=manifest,
        rank=rank,
        server_rank=next((limit for limit in software.ranks if limit >= rank), rank),
        targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        not_as_lora=why,
    )


def merged_copy(adapter: Adapter, base: Base) -> Path:
    """A folder with the base's weights and the adapter merged into them, built once and found again by hash.

    Args:
        adapter: Of this base.

    Raises:
        ServerError: The disk is full.
    """
    target = cache_folder() / "merged" / f"{base.revision[-12:]}-{adapter.manifest.content_hash[:12]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / "config.json").is_file():
            _merge(adapter, base, target)
    return target


def _merge(adapter: Adapter, base: Base, target: Path) -> None:
    with LOADING:
        import torch
        from peft import PeftModel
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        dtype = "auto" if base.dtype == "auto" else getattr(torch, base.dtype)
        model = AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype)
        merged = PeftModel.from_pretrained(model, str(adapter.folder)).merge_and_unload()
    try:
        with whole_folder(target) as building:
            merged.save_pretrained(building)
            AutoTokenizer.from_pretrained(base.path).save_pretrained(building)
    except (OSError, SafetensorError) as error:
        raise ServerError(
            f"The merged copy of {adapter.name} can't be written to {target.parent}: {error}.",
            "Make room, or name another folder in DIVCON_CACHE.",
        ) from error
