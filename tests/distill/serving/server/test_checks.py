"""What a server is asked before a question is, with a client that notes what it is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from divcon.distill._probe import ProbeRow
from divcon.distill.serving.server import (
    AdapterClient,
    KeyRefused,
    ProbeError,
    ServerClient,
    ServerError,
    ServerUnreachable,
    probe,
    require_apart,
)

ROW = ProbeRow(
    messages=[{"role": "user", "content": "Split."}],
    completion="1. A?",
    prompt_ids=[1, 2, 3],
    completion_ids=list(range(10, 22)),
    adapter_logprob=-2.0,
    base_logprob=-30.0,
)


class Noting(AdapterClient):
    """Serves `base` and `sd`; a token costs 1 under the adapter and 5 under the base."""

    def __init__(self, served: tuple[str, ...] = ("base", "sd"), ids: tuple[int, ...] = (1, 2, 3)) -> None:
        super().__init__("http://127.0.0.1:9/v1")
        self.served, self.ids = list(served), list(ids)
        self.asked: list[str] = []
        self.cost = {"sd": 1.0, "base": 5.0}

    def names(self) -> list[str]:
        self.asked.append("names")
        return self.served

    def load_adapter(self, name: str, folder: Path) -> None:
        raise NotImplementedError

    def token_ids(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        self.asked.append(f"tokens {model}")
        return self.ids

    def logprob(self, model: str, prompt: list[int], reply: list[int]) -> float:
        self.asked.append(f"{len(reply)} of {model}")
        return -self.cost[model] * len(reply)

    @contextmanager
    def writing(self, model: str, prompt: list[int]) -> Iterator[None]:
        self.asked.append(f"{model} writes")
        yield
        self.asked.append(f"{model} has written")


def test_where_the_base_is_served_both_are_asked_for_the_beginning_of_the_reply() -> None:
    client = Noting()
    found = probe(client, "sd", ROW, "base")
    assert (found.adapter_logprob, found.base_logprob, found.base_served) == (-8.0, -40.0, True)
    assert client.asked == ["names", "tokens sd", "8 of sd", "8 of base"]


def test_where_it_isnt_what_training_measured_stands_for_the_base() -> None:
    client = Noting(served=("sd",))
    found = probe(client, "sd", ROW, "base")
    assert (found.adapter_logprob, found.base_logprob, found.base_served) == (-12.0, -30.0, False)
    require_apart(client, "sd", ROW, "base", found)
    assert client.asked == ["names", "tokens sd", "12 of sd"]


@pytest.mark.parametrize(
    ("client", "name", "says"),
    [
        (Noting(), "sd-x", "doesn't serve 'sd-x'; it serves base, sd"),
        (Noting(ids=(1, 2, 4)), "sd", "different from token 2 on"),
        (Noting(ids=(1, 2)), "sd", "2 instead of 3"),
        (Noting(), "base", "changes nothing for the better"),
    ],
)
def test_every_failure_of_a_probe_has_its_message(client: Noting, name: str, says: str) -> None:
    with pytest.raises(ProbeError, match=says):
        probe(client, name, ROW, "base")


def test_only_what_the_base_says_beside_the_adapter_is_asked_anew() -> None:
    client = Noting()
    found = probe(client, "sd", ROW, "base")
    client.asked.clear()
    require_apart(client, "sd", ROW, "base", found)
    assert client.asked == ["sd writes", "8 of base", "sd has written"]
    client.cost["base"] = client.cost["sd"]  # computed with the adapter
    with pytest.raises(ProbeError, match="computes requests to 'base' with an adapter") as caught:
        require_apart(client, "sd", ROW, "base", found)
    assert caught.value.remedy == client.to_keep_apart


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), ServerUnreachable),
        (openai.APIConnectionError(request=httpx.Request("GET", "http://x")), ServerUnreachable),
        (
            openai.AuthenticationError("no", response=httpx.Response(401, request=httpx.Request("GET", "x")), body={}),
            KeyRefused,
        ),
        (
            openai.NotFoundError("no", response=httpx.Response(404, request=httpx.Request("GET", "x")), body={}),
            ServerError,
        ),
    ],
)
def test_errors_that_callers_tell_apart_have_types_of_their_own(error: Exception, kind: type[ServerError]) -> None:
    with pytest.raises(ServerError) as caught, ServerClient("http://127.0.0.1:9/v1").explained("say something"):
        raise error
    assert type(caught.value) is kind
    assert caught.value.remedy
