"""A serving engine as somebody else's package would add it: another server software in one file.

Its server is any program that speaks OpenAI's protocol; the tests take a stand-in. `divcon.engines` names `ENGINE`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from divcon.distill.serving.server import (
    HOST,
    AdapterClient,
    AnyServerSettings,
    Causes,
    Launch,
    ServerEngine,
    ServerSoftware,
)


class OutsideClient(AdapterClient):
    def load_adapter(self, name: str, folder: Path) -> None:
        self._post("v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def token_ids(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        return self._post("tokenize", {"model": model, "messages": messages})["tokens"]

    def logprob(self, model: str, prompt: list[int], reply: list[int]) -> float:
        one = {"model": model, "max_tokens": 1, "logprobs": 0}
        told = [self._post("v1/completions", {**one, "prompt": prompt + reply[:at]}) for at in range(len(reply))]
        return sum(answer["choices"][0]["logprobs"]["token_logprobs"][0] for answer in told)

    @contextmanager
    def writing(self, model: str, prompt: list[int]) -> Iterator[None]:
        asked = {"model": model, "prompt": prompt, "max_tokens": 256, "stream": True}
        with self.explained("write"), self.http.stream("POST", f"{self.root}/v1/completions", json=asked) as said:
            next(said.iter_lines())  # the first token
            yield

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        with self.explained(path):
            return self.http.post(f"{self.root}/{path}", json=body).json()


class OutsideSettings(AnyServerSettings):
    reserved: ClassVar = {"port": "it is roles.decomposer.server.port"}


class Outside(ServerSoftware):
    name = "outside"
    title = "Outside"
    packages = ("httpx",)
    how_to_install = "pip install outside."
    python_variable = "OUTSIDE_PYTHON"
    settings = OutsideSettings
    client = OutsideClient
    causes = Causes("Outside")

    def command(self, launch: Launch) -> list[str]:
        loaded = [f"{name}={folder}" for name, folder in launch.adapters.items()]
        return [
            str(launch.installation.python), str(launch.settings.arguments["script"]),
            "--served-model-name", launch.name, "--host", HOST, "--port", str(launch.port), "--lora-modules", *loaded,
        ]  # fmt: skip


ENGINE = ServerEngine(Outside())
