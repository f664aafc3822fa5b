"""The report: one HTML file that needs no network, with the table, its intervals, and every question."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divcon.distill import write_whole
from divcon.programs import Item
from divcon.signatures import DivconError


class ReportError(DivconError):
    """The packages that draw the report aren't installed."""


def write_report(
    results: Mapping[str, Any], records: Mapping[str, Mapping[str, dict[str, Any]]], items: Sequence[Item], file: Path
) -> None:
    """Write the report of an evaluation.

    Args:
        results: The content of `results.json`.
        records: Outcomes by arm and item id.
        items: The test questions.
        file: Where to.

    Raises:
        ReportError: Jinja or Matplotlib is missing.
        StoreError: The file can't be written.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - asked for here, so that the error comes before the work
    except ImportError as error:
        raise ReportError(f"The report needs {error.name}.", "pip install 'divcon[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = percent
    questions = [
        {
            "id": item.id,
            "context": item.context,
            "question": item.question,
            "answer": item.answer,
            "family": item.family,
            "arms": [(arm["label"], records[arm["name"]][item.id]) for arm in results["arms"]],
            "split": len({records[arm["name"]][item.id]["outcome"] for arm in results["arms"]}) > 1,
        }
        for item in items
    ]
    html = environment.get_template("report.html.j2").render(
        results=results, questions=questions, plot=_accuracy_plot(results["arms"])
    )
    write_whole(file, html)


def percent(value: float | None, digits: int = 0) -> str:
    """A share as people read it; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _accuracy_plot(arms: Sequence[Mapping[str, Any]]) -> str:
    """Accuracies with their intervals as inline SVG, in the page's own text colour."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shown = [arm for arm in reversed(arms) if arm["accuracy"] is not None]
    with pyplot.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "divcon"}):
        figure, axes = pyplot.subplots(figsize=(7, 0.5 * len(shown) + 0.8))
        for row, arm in enumerate(shown):
            low, high = arm["ci95"]
            axes.plot([100 * low, 100 * high], [row, row], color="#4477aa", linewidth=3, solid_capstyle="round")
            axes.plot(100 * arm["accuracy"], row, "o", color="#4477aa")
        axes.set_yticks(range(len(shown)), [arm["label"] for arm in shown])
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, % (95 % interval)")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
    svg = stream.getvalue()
    return svg[svg.index("<svg") :].replace("#000000", "currentColor")
