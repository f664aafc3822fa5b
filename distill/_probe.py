"""The probe: a check that a served adapter is the one that was trained, made before a question is asked.

A server may list an adapter without applying it, serve new weights under an old name, or render chats with another
template. The replies then still look plausible. So training keeps one of its rows beside the adapter, with its token
ids and its probability. The server has to render the row to the same ids, and to give it a higher probability than
the base does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from divcon.distill._manifest import ManifestError
from divcon.distill.serving.embedded import Precision
from divcon.signatures import masked

PROBE = "probe.json"
PROBE_CANDIDATES = 8  # the probe is the one of so many rows whose probability training raised most


class ProbeRow(BaseModel):
    """One training row, kept beside the adapter trained on it. It is training data: think before publishing it.

    Attributes:
        messages: The prompt, as chat messages.
        completion: The reply.
        prompt_ids: Token ids of the prompt, up to where the reply begins.
        completion_ids: Token ids of the reply, including the token that ends it.
        adapter_logprob: Natural log of the reply's probability under the adapter, at the end of training.
        base_logprob: The same under the base.
    """

    model_config = ConfigDict(extra="forbid")

    messages: list[dict[str, str]]
    completion: str
    prompt_ids: list[int]
    completion_ids: list[int]
    adapter_logprob: float
    base_logprob: float

    def write(self, folder: Path) -> None:
        (folder / PROBE).write_text(masked(self.model_dump_json()) + "\n", encoding="utf-8")


def read_probe(folder: Path) -> ProbeRow | None:
    """The row kept beside an adapter, or None where there is none.

    Raises:
        ManifestError: The file can't be read.
    """
    file = folder / PROBE
    try:
        return ProbeRow.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # pydantic's, or a file that isn't UTF-8
        raise ManifestError(f"{file} can't be read: {error}", "Train the adapter again, or remove it.") from error


def choose_probe(
    model: Any, rows: Sequence[tuple[dict[str, Any], list[int], list[int]]], precision: Precision
) -> ProbeRow:
    """The row whose probability training has raised most.

    Args:
        model: A trained PEFT model.
        rows: The candidates, as (training row, token ids of its prompt, token ids of its reply).
        precision: The precision that the model was trained in.
    """
    found = []
    was_training = model.training
    model.eval()
    for row, prompt, reply in rows:
        with model.disable_adapter():
            before = _logprob(model, prompt, reply, precision)
        found.append(
            ProbeRow(
                messages=row["prompt"],
                completion=row["completion"][0]["content"],
                prompt_ids=prompt,
                completion_ids=reply,
                adapter_logprob=round(_logprob(model, prompt, reply, precision), 4),
                base_logprob=round(before, 4),
            )
        )
    model.train(was_training)
    return max(found, key=lambda row: row.adapter_logprob - row.base_logprob)


def _logprob(model: Any, prompt: list[int], reply: list[int], precision: Precision) -> float:
    import torch

    ids = torch.tensor([prompt + reply], device=model.device)
    mixed = torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with torch.inference_mode(), mixed:
        logits = model(input_ids=ids, logits_to_keep=len(reply) + 1).logits[0, :-1]
    chosen = torch.tensor(reply, device=model.device)[:, None]
    return float(torch.log_softmax(logits.float(), -1).gather(1, chosen).sum())
