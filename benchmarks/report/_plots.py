"""Plots of a report: inline SVG in the page's text colour, so that they suit light and dark pages and print."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Paul Tol's bright scheme, which people with any colour vision can tell apart
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#997700")
_MARKERS = "osD^vPX*"


@contextlib.contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, and a list that holds the SVG after the block."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # Matplotlib derives identifiers in the SVG from the salt. Two plots of one page need different ones.
    style: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": name, "font.size": 9}
    style["text.parse_math"] = False  # a dollar in a label is a dollar
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(width, height))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        drawn: list[str] = []
        yield axes, drawn
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
    svg = stream.getvalue()
    drawn.append(svg[svg.index("<svg") :].replace("#000000", "currentColor").replace("<svg ", '<svg role="img" ', 1))


def accuracy_plot(name: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Accuracies with their intervals, one row per line of results.

    Args:
        name: A name that is unique on the page.
        lines: The results, with `label`, `accuracy` and `ci95`.
    """
    shown = [line for line in reversed(lines) if line["accuracy"] is not None]
    with _figure(name, 7, 0.32 * len(shown) + 0.7) as (axes, drawn):
        for row, line in enumerate(shown):
            low, high = line["ci95"]
            axes.plot([100 * low, 100 * high], [row, row], color=_COLOURS[0], linewidth=3, solid_capstyle="round")
            axes.plot(100 * line["accuracy"], row, "o", color=_COLOURS[0])
        axes.set_yticks(range(len(shown)), [line["label"] for line in shown])
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, % (95 % interval)")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
    return drawn[0]


def pareto_plot(
    name: str,
    points: Mapping[str, tuple[float, float]],
    intervals: Mapping[str, tuple[Sequence[float], Sequence[float] | None]],
    labels: Mapping[str, str],
    front: Sequence[str],
    cost_label: str,
) -> str:
    """Accuracy against cost, both from zero and with their intervals, with a line through the Pareto front.

    Args:
        name: A name that is unique on the page.
        points: (accuracy, cost) by arm.
        intervals: The 95 % intervals of accuracy and cost by arm; None where that of the cost is unknown.
        labels: The label of each arm. Its name stands at its point.
        front: The arms on the Pareto front, the cheapest first.
        cost_label: The label of the axis of costs.
    """
    with _figure(name, 7, 3.8) as (axes, drawn):
        axes.set_xlim(0, 1.2 * max((cost for _, cost in points.values()), default=0) or 1)
        axes.set_ylim(0, 110 * max((high for (_, high), _ in intervals.values()), default=0) or 1)
        axes.plot([points[n][1] for n in front], [100 * points[n][0] for n in front], color=_COLOURS[0], alpha=0.6)
        for number, (arm, (accuracy, cost)) in enumerate(points.items()):
            marker, colour = _MARKERS[number % len(_MARKERS)], _COLOURS[number % len(_COLOURS)]
            fill = "full" if arm in front else "none"
            right, spent = intervals[arm]
            axes.plot([cost, cost], [100 * limit for limit in right], color=colour, alpha=0.6)
            axes.plot(spent or [cost], [100 * accuracy] * len(spent or [cost]), color=colour, alpha=0.6)
            axes.plot(cost, 100 * accuracy, marker, color=colour, fillstyle=fill, label=labels[arm], markersize=8)
        _name_points(axes, {arm: (cost, 100 * accuracy) for arm, (accuracy, cost) in points.items()})
        axes.set_xlabel(cost_label)
        axes.set_ylabel("accuracy, %")
        axes.grid(alpha=0.3)
        if points:
            axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return drawn[0]


def _name_points(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Write a name at the right of each point, higher where another name is in the way."""
    written: list[Any] = []
    for name, at in sorted(points.items(), key=lambda point: point[1][1]):
        above = 2.0  # points of print; the height of a name is about 8
        while True:
            text = axes.annotate(name, at, (7, above), textcoords="offset points", fontsize=8)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in written):
                break
            text.remove()
            above += 2
        written.append(box)


def lines_plot(
    name: str, series: Mapping[str, Sequence[tuple[float, float, float, float]]], x_label: str, y_label: str
) -> str:
    """Curves with their intervals.

    Args:
        name: A name that is unique on the page.
        series: The points of each curve, as (x, y, low, high), by label.
        x_label: The label of the x axis.
        y_label: The label of the y axis.
    """
    with _figure(name, 7, 3.6) as (axes, drawn):
        ticks = sorted({point[0] for points in series.values() for point in points})
        spread = len(ticks) > 2 and ticks[-1] >= 8 * max(ticks[0], 1)
        for number, (label, points) in enumerate(series.items()):
            xs, ys, lows, highs = zip(*sorted(points), strict=True)
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(xs, ys, marker=_MARKERS[number % len(_MARKERS)], color=colour, label=label)
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.12)
        if spread:
            axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn[0]


def heat_plot(
    name: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], title: str
) -> str:
    """A matrix of accuracies, with the values written into its cells.

    Args:
        name: A name that is unique on the page.
        rows: The tasks trained on.
        columns: The tasks tested on.
        values: Accuracies by row and column; None where there is none.
        title: The title of the plot.
    """
    with _figure(name, 1.6 + 1.1 * len(columns), 1.0 + 0.5 * len(rows)) as (axes, drawn):
        shown = [[float("nan") if value is None else 100 * value for value in row] for row in values]
        axes.imshow(shown, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if value is not None:
                    ink = "#fefefe" if value > 0.55 else "#101010"
                    axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color=ink)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("tested on")
        axes.set_ylabel("trained on")
        axes.set_title(title, fontsize=10)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
    return drawn[0]
