"""Where a server comes from and what it is started with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from divcon.distill._paths import Arguments, WrittenPath
from divcon.signatures import learn_addresses, names_a_secret

AdapterMode = Literal["auto", "lora", "merged"]


def require_address(api_base: str) -> None:
    """Take an address of a server, which messages mask from then on where it holds a secret.

    Raises:
        ValueError: It is no address, or it holds a user or a query.
    """
    learn_addresses(api_base)
    parts = urlsplit(api_base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"api_base is '{api_base}'; write an address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("api_base holds a user or a query, where secrets stand; give the address alone")


class AnyServerSettings(BaseModel):
    """A server: one to start, or a running one to use. The settings of one engine's servers derive from it.

    Attributes:
        python: The Python of the environment that holds the server's software; by default this one, or the one that a
            variable of the environment names.
        api_base: The address of a running server, which is used instead of starting one.
        api_key_env: The environment variable that holds a running server's key.
        port: Where to listen on loopback; a free port by default.
        deadline: Seconds a server may take to be ready.
        restarts: How often a server that ends by itself is started again.
        arguments: Passed on to the software, `max-model-len: 4096` as `--max-model-len 4096`; true and false as
            `--name` and `--no-name`.
        environment: Added to the server's environment, which is this process' own. No secrets.
    """

    model_config = ConfigDict(extra="forbid")

    # Arguments that aren't passed on, and why: divcon says them itself, or they would go round what is checked here.
    reserved: ClassVar[Mapping[str, str]] = {}
    # Arguments that don't decide what a server replies.
    harmless: ClassVar[frozenset[str]] = frozenset()
    # Holds the key of a server of ours, and of a running one that names no other.
    key_variable: ClassVar[str] = "SERVER_API_KEY"

    python: WrittenPath | None = None
    api_base: str | None = None
    api_key_env: str | None = None
    port: int | None = Field(None, ge=1, le=65535)
    deadline: float = Field(600.0, gt=0)
    restarts: int = Field(1, ge=0)
    arguments: Arguments = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("arguments")
    @classmethod
    def _not_reserved(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            plain = name.lstrip("-").replace("_", "-").removeprefix("no-")
            # A command line takes beginnings of names too.
            begun = (why for reserved, why in cls.reserved.items() if plain and reserved.startswith(plain))
            if why := next(begun, None):
                raise ValueError(f"'{name}' isn't passed on: {why}")
        return {name.lstrip("-").replace("_", "-"): value for name, value in arguments.items()}

    @field_validator("environment", mode="before")
    @classmethod
    def _as_text(cls, environment: Any) -> Any:
        if isinstance(environment, dict):
            for name in environment:
                if names_a_secret(str(name)):
                    raise ValueError(f"{name} is a secret; a server inherits it from your environment: set it there")
            return {name: str(value) for name, value in environment.items() if value is not None}
        return environment

    @model_validator(mode="after")
    def _one_or_the_other(self) -> AnyServerSettings:
        if self.api_key_env and not self.api_base:
            raise ValueError(f"api_key_env is for a running server; one that is started here reads {self.key_variable}")
        if self.api_base:
            require_address(self.api_base)
            given = [name for name in ("python", "port", "arguments", "environment") if getattr(self, name)]
            if given:
                raise ValueError(f"{given[0]} is for a server that is started here, and api_base names a running one")
        return self

    def deciding(self) -> dict[str, Any]:
        """What of them may decide a server's replies, for the key under which these are kept."""
        arguments = {name: value for name, value in self.arguments.items() if name not in self.harmless}
        return {"api_base": self.api_base, "arguments": arguments, "environment": self.environment}

    def command_line(self) -> list[str]:
        """`arguments` as words of a command line."""
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
