"""A small pipeline on a loopback server: what it is asked, the right answers, and what has to come out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from divcon.benchmarks.tasks import Task, load_task
from support.openai_server import user_text

TRAIN, TEST = 8, 4
TASK = f"{{name: word-problems, train: {TRAIN}, test: {TEST}}}"


def golden() -> dict[str, str]:
    """The answers to the questions of `TASK`."""
    loaded = load_task(Task(name="word-problems", train=TRAIN, test=TEST))
    return {item.question: item.answer for item in (*loaded.train, *loaded.test)}


def answering(gold: dict[str, str]) -> Callable[[dict[str, Any]], str]:
    """A teacher whose splits are bad one time in four, and a solver that is right where the split is good."""

    def answer(body: dict[str, Any]) -> str:
        system = body["messages"][0]["content"]
        text = "\n".join(user_text({"messages": [one]}) for one in body["messages"] if one["role"] == "user")
        question = max(gold, key=text.rfind)  # the last one, since demonstrations come before it
        digest = int(hashlib.sha256(question.encode()).hexdigest(), 16)
        if "Split the question" in system:
            first = "first" if digest % 4 else "wrong"
            return f"1. What is the {first} amount in {digest % 997}?\n2. What follows from that?"
        result = "0" if "wrong amount" in text else gold[question]
        return f"1. x\n2. y\nAnswer: {result}" if "reason step by step" in system else result

    return answer


def write_pipeline(file: Path, url: str, endpoint: str = "", more: str = "", arms: str = "", base: str = "") -> Path:
    """Write the pipeline file.

    Args:
        file: The file.
        url: The server's address.
        endpoint: Further settings of both endpoints, such as `, retries: 0`.
        more: Further sections.
        arms: Further arms, such as `, sd-r`.
        base: The decomposer's base; the embedded one by default.
    """
    file.write_text(
        f"""\
task: {TASK}
roles:
  teacher: {{model: hosted_vllm/teacher, api_base: '{url}', api_key_env: HOSTILE_KEY{endpoint}}}
  solver: {{model: hosted_vllm/solver, api_base: '{url}', api_key_env: HOSTILE_KEY{endpoint}}}
  decomposer: {{base: {base or "embedded"}, max_tokens: 16}}
collect: {{concurrency: 4}}
screen: {{rule: [none, oracle], samples: 2, concurrency: 4}}
evaluate: {{arms: [direct, cot, teacher{arms}], resamples: 100, concurrency: 4}}
{more}"""
    )
    return file


def exports(folder: Path) -> dict[str, bytes]:
    """The exported rows of a run folder, by file."""
    return {file.name: file.read_bytes() for file in sorted((folder / "exports").iterdir())}


def timeless(results: Any, hidden: tuple[str, ...] = ()) -> Any:
    """Results without what may differ between two runs: times, and the server's address.

    Args:
        results: The content of `results.json`, or a part of it.
        hidden: Further keys to leave out.
    """
    if isinstance(results, dict):
        return {
            key: timeless(value, hidden)
            for key, value in results.items()
            if "seconds" not in key and key not in ("api_base", *hidden)
        }
    return [timeless(one, hidden) for one in results] if isinstance(results, list) else results


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found
