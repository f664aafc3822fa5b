"""What divcon asks of a vLLM server beyond OpenAI's interface."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from divcon.distill.serving.server import AdapterClient, ServerError
from divcon.signatures import masked

_AT_ONCE = 8  # tokens of a reply that are scored at a time, each in a request
_BESIDE = 64  # tokens of a request of `writing`; one follows the other


class VLLMClient(AdapterClient):
    """A client of one vLLM server."""

    to_keep_apart = "Start it with a --max-loras that is higher by one than the number of its adapters."

    def load_adapter(self, name: str, folder: Path) -> None:
        """See `AdapterClient.load_adapter`."""
        with self.explained(f"load {name}"):
            answer = self.http.post(
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
            said = " ".join(masked(answer.text).split())[:300]
            remedy = "The folder has to be one that the server's machine sees, and its --max-lora-rank has to admit it."
            if "rank" in said.lower():
                remedy = "Start the server with a higher --max-lora-rank, or serve the adapter merged."
            raise ServerError(f"The server at {self.api_base} refuses the adapter {name}: {said}", remedy)

    def token_ids(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        """See `AdapterClient.token_ids`."""
        asked = {"model": model, "messages": messages, "add_generation_prompt": True}
        with self.explained("tokenize a chat"):
            answer = self.http.post(f"{self.root}/tokenize", json=asked)
        if answer.status_code != 200:
            raise ServerError(
                f"The server at {self.api_base} doesn't tokenize a chat: /tokenize answers {answer.status_code}.",
                "Use a vLLM server.",
            )
        ids: list[int] = answer.json()["tokens"]
        return ids

    def logprob(self, model: str, prompt: list[int], reply: list[int]) -> float:
        """See `AdapterClient.logprob`.

        Each token of the reply is asked for by itself, and the server may choose no other. One request for
        `prompt_logprobs` would do, but ends vLLM 0.32 on a CPU where an adapter is loaded and another request runs.
        """

        def one(at: int) -> float:
            answer = self.openai.completions.create(
                model=model,
                prompt=prompt + reply[:at],
                max_tokens=1,
                temperature=0.0,
                logprobs=0,
                extra_body={"allowed_token_ids": [reply[at]]},
            )
            told = answer.choices[0].logprobs
            if told is None or not told.token_logprobs or told.token_logprobs[0] is None:
                raise ServerError(f"The server at {self.api_base} tells no likelihoods.", "Use a vLLM server.")
            return told.token_logprobs[0]

        # The first goes ahead, so that the others find the prompt in the server's prefix cache.
        with self.explained("score a reply"), ThreadPoolExecutor(_AT_ONCE) as pool:
            found = [one(0), *pool.map(one, range(1, len(reply)))]
        if not any(found):
            raise ServerError(
                f"The server at {self.api_base} says that every token it was told to write was certain: it tells "
                "likelihoods after the choice was narrowed.",
                "Start it with --logprobs-mode raw_logprobs, which is vLLM's default.",
            )
        return sum(found)

    @contextmanager
    def writing(self, model: str, prompt: list[int]) -> Iterator[None]:
        """See `AdapterClient.writing`."""
        begun, done = Event(), Event()

        def write() -> None:
            try:
                while not done.is_set():
                    asked = self.openai.completions.create(
                        model=model,
                        prompt=prompt,
                        max_tokens=_BESIDE,
                        temperature=0.0,
                        stream=True,
                        extra_body={"ignore_eos": True},
                    )
                    with asked as tokens:
                        for _ in tokens:
                            begun.set()
                            if done.is_set():
                                return  # leaving the stream ends the request on the server
                    if not begun.is_set():
                        raise ServerError(
                            f"The server at {self.api_base} doesn't stream what it writes.", "Use a vLLM server."
                        )
            finally:
                begun.set()

        with self.explained("write"), ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            begun.wait()
            try:
                yield
            finally:
                done.set()
            writer.result()
