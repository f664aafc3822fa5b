"""The results of a run or an experiment, as notebooks show them."""

from __future__ import annotations

from typing import Any

from divcon.benchmarks._advice import advise
from divcon.benchmarks._figures import dollars, interval, p_value, points, retained_share, score
from divcon.benchmarks._tables import FACTORS
from divcon.signatures import html_table


class RunResults(dict[str, Any]):
    """The content of `results.json`, or of an experiment's JSON file."""

    def _repr_html_(self) -> str:
        """A table of the programs, one of their paired differences, and the advice."""
        lines = self["arms"] if "arms" in self else self["rows"]
        factors = [name for name in FACTORS if any(name in line for line in lines)]
        if "arms" in self:
            title = f"{self['task']['name']}: {self['questions']} questions"
        else:
            title = f"{self['experiment']}: {self['question']}"
        columns = [FACTORS[name] for name in factors]
        columns += ["program", "accuracy", "95 % interval", "of the teacher's", "$ per 1,000 questions"]
        programs = [
            (
                *(line.get(name, "") for name in factors),
                line["label"],
                score(line),
                interval(line["ci95"]),
                retained_share(line),
                dollars(line.get("bill")),
            )
            for line in lines
        ]
        shown = html_table(title, columns, programs)
        if "arms" in self and self["differences"]:
            shown += _differences_html(self)
        return shown + "".join(
            html_table(f"Advice: {card['task']}", (), [[card["headline"]], *([text] for text in card["warnings"])])
            for card in advise(self)
        )


def _differences_html(results: RunResults) -> str:
    labels = {line["name"]: line["label"] for line in results["arms"]}
    rows = [
        (
            labels[row["a"]],
            labels[row["b"]],
            points(row["difference"]),
            interval(row["ci95"]),
            row["n"],
            p_value(row["p_holm"]),
        )
        for row in results["differences"]
    ]
    columns = ("program", "against", "points of accuracy", "95 % interval", "questions", "p (Holm)")
    return html_table("Differences", columns, rows)
