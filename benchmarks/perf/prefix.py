"""How much of the prompts a server's prefix cache saves, by the order of what a prompt is made of.

Usage: python benchmarks/perf/prefix.py --data drop_v0_dev.jsonl.gz --python .venv-vllm/bin/python [--output FILE]

Reads vLLM's own counters (`vllm:prefix_cache_hits_total` over `..._queries_total`, both in tokens) on DROP passages
with several questions each: every question is decomposed and then solved, by one model for both roles, as in a program
before anything is distilled. A block has 16 tokens. Three orders:

  passage first      instruction, passage, question, subquestions: what `CompactAdapter` renders
  question first     instruction, question, passage: what one writes without thinking of caches
  instruction last   passage, question, subquestions, instruction: `CompactAdapter(instruction="last")`, which shares a
                     prefix between the two roles too
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path
from typing import Any

import httpx
from _common import at_once, timed, write
from dspy.lm15 import Config, Message, Request

from divcon.distill import embedded_base
from divcon.distill.serving.vllm import ServerSettings, VLLMModel
from divcon.programs import CompactAdapter, DivideAndConquer
from divcon.signatures import Subquestions

ASKED = Subquestions(["How many points were scored in all?", "How many of them came from field goals?"])


class QuestionFirst(CompactAdapter):
    """The order that is compared with."""

    def format_user_message_content(self, signature: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> str:
        text = super().format_user_message_content(signature, {**inputs, "context": None}, *rest, **more)
        question, line, others = text.partition("\n")
        return f"{question}\nPassage: {inputs['context']}{line}{others}"


def passages(file: Path, number: int, questions: int) -> list[tuple[str, list[str]]]:
    """Passages of DROP with some of their questions; the file has a line a question, in `context`."""
    found: dict[str, list[str]] = {}
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            told, _, question = json.loads(line)["context"].partition("\nQuestion: ")
            found.setdefault(told.removeprefix("Passage: "), []).append(question.removesuffix("\nAnswer:"))
    enough = [(text, asked[:questions]) for text, asked in found.items() if len(asked) >= questions]
    return [(text, asked) for text, asked in enough if len(text) < 2500][:number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=12)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    data = passages(given.data, given.passages, given.questions)
    orders = {
        "passage first": CompactAdapter(),
        "question first": QuestionFirst(),
        "instruction last": CompactAdapter(instruction="last"),
    }
    lines: dict[str, Any] = {}
    for order, adapter in orders.items():  # a server each, so that none finds what another has cached
        settings = ServerSettings(python=given.python, arguments={"max-model-len": 2048})
        with VLLMModel(embedded_base(), settings, told=print) as model, model.serving() as server:
            program = DivideAndConquer(adapter=adapter)
            backend = model.backend()

            def count(name: str, root: str = server.client.root) -> float:
                text = httpx.get(f"{root}/metrics").text
                found = re.search(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", text, re.MULTILINE)
                assert found is not None
                return float(found[1])

            def ask(messages: list[dict[str, str]], backend: Any = backend) -> int:
                told = [m["content"] for m in messages if m["role"] == "system"]
                request = Request(
                    model="m",
                    system=told[0] if told else None,
                    messages=(Message.user(messages[-1]["content"]),),
                    config=Config(temperature=0.0, max_tokens=1),
                )
                return int(backend.complete(request, 0).usage.input_tokens or 0)

            def work(passage: tuple[str, list[str]], program: Any = program, ask: Any = ask) -> int:
                text, questions = passage
                tokens = 0
                for question in questions:
                    tokens += ask(program.decompose.prompt(question=question, context=text))
                    tokens += ask(program.solve.prompt(question=question, context=text, subquestions=ASKED))
                return tokens

            hits, queries = count("hits"), count("queries")
            tokens, seconds, _ = timed(lambda work=work: sum(at_once(work, data, 4)))
            lines[order] = {
                "prompt_tokens": tokens,
                "cached_share": round((count("hits") - hits) / (count("queries") - queries), 3),
                "seconds": round(seconds, 1),
            }
    write(
        given.output,
        {
            "passages": len(data),
            "questions_a_passage": given.questions,
            "orders": lines,
            "time_over_question_first": {
                order: round(line["seconds"] / lines["question first"]["seconds"], 3) for order, line in lines.items()
            },
        },
    )


if __name__ == "__main__":
    main()
