"""What divcon itself asks of an OpenAI-compatible server: names, token ids, likelihoods, loading an adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import httpx

from divcon.distill._proxies import is_loopback
from divcon.distill.serving.server._errors import KeyRefused, ServerError, ServerUnreachable, WrongAddress
from divcon.signatures import learn_addresses, learn_secret

if TYPE_CHECKING:
    from openai import OpenAI


class ServerClient:
    """A client of one server, whatever runs there.

    Args:
        api_base: Its address, ending in `/v1`.
        api_key: Its key; None where it asks for none.
        timeout: Seconds a request may take.
    """

    def __init__(self, api_base: str, api_key: str | None = None, timeout: float = 60.0) -> None:
        self.api_base = api_base.rstrip("/")
        self.key = api_key or "none"
        self._timeout = timeout
        learn_secret(api_key)
        learn_addresses(api_base)

    @property
    def root(self) -> str:
        """The server's address without `/v1`, where it has what isn't OpenAI's."""
        return self.api_base.removesuffix("/v1")

    @cached_property
    def openai(self) -> OpenAI:
        """OpenAI's own client of it."""
        import openai  # takes most of a second, and most commands ask no server themselves

        # A proxy of the environment has no business with loopback.
        http = openai.DefaultHttpxClient(timeout=self._timeout, trust_env=not is_loopback(self.api_base))
        return openai.OpenAI(base_url=self.api_base, api_key=self.key, max_retries=1, http_client=http)

    @cached_property
    def http(self) -> httpx.Client:
        """A client for what isn't OpenAI's."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(timeout=self._timeout, headers=headers, trust_env=not is_loopback(self.api_base))

    def names(self) -> list[str]:
        """The names of what it serves.

        Raises:
            ServerUnreachable: Nobody answers.
            KeyRefused: It doesn't take the key.
            ServerError: It is no such server.
        """
        with self.explained("list its models"):
            return [model.id for model in self.openai.models.list()]

    def bases(self) -> dict[str, str]:
        """What it serves and doesn't call an adapter of something else: the weights it loaded, by name."""
        with self.explained("list its models"):
            cards = [(card.id, card.model_extra or {}) for card in self.openai.models.list()]
            return {name: str(more.get("root") or name) for name, more in cards if not more.get("parent")}

    def name_of(self, base: str) -> str | None:
        """The name that it serves a base under; None where it doesn't serve it.

        A base in a folder is often served under its whole path, or under a name of the server's own.

        Args:
            base: The base's name.
        """
        last = base.rpartition("/")[2]
        for name, weights in self.bases().items():
            if name == base or last in (name.rpartition("/")[2], weights.rpartition("/")[2]):
                return name
        return None

    def meant(self) -> str | None:
        """The address with `/v1`, where a server answers there; None for an address that ends so, and where none does.

        It raises nothing, since it only serves a hint.
        """
        from openai import OpenAIError

        if self.api_base.endswith("/v1"):
            return None
        longer = ServerClient(f"{self.api_base}/v1", self.key, min(self._timeout, 10.0))
        try:
            longer.openai.models.list()
        except (OpenAIError, httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError):
            return None
        return longer.api_base

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Turn errors of the clients into ones that say what to do.

        Args:
            what: What is asked of the server.

        Raises:
            ServerError: In the place of whatever `openai` or `httpx` raises inside the block.
        """
        import openai

        try:
            yield
        except (openai.APIConnectionError, httpx.TransportError) as error:
            raise ServerUnreachable(
                f"The server at {self.api_base} can't be reached to {what}: {error}",
                "Start it, or correct its address.",
            ) from error
        except openai.AuthenticationError as error:
            raise KeyRefused(
                f"The server at {self.api_base} refuses the key.", "Name its variable in server.api_key_env."
            ) from error
        except (ImportError, ValueError, httpx.InvalidURL) as error:  # what httpx says to SOCKS, and to no address
            raise ServerUnreachable(
                f"The server at {self.api_base} can't be reached to {what}: {error}",
                "Correct its address, or the proxy in the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY).",
            ) from error
        except openai.NotFoundError as error:
            if (meant := self.meant()) is not None:
                raise WrongAddress(
                    f"The server at {self.api_base} answers 404 when asked to {what}.", f"Did you mean {meant}?"
                ) from error
            raise ServerError(
                f"The server at {self.api_base} answers 404 when asked to {what}: {error.message}",
                "Check that the address ends in /v1 and that the name is one it serves.",
            ) from error
        except openai.APIError as error:
            raise ServerError(
                f"The server at {self.api_base} can't {what}: {error.message}", "Look at its log."
            ) from error


class AdapterClient(ServerClient, ABC):
    """A client of a server that serves adapters, which every software answers for in its own way."""

    # What to do about a server that mixes up the base and its adapters.
    to_keep_apart: ClassVar[str] = "Let divcon start a server, or serve the adapter merged."

    @abstractmethod
    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter into the running server.

        Raises:
            ServerError: The server doesn't load adapters, or refuses this one.
        """

    @abstractmethod
    def token_ids(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        """The token ids of a chat as the server renders it, up to where the reply begins.

        Raises:
            ServerError: It doesn't tell them.
        """

    @abstractmethod
    def logprob(self, model: str, prompt: list[int], reply: list[int]) -> float:
        """The natural log of a reply's probability after a prompt, both as token ids.

        Raises:
            ServerError: It can't be asked, or tells likelihoods after the choice was narrowed.
        """

    @abstractmethod
    def writing(self, model: str, prompt: list[int]) -> AbstractContextManager[None]:
        """Have a model write after a prompt for as long as the block lasts, and drop what it writes.

        The block begins when the first token has come.

        Raises:
            ServerError: It can't be asked.
        """


@lru_cache(maxsize=64)
def client_of(kind: type[AdapterClient], api_base: str, api_key: str | None) -> AdapterClient:
    """The one client of a server in this process, so that its connections are kept."""
    return kind(api_base, api_key)
