"""What divcon itself asks of an OpenAI-compatible server: names, token ids, likelihoods, loading an adapter."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai

from divcon.distill._probe import ProbeRow
from divcon.distill.serving.server._process import ServerError

_BESIDE = 64  # tokens that an adapter writes while the base is asked beside it
_SCORED = 8  # tokens of a reply that a probe asks for, each in a request


class ProbeError(ServerError):
    """A server that doesn't serve what was trained."""


class ServerClient:
    """A client of one server.

    Args:
        api_base: Its address, ending in `/v1`.
        api_key: Its key; None where it asks for none.
        timeout: Seconds a request may take.
    """

    def __init__(self, api_base: str, api_key: str | None = None, timeout: float = 60.0) -> None:
        self.api_base = api_base.rstrip("/")
        self.key = api_key or "none"
        self._timeout = timeout

    @property
    def root(self) -> str:
        """The server's address without `/v1`, where vLLM has what isn't OpenAI's."""
        return self.api_base.removesuffix("/v1")

    @cached_property
    def _openai(self) -> openai.OpenAI:
        # A proxy of the environment has no business with loopback.
        http = openai.DefaultHttpxClient(timeout=self._timeout, trust_env=not is_loopback(self.api_base))
        return openai.OpenAI(base_url=self.api_base, api_key=self.key, max_retries=1, http_client=http)

    @cached_property
    def _http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(timeout=self._timeout, headers=headers, trust_env=not is_loopback(self.api_base))

    def names(self) -> list[str]:
        """The names of what it serves.

        Raises:
            ServerError: It can't be reached, refuses the key, or is no such server.
        """
        with self._explained("list its models"):
            return [model.id for model in self._openai.models.list()]

    def bases(self) -> dict[str, str]:
        """What it serves and doesn't call an adapter of something else: the weights it loaded, by name."""
        with self._explained("list its models"):
            cards = [(card.id, card.model_extra or {}) for card in self._openai.models.list()]
            return {name: str(more.get("root") or name) for name, more in cards if not more.get("parent")}

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter into the running server.

        Raises:
            ServerError: The server doesn't load adapters, or refuses this one.
        """
        with self._explained(f"load {name}"):
            answer = self._http.post(
                f"{self.root}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder.resolve())}
            )
        if answer.status_code in (404, 405):
            raise ServerError(
                f"The server at {self.api_base} doesn't load adapters at run time (it answers "
                f"{answer.status_code} at /v1/load_lora_adapter).",
                "Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, load the "
                "adapter at its start with --lora-modules, or let divcon start a server.",
            )
        if answer.status_code != 200 and name not in self.names():
            said = " ".join(answer.text.split())[:300]
            remedy = "The folder has to be one that the server's machine sees, and its --max-lora-rank has to admit it."
            if "rank" in said.lower():
                remedy = "Start the server with a higher --max-lora-rank, or serve the adapter merged."
            raise ServerError(f"The server at {self.api_base} refuses the adapter {name}: {said}", remedy)

    def token_ids(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        """The token ids of a chat as the server renders it, up to where the reply begins.

        Raises:
            ServerError: It has no such endpoint.
        """
        asked = {"model": model, "messages": messages, "add_generation_prompt": True}
        with self._explained("tokenize a chat"):
            answer = self._http.post(f"{self.root}/tokenize", json=asked)
        if answer.status_code != 200:
            raise ServerError(
                f"The server at {self.api_base} doesn't tokenize a chat: /tokenize answers {answer.status_code}.",
                "Use a vLLM server.",
            )
        ids: list[int] = answer.json()["tokens"]
        return ids

    def logprob(self, model: str, prompt: list[int], reply: list[int]) -> float:
        """The natural log of a reply's probability after a prompt, both as token ids.

        Each token of the reply is asked for by itself, and the server may choose no other. One request for
        `prompt_logprobs` would do, but ends vLLM 0.32 on a CPU where an adapter is loaded and another request runs.

        Raises:
            ServerError: It can't be asked, or tells likelihoods after the choice was narrowed.
        """

        def one(at: int) -> float:
            answer = self._openai.completions.create(
                model=model, prompt=prompt + reply[:at], max_tokens=1, temperature=0.0, logprobs=0,
                extra_body={"allowed_token_ids": [reply[at]]},
            )  # fmt: skip
            told = answer.choices[0].logprobs
            if told is None or not told.token_logprobs or told.token_logprobs[0] is None:
                raise ServerError(f"The server at {self.api_base} tells no likelihoods.", "Use a vLLM server.")
            return told.token_logprobs[0]

        # The first goes ahead, so that the others find the prompt in the server's prefix cache.
        with self._explained("score a reply"), ThreadPoolExecutor(_SCORED) as pool:
            found = [one(0), *pool.map(one, range(1, len(reply)))]
        if not any(found):
            raise ServerError(
                f"The server at {self.api_base} says that every token it was told to write was certain: it tells "
                "likelihoods after the choice was narrowed.",
                "Start it with --logprobs-mode raw_logprobs, which is vLLM's default.",
            )
        return sum(found)

    def write(self, model: str, prompt: list[int], tokens: int) -> None:
        """Have so many tokens written after a prompt, and drop them."""
        with self._explained("write"):
            self._openai.completions.create(
                model=model, prompt=prompt, max_tokens=tokens, temperature=0.0, extra_body={"ignore_eos": True}
            )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (openai.APIConnectionError, httpx.TransportError) as error:
            raise ServerError(
                f"The server at {self.api_base} can't be reached to {what}: {error}",
                "Start it, or correct its address.",
            ) from error
        except openai.AuthenticationError as error:
            raise ServerError(
                f"The server at {self.api_base} refuses the key.", "Name its variable in server.api_key_env."
            ) from error
        except openai.NotFoundError as error:
            raise ServerError(
                f"The server at {self.api_base} answers 404 when asked to {what}: {error.message}",
                "Check that the address ends in /v1 and that the name is one it serves.",
            ) from error
        except openai.APIError as error:
            raise ServerError(
                f"The server at {self.api_base} can't {what}: {error.message}", "Look at its log."
            ) from error


@lru_cache(maxsize=64)
def client_of(api_base: str, api_key: str | None) -> ServerClient:
    """The one client of a server in this process, so that its connections are kept."""
    return ServerClient(api_base, api_key)


def is_loopback(address: str) -> bool:
    """Whether an address leads to this machine itself."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def probe(client: ServerClient, name: str, row: ProbeRow, base: str, ids: list[int] | None = None) -> dict[str, float]:
    """Check that a server answers under `name` with the adapter that learnt `row`.

    Args:
        client: Of the server.
        name: The adapter's name there.
        row: A training row of the adapter.
        base: The base's name there; where that isn't served, what training measured stands for it.
        ids: The prompt's token ids by the base's own tokenizer now; a template may write the day's date. Those of the
            training by default.

    Returns:
        `adapter_logprob` and `base_logprob` of the row's reply; of its first 8 tokens where the base is served too.

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
    return {"adapter_logprob": round(adapter, 4), "base_logprob": round(plain, 4)}


def require_apart(client: ServerClient, name: str, row: ProbeRow, base: str) -> None:
    """Check that a server keeps the base's replies apart from those of an adapter that it answers at the same time.

    vLLM 0.32 on a CPU doesn't, where adapters fill all slots: the base's requests are computed with the last of them.

    Args:
        client: Of the server.
        name: The adapter's name there.
        row: A training row of the adapter.
        base: The base's name there; nothing is checked where it isn't served.

    Raises:
        ProbeError: It doesn't.
        ServerError: The server can't be asked.
    """
    if base not in client.names():
        return
    reply = row.completion_ids[:_SCORED]
    with ThreadPoolExecutor(1) as pool:
        # It writes for longer than the base is asked, so that they share batches.
        writing = pool.submit(client.write, name, row.prompt_ids, _BESIDE)
        beside = client.logprob(base, row.prompt_ids, reply)
        writing.result()
    alone, adapter = (client.logprob(model, row.prompt_ids, reply) for model in (base, name))
    if beside - alone > (adapter - alone) / 4:
        raise ProbeError(
            f"The server at {client.api_base} computes requests to '{base}' with an adapter, where it answers one to "
            f"'{name}' at the same time: a reply the adapter has learnt has log-probability {beside:.2f} then, "
            f"{alone:.2f} by the base alone, and {adapter:.2f} by the adapter.",
            "Start it with a --max-loras that is higher by one than the number of its adapters.",
        )
