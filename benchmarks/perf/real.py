"""A real model that was trained on none of the prompts, on real questions: what each program answers, at what cost.

Usage: python benchmarks/perf/real.py --api-base URL --model NAME --data FOLDER [--before FILE] [--output FILE]

The server speaks OpenAI's protocol on loopback, such as vLLM's:

    python -m vllm.entrypoints.openai.api_server --model FOLDER --served-model-name NAME --max-model-len 1536

The data folder holds `gsm8k/test.jsonl`, `gsm8k/test_socratic.jsonl` (people's subquestions), `svamp/SVAMP.json` and
`gsm8k_ai_subq/chatgpt_plans_test.json` (recorded plans). Replies are kept in `--store`, so a run that was stopped
goes on. `--before` adds the results of this script run on an earlier checkout.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
from _common import write
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from divcon.benchmarks import Arm, Records, arm_agreement, differences, evaluate_arms, grade_number, summarize_arm
from divcon.benchmarks.tasks import gsm8k_items, public_items
from divcon.distill import Key, LMBackend, RunStore, StoredEngine, role_lm
from divcon.programs import ChainOfThought, ChatAdapter, CompactAdapter, Direct, DivideAndConquer, Item, RolePredict
from divcon.signatures import Reason, Subquestions, SubquestionsError, read_answer

PLAINLY = r"Please reason step by step, and put your final answer within \boxed{}."
SEED = 7
RESAMPLES = 10_000


class Plans:
    """A decomposer whose plans were written elsewhere."""

    def __init__(self, plans: Mapping[str, Sequence[str]]) -> None:
        self.plans = plans

    def complete(self, request: Request, rollout: int) -> Response:
        asked = (request.messages[-1].text or "").rpartition("Question: ")[2].strip()
        text = Subquestions.model_construct(items=tuple(self.plans[asked])).render()
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(text)]),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0),
        )

    async def acomplete(self, request: Request, rollout: int) -> Response:
        return self.complete(request, rollout)


class Plainly(CompactAdapter):
    """The question alone, without a label."""

    def format_user_message_content(self, signature: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> str:
        return str(inputs["question"])


class Plain(dspy.Module):
    """The model asked plainly: a system line that asks for steps and a boxed answer."""

    def __init__(self, lm: dspy.LM) -> None:
        super().__init__()
        self.solve = RolePredict(Reason.with_instructions(PLAINLY), "solver", lm=lm, adapter=Plainly())

    def forward(self, question: str, context: str | None = None) -> dspy.Prediction:
        solved = self.solve(question=question)
        return dspy.Prediction(
            subquestions=Subquestions(),
            sub_answers=solved.reasoning,
            status="whole",
            reason=None,
            read_by=solved.get("read_by"),
            answer=solved.answer,
        )


def questions(name: str, data: Path, count: int) -> tuple[list[Item], dict[str, dict[str, Sequence[str]]]]:
    """Test questions of a data set, and what plans there are for them, by whose they are and by question."""
    if name == "svamp":
        every = public_items("svamp", data / "svamp" / "SVAMP.json", None)
        return random.Random(SEED).sample(every, count), {}
    every = gsm8k_items(data / "gsm8k" / "test.jsonl", None)
    people = gsm8k_items(data / "gsm8k" / "test_socratic.jsonl", None)
    recorded = json.loads((data / "gsm8k_ai_subq" / "chatgpt_plans_test.json").read_text(encoding="utf-8"))
    at = random.Random(SEED).sample(range(len(every)), count)
    plans = {
        "recorded": {every[i].question: [text.strip() for text in recorded[i]["answers"]] for i in at},
        "people": {every[i].question: people[i].subquestions for i in at},
    }
    return [every[i] for i in at], plans


def published(data: Path) -> dict[str, Any]:
    """What the readers make of published replies and lists: two solvers, and six students trained on ChatGPT's plans.

    Returns:
        `answers`: by file, the accuracy that the grader finds on the line "Final answer:" and the one that a program
        finds in the whole reply. `lists`: by student, the share of lists used without and with what can be salvaged,
        and how far they agree with people's (ROUGE-L, mean error in their number; a list that isn't used is empty).
    """
    folder = data / "gsm8k_ai_subq"
    people = gsm8k_items(data / "gsm8k" / "test_socratic.jsonl", None)
    answers, lists = {}, {}
    for file in (*sorted(folder.glob("solved_by_*.jsonl.gz")), *sorted((folder / "students").glob("*.jsonl.gz"))):
        name = file.name.removesuffix(".jsonl.gz")
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        by_line = by_program = 0
        for row in rows:
            reply, gold = row["answers"] or "", f"{row['answer']:g}" if row["answer"] % 1 else f"{row['answer']:.0f}"
            said = re.search(r"Final answer:\s*(.*)", reply)
            by_line += bool(said) and grade_number(gold, said[1]).right
            read = read_answer(reply, steps=True)
            by_program += bool(read) and grade_number(gold, read.text).right
        answers[name] = {"final_line": by_line / len(rows), "program": by_program / len(rows), "replies": len(rows)}
        if name.endswith("_solved_by_chatgpt"):
            lists[name.removesuffix("_solved_by_chatgpt")] = _lists([row["questions"] for row in rows], people)
    return {"answers": answers, "lists": lists}


def _lists(replies: Sequence[str], items: Sequence[Item]) -> dict[str, Any]:
    strict, salvaged = [], []
    for reply in replies:
        try:
            strict.append(list(Subquestions.read(reply)))
            salvaged.append(strict[-1])
        except SubquestionsError as error:
            strict.append([])
            salvaged.append(list(error.items))
    found = {}
    for name, read in (("refused", strict), ("salvaged", salvaged)):
        records: Records = {item.id: {"subquestions": asked} for item, asked in zip(items, read, strict=True)}
        people = {item.id: item.subquestions for item in items}
        found[name] = {"used": sum(map(bool, read)) / len(read), **(arm_agreement([records], [people]) or {})}
    return found


def salvaged_questions(own: dict[str, Any], cot: dict[str, Any]) -> dict[str, Any]:
    """Questions whose list was salvaged: right with what stands whole in it, and right asked whole, as before."""
    ids = [item for item, record in own.items() if record.get("status") == "salvaged"]
    return {
        "questions": len(ids),
        "right_salvaged": sum(own[item]["outcome"] == "right" for item in ids),
        "right_whole": sum(cot[item]["outcome"] == "right" for item in ids),
    }


def _prompts(program: dspy.Module) -> dict[str, Any]:
    """What each role of a program is asked with."""
    return {name: role.prompt(question="?") for name, role in program.named_predictors()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api-base", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--sets", nargs="+", default=["gsm8k", "svamp"])
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--dtype", default="unknown", help="what the server computes in; written into the results")
    parser.add_argument("--adapter", choices=("compact", "chat"), default="compact", help="the form of the prompts")
    parser.add_argument("--store", type=Path, default=Path("runs") / "real")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    store = RunStore(given.store)
    inner = dspy.LM(
        f"hosted_vllm/{given.model}",
        api_base=given.api_base,
        api_key="none",
        cache=False,
        num_retries=0,
        timeout=3600,
    )

    def lm(role: str, max_tokens: int) -> dspy.LM:
        engine = StoredEngine(LMBackend(inner), role, inner.model, store, identity=given.model)
        return role_lm(engine, temperature=0.0, max_tokens=max_tokens)

    form = ChatAdapter() if given.adapter == "chat" else CompactAdapter()
    solver, planner = lm("solver", 512), lm("decomposer", 160)
    found: dict[str, Any] = {
        "model": given.model,
        "dtype": given.dtype,
        "adapter": given.adapter,
        "questions": given.questions,
        "seed": SEED,
    }
    for name in given.sets:
        items, plans = questions(name, given.data, given.questions)
        programs: dict[str, tuple[str, dspy.Module]] = {
            "plain": ("Asked plainly, for steps and a boxed answer", Plain(solver)),
            "direct": ("Direct", Direct(solver, adapter=form)),
            "cot": ("Chain of thought", ChainOfThought(solver, adapter=form)),
            "own": ("Two-stage, the model's own plans", DivideAndConquer(planner, solver, adapter=form)),
        }
        for whose, known in plans.items() if given.adapter == "compact" else ():  # recorded as plain lists
            engine = StoredEngine(Plans(known), "decomposer", whose, None)
            written = role_lm(engine, temperature=0.0, max_tokens=160)
            label = f"Two-stage, {'ChatGPT' if whose == 'recorded' else 'people'}'s plans"
            programs[whose] = (label, DivideAndConquer(written, solver, max_subquestions=8, adapter=form))
        arms = [
            Arm(
                arm,
                program,
                Key({"task": name, "arm": arm, **_prompts(program)}),
                label,
            )
            for arm, (label, program) in programs.items()
        ]
        answers = evaluate_arms(
            arms,
            items,
            store,
            concurrency=given.concurrency,
            progress=lambda done, total, arm, name=name: (
                print(f"{name}: {done}/{total} {arm}", flush=True) if done % 20 == 0 else None
            ),
        )
        records = dict(zip(programs, answers, strict=True))
        lines = []
        for arm in arms:
            line = summarize_arm(arm, [records[arm.name]], RESAMPLES)
            statuses = [record.get("status") for record in records[arm.name].values()]
            used = sum(status in ("decomposed", "salvaged") for status in statuses) / len(statuses)
            keys = (
                "name",
                "label",
                "right",
                "wrong",
                "failed",
                "accuracy",
                "ci95",
                "unreadable",
                "reasked",
                "whole_rate",
                "salvaged_rate",
                "fell_back_rate",
            )
            tokens = {
                role: {key: spent[key] / len(items) for key in ("input_tokens", "output_tokens")}
                for role, spent in line["usage"].items()
            }
            lines.append({**{key: line.get(key) for key in keys}, "plans_used": used, "tokens_a_question": tokens})
        pairs = [(arm, "cot") for arm in programs if arm != "cot"]
        alike = [
            (records["own"][item.id], records["cot"][item.id])
            for item in items
            if records["own"][item.id].get("status") in ("whole", "fell_back")
        ]
        same = sum(one["answer"] == other["answer"] and one["outcome"] == other["outcome"] for one, other in alike)
        found[name] = {
            "arms": lines,
            "differences": differences({arm: [answers] for arm, answers in records.items()}, RESAMPLES, pairs),
            "salvaged": salvaged_questions(records["own"], records["cot"]),
            "whole": {"questions": len(alike), "same_as_chain_of_thought": same},
        }
    if given.adapter == "compact":
        found["published"] = published(given.data)
    if given.before:
        found["before"] = json.loads(given.before.read_text(encoding="utf-8"))
    write(given.output, found)


if __name__ == "__main__":
    main()
