"""Calls and plans as commands show them: what was asked, what came back, and what became of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.padding import Padding

from divcon._terminal import line, out
from divcon.distill import Exchange, prompt_of, reply_of

_WHY = {
    "cut_off": "it was cut off",
    "duplicate": "it repeats itself",
    "empty": "it is empty",
    "over_long": "it was longer than allowed, and was cut",
    "unreadable": "it can't be read as a list of subquestions",
}


def about_plan(status: str, reason: str | None, count: int) -> str:
    """What became of a plan, in a sentence.

    Args:
        status: The program's: `decomposed`, `salvaged`, `whole` or `fell_back`.
        reason: Why, as the program has it.
        count: The number of subquestions that were used.
    """
    why = _WHY.get(reason or "", reason or "")
    if status == "fell_back":
        return f"Fell back: the planner's reply isn't used, since {why}. The question was asked whole."
    if status == "whole":
        return "The planner said that no split helps. The question was asked whole."
    if status == "salvaged":
        return f"Salvaged: of the planner's reply ({why}), the {count} whole subquestions were used."
    return f"Split into {count} subquestions{f' ({why})' if why else ''}."


def as_plain(exchange: Exchange, station: str | None = None) -> dict[str, Any]:
    """A call as JSON."""
    return {
        **({"station": station} if station is not None else {}),
        "role": exchange.role,
        "model": exchange.model,
        "prompt": [{"role": role, "text": text} for role, text in prompt_of(exchange)],
        "settings": exchange.request.get("config") or {},
        "reply": reply_of(exchange),
        "finish_reason": exchange.response.get("finish_reason"),
        "input_tokens": exchange.input_tokens,
        "output_tokens": exchange.output_tokens,
        "cached_tokens": exchange.cached_tokens,
        "seconds": exchange.seconds,
        "cost": exchange.cost,
    }


def print_call(number: int, call: Mapping[str, Any]) -> None:
    """Print a call: who was asked, the tokens, the cost, the prompt and the reply.

    Args:
        number: Its number among those that are printed.
        call: The call, as `as_plain` has it.
    """
    station = f", at {call['station']}" if call.get("station") else ""
    out.print(line((f"  call {number}", "bold"), f" {call['role']}, {call['model']}{station}"), soft_wrap=True)
    tokens = [
        f"{'unknown' if count is None else f'{count:,}'} {way}"
        for count, way in ((call["input_tokens"], "tokens in"), (call["output_tokens"], "out"))
    ]
    cost = "price unknown" if call["cost"] is None else f"${call['cost']:.6f}"
    facts = [f"ended by: {call['finish_reason'] or 'unknown'}", *tokens, cost, f"{call['seconds']:.1f} s"]
    out.print(f"    {', '.join(facts)}", soft_wrap=True)
    for message in call["prompt"]:
        _print_text(message["role"], message["text"])
    _print_text("reply", call["reply"] or "(empty)")


def print_lines(texts: Sequence[str], indent: int) -> None:
    """Print texts, each wrapped and indented."""
    for text in texts:
        out.print(Padding(text, (0, 0, 0, indent), expand=False))


def _print_text(name: str, text: str) -> None:
    out.print(line(("    " + name, "dim")))
    print_lines([text], 6)
