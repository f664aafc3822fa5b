"""Bind: put a trained adapter behind a role, after checking that it was trained with the role's prompt."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import dspy

from divcon.distill._manifest import Manifest, ManifestError, prompt_hash, prompt_parts, read_manifest, template_hash
from divcon.distill._paths import expanded_path
from divcon.programs import RolePredict
from divcon.programs._arguments import require_instance
from divcon.signatures import UnusableArgument

_REMEDIES = {
    "instruction": "Restore the instruction that it was trained with, or train it again.",
    "demos": "Remove the demonstrations (a student is trained without them), or train it again.",
    "layout": "Restore the fields and labels that it was trained with, or train it again.",
    "set of outputs": "Restore the outputs, their order, types and labels, or train it again.",
    "chat template": "Serve it with the chat template it was trained with, or train it again.",
}


def bind_adapter(
    predictor: RolePredict,
    lm: dspy.BaseLM,
    folder: Path | str,
    *,
    tokenizer: Any = None,
    allow: Collection[str] = (),
) -> RolePredict:
    """Give a role an LM that serves a trained adapter.

    The demonstrations that ship for untrained models are removed: a student is trained without them.

    Args:
        predictor: The role's predictor, with the adapter (the DSPy kind) that its prompts will be rendered by.
        lm: The LM that serves the trained adapter, under a name that carries the adapter's content hash.
        folder: The folder of the trained adapter and its manifest.
        tokenizer: The serving side's tokenizer; None skips the check of its chat template.
        allow: The parts of the prompt that may differ from the training: `instruction`, `demos`, `layout`,
            `set of outputs`, `chat template`.

    Returns:
        The same predictor, bound.

    Raises:
        ManifestError: A part that isn't in `allow` differs from the training; the message names it.
        UnusableArgument: `allow` holds an unknown name, the predictor is no role, or `lm` no LM.
    """
    folder = expanded_path(folder)
    unknown = sorted(set(allow) - set(_REMEDIES))
    if unknown:
        raise UnusableArgument(f"allow holds {', '.join(unknown)}.", f"Take {', '.join(_REMEDIES)}.")
    require_instance("The predictor", predictor, RolePredict, "a role of a program, such as program.decompose")
    require_instance("The LM", lm, dspy.BaseLM, "embedded_lm(adapter=FOLDER), vllm_lm(adapter=FOLDER) or dspy.LM(...)")
    manifest = read_manifest(folder)
    with predictor.as_learnt():
        _require_same_prompt(predictor, manifest, folder, tokenizer, allow)
    predictor.lm = lm
    predictor.trained = {"served": str(lm.model).rpartition("/")[2], "content": manifest.content_hash}
    return predictor


def _require_same_prompt(
    predictor: RolePredict, manifest: Manifest, folder: Path, tokenizer: Any, allow: Collection[str]
) -> None:
    now = prompt_parts(predictor)
    changed = [name for name, was in manifest.prompt.items() if now.get(name) != was]
    if not manifest.prompt:  # its rows came from elsewhere, so only the hash of their system messages is known
        inputs = {name: f"<{name}>" for name in predictor.signature.input_fields}
        changed = ["instruction"] if prompt_hash([predictor.prompt(**inputs)]) != manifest.prompt_hash else []
    if tokenizer is not None and template_hash(tokenizer) != manifest.chat_template_hash:
        changed.append("chat template")
    refused = [name for name in changed if name not in allow]
    if refused:
        raise ManifestError(
            f"The adapter in {folder} was trained with another {' and another '.join(refused)} than the program has.",
            _REMEDIES[refused[0]],
        )
