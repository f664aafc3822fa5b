"""The prediction of a program, as notebooks show it."""

from __future__ import annotations

import dspy

from divcon.signatures import html_table


class ProgramPrediction(dspy.Prediction):
    """The prediction of `DivideAndConquer` and its relatives; see there for its fields."""

    def _repr_html_(self) -> str:
        """Answer, status, subquestions with the solver's steps, and usage by role."""
        status, reason = self.get("status"), self.get("reason")
        subquestions = "\n".join(f"{number}. {text}" for number, text in enumerate(self.get("subquestions") or (), 1))
        rows = [
            ("answer", self.get("answer")),
            ("status", f"{status} ({reason})" if reason else status),
            ("subquestions", subquestions or "none"),
            ("steps", self.get("sub_answers") or "none"),
        ]
        used = [
            (role, use["calls"], use["input_tokens"], use["output_tokens"], _dollars(use["cost"]))
            for role, use in (self.get("usage") or {}).items()
        ]
        usage = html_table("Usage", ("role", "calls", "tokens in", "tokens out", "US dollars"), used) if used else ""
        return html_table("Prediction", (), [row for row in rows if row[1] is not None]) + usage


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:.6f}"
