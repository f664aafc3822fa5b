"""What a server is asked before a question is: whether an adapter is applied, and kept apart from the base."""

from __future__ import annotations

from dataclasses import dataclass

from divcon.distill._probe import ProbeRow
from divcon.distill.serving.server._client import AdapterClient
from divcon.distill.serving.server._errors import ProbeError

_SCORED = 8  # tokens of a reply that a probe asks for, each in a request


@dataclass(frozen=True)
class Probed:
    """What a probe has found: natural logs of probabilities.

    Attributes:
        adapter_logprob: Of the row's reply under the adapter.
        base_logprob: Of the same under the base.
        base_served: Whether the server serves the base. Both are of the reply's first 8 tokens then; otherwise of the
            whole reply, and the base's is what training measured.
    """

    adapter_logprob: float
    base_logprob: float
    base_served: bool


def probe(client: AdapterClient, name: str, row: ProbeRow, base: str, ids: list[int] | None = None) -> Probed:
    """Check that a server answers under `name` with the adapter that learnt `row`.

    Args:
        client: Of the server.
        name: The adapter's name there.
        row: A training row of the adapter.
        base: The base's name there; where that isn't served, what training measured stands for it.
        ids: The prompt's token ids by the base's own tokenizer now; a template may write the day's date. Those of the
            training by default.

    Raises:
        ProbeError: The name isn't served, the prompt comes out as other tokens, or the adapter isn't applied.
        ServerError: The server can't be asked.
    """
    served = client.names()
    if name not in served:
        raise ProbeError(
            f"The server at {client.api_base} doesn't serve '{name}'; it serves {', '.join(served) or 'nothing'}.",
            "Load the adapter, or let divcon do it.",
        )
    wanted, found = ids or row.prompt_ids, client.token_ids(name, row.messages)
    if found != wanted:
        at = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), len(wanted))
        raise ProbeError(
            f"A training prompt comes out as other tokens on the server at {client.api_base} ({len(found)} instead of "
            f"{len(wanted)}, different from token {at} on): its tokenizer or chat template is another one.",
            "Serve the base that the adapter was trained on, without --chat-template.",
        )
    if base in served:
        reply = row.completion_ids[:_SCORED]
        adapter, plain = (client.logprob(model, row.prompt_ids, reply) for model in (name, base))
    else:
        adapter, plain = client.logprob(name, row.prompt_ids, row.completion_ids), row.base_logprob
    if not adapter > plain:
        raise ProbeError(
            f"The adapter '{name}' is listed at {client.api_base} and changes nothing for the better: a reply it has "
            f"learnt has log-probability {adapter:.2f}, and {plain:.2f} without it.",
            "The server doesn't apply the adapter (look at its log), or the adapter has learnt nothing.",
        )
    return Probed(round(adapter, 4), round(plain, 4), base in served)


def require_apart(client: AdapterClient, name: str, row: ProbeRow, base: str, found: Probed) -> None:
    """Check that a server keeps the base's replies apart from those of an adapter that it answers at the same time.

    vLLM 0.32 on a CPU doesn't, where adapters fill all slots.

    Args:
        client: Of the server.
        name: The adapter's name there.
        row: A training row of the adapter.
        base: The base's name there; nothing is checked where it isn't served.
        found: What `probe` has found with them: how likely the reply is to each alone.

    Raises:
        ProbeError: It doesn't.
        ServerError: The server can't be asked.
    """
    if not found.base_served:
        return
    with client.writing(name, row.prompt_ids):  # so that they share batches
        beside = client.logprob(base, row.prompt_ids, row.completion_ids[:_SCORED])
    alone, adapter = found.base_logprob, found.adapter_logprob
    if beside - alone > (adapter - alone) / 4:
        raise ProbeError(
            f"The server at {client.api_base} computes requests to '{base}' with an adapter, where it answers one to "
            f"'{name}' at the same time: a reply the adapter has learnt has log-probability {beside:.2f} then, "
            f"{alone:.2f} by the base alone, and {adapter:.2f} by the adapter.",
            client.to_keep_apart,
        )
