"""Plots of a report: inline SVG in the page's text colour, so that they suit light and dark pages and print.

Each plot is drawn twice: for wide pages, and for a phone at its own size, where a scaled plot couldn't be read. What
is plotted may be a link into the page.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

# Paul Tol's bright scheme, which people with any colour vision can tell apart
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#997700")
_MARKERS = "osD^vPX*"
_WIDE, _NARROW = 10.6, 3.55  # inches: a page's column, and a phone's


@dataclass(frozen=True)
class Plot:
    """A plot in both widths.

    Attributes:
        caption: What it shows.
        wide: The SVG for wide pages.
        narrow: The SVG for phones.
    """

    caption: str
    wide: str
    narrow: str


class Point(NamedTuple):
    """A point of a plot with intervals.

    Attributes:
        letters: Written beside the point.
        label: The name in the legend.
        x: Across; 0 for a plot without this axis.
        y: Up.
        y_interval: The interval of `y`.
        x_interval: The interval of `x`; None where it is unknown.
        link: A link of the page, or empty.
    """

    letters: str
    label: str
    x: float
    y: float
    y_interval: tuple[float, float]
    x_interval: tuple[float, float] | None = None
    link: str = ""


def _both(name: str, caption: str, draw: Callable[[str, bool], str]) -> Plot:
    wide, narrow = draw(name, False), draw(f"{name}-narrow", True)
    title = f'<svg aria-label="{escape(caption)}" role="img" '
    return Plot(caption, *(svg.replace("<svg ", title, 1) for svg in (wide, narrow)))


@contextlib.contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, and a list that holds the SVG after the block."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # Matplotlib derives identifiers in the SVG from the salt. Two plots of one page need different ones.
    style: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": name, "font.size": 9.5}
    style["text.parse_math"] = False  # a dollar in a label is a dollar
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        drawn: list[str] = []
        yield axes, drawn
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = stream.getvalue()
    # Matplotlib opens links in another window; these lead within the page.
    drawn.append(svg[svg.index("<svg") :].replace("#000000", "currentColor").replace(' target="_blank"', ""))


def accuracy_plot(name: str, caption: str, points: Sequence[Point]) -> Plot:
    """Accuracies with their intervals, one row per point.

    Args:
        name: A name that is unique on the page.
        caption: What it shows.
        points: The accuracies in per cent as `y`.
    """

    def draw(salt: str, narrow: bool) -> str:
        labels = [textwrap.fill(point.label, 19 if narrow else 48) for point in reversed(points)]
        lines = sum(label.count("\n") + 1 for label in labels)
        height = 0.75 + (0.17 * lines + 0.14 * len(labels) if narrow else 0.33 * len(labels))
        with _figure(salt, _NARROW if narrow else _WIDE, height) as (axes, drawn):
            for row, point in enumerate(reversed(points)):
                low, high = point.y_interval
                axes.plot([low, high], [row, row], color=_COLOURS[0], linewidth=3, solid_capstyle="round", alpha=0.55)
                axes.plot(point.y, row, "o", color=_COLOURS[0], markersize=7, clip_on=False, url=point.link or None)
                axes.annotate(
                    f"{point.y:.0f}",
                    (1.01, row),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    annotation_clip=False,
                )
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(-0.6, len(labels) - 0.4)
            axes.set_xlim(0, 100)
            axes.set_xlabel("accuracy, % (95 % interval)")
            axes.tick_params(axis="y", length=0, pad=8)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x", alpha=0.3)
        return drawn[0]

    return _both(name, caption, draw)


def pareto_plot(name: str, caption: str, points: Sequence[Point], front: Sequence[str], cost_label: str) -> Plot:
    """Accuracy against cost, both from zero and with their intervals, with a line through the Pareto front.

    Args:
        name: A name that is unique on the page.
        caption: What it shows.
        points: The cost as `x` and the accuracy in per cent as `y`.
        front: The letters of the points on the Pareto front, the cheapest first.
        cost_label: The label of the axis of costs.
    """

    def draw(salt: str, narrow: bool) -> str:
        height = 3.2 + 0.19 * len(points) if narrow else 4.4
        with _figure(salt, _NARROW if narrow else _WIDE, height) as (axes, drawn):
            axes.set_xlim(0, 1.25 * max((point.x for point in points), default=0) or 1)
            axes.set_ylim(0, 1.1 * max((point.y_interval[1] for point in points), default=0) or 1)
            by_letters = {point.letters: point for point in points}
            best = [by_letters[letters] for letters in front]
            axes.plot([point.x for point in best], [point.y for point in best], color=_COLOURS[0], alpha=0.5)
            for number, point in enumerate(points):
                marker, colour = _MARKERS[number % len(_MARKERS)], _COLOURS[number % len(_COLOURS)]
                fill = "full" if point.letters in front else "none"
                axes.plot([point.x, point.x], point.y_interval, color=colour, alpha=0.5)
                if point.x_interval is not None:
                    axes.plot(point.x_interval, [point.y, point.y], color=colour, alpha=0.5)
                axes.plot(
                    point.x, point.y, marker, color=colour, fillstyle=fill, label=point.label, markersize=8,
                    clip_on=False, linestyle="none", url=point.link or None,
                )  # fmt: skip
            axes.set_xlabel(textwrap.fill(cost_label, 46 if narrow else 100))
            axes.set_ylabel("accuracy, %")
            axes.grid(alpha=0.3)
            if points:
                _legend(axes, narrow)
            axes.figure.draw_without_rendering()  # lays the axes out, so that names are placed where they will stand
            axes.figure.set_layout_engine("none")
            _name_points(axes, points)
        return drawn[0]

    return _both(name, caption, draw)


def _legend(axes: Any, narrow: bool) -> None:
    """A legend at the right of a wide plot, and below a narrow one."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 46 if narrow else 30) for label in labels]
    where = "outside lower left" if narrow else "outside right center"
    axes.figure.legend(handles, labels, frameon=False, loc=where, fontsize=8.5, borderaxespad=0.1)


# Where a name may stand beside its point, in points of print: (right, up, alignment).
_PLACES = [
    (sign * right, up, "left" if sign > 0 else "right")
    for up in (3, -9, 10, -17, 18, -26, 27, -36, 37, 48)
    for right in (7, 22)
    for sign in (1, -1)
]


def _name_points(axes: Any, points: Sequence[Point]) -> None:
    """Write the letters beside each point where nothing is in the way, with a line to points that are further away."""
    from matplotlib.transforms import Bbox

    inner = axes.get_window_extent()
    centres = [axes.transData.transform((point.x, point.y)) for point in points]
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    for point in sorted(points, key=lambda one: (one.y, one.x)):
        for right, up, side in _PLACES:
            given = {"textcoords": "offset points", "fontsize": 9, "ha": side}
            tried = axes.annotate(point.letters, (point.x, point.y), (right, up), **given)
            box = tried.get_window_extent()
            tried.remove()
            inside = inner.x0 <= box.x0 and box.x1 <= inner.x1 and inner.y0 <= box.y0
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        arrow = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.6} if abs(up) > 12 else None
        axes.annotate(point.letters, (point.x, point.y), (right, up), arrowprops=arrow, url=point.link or None, **given)


def lines_plot(name: str, caption: str, series: Mapping[str, Sequence[Point]], x_label: str) -> Plot:
    """Curves of accuracy with their intervals.

    Args:
        name: A name that is unique on the page.
        caption: What it shows.
        series: The points of each curve by label, with the accuracy in per cent as `y`.
        x_label: The label of the x axis.
    """

    def draw(salt: str, narrow: bool) -> str:
        height = 2.9 + 0.19 * len(series) if narrow else 3.9
        with _figure(salt, _NARROW if narrow else _WIDE, height) as (axes, drawn):
            ticks = sorted({point.x for points in series.values() for point in points})
            spread = len(ticks) > 2 and ticks[-1] >= 8 * max(ticks[0], 1)
            across = (ticks[-1] - ticks[0]) if ticks and not spread else 0.0
            for number, (label, points) in enumerate(series.items()):
                colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
                aside = 0.012 * across * (number - (len(series) - 1) / 2)  # so that intervals stand side by side
                ordered = sorted(points, key=lambda point: point.x)
                xs = [point.x + aside for point in ordered]
                axes.plot(xs, [point.y for point in ordered], color=colour, alpha=0.6)
                for x, point in zip(xs, ordered, strict=True):
                    axes.plot([x, x], point.y_interval, color=colour, alpha=0.5, linewidth=1.2)
                    axes.plot(x, point.y, marker, color=colour, markersize=6, clip_on=False, url=point.link or None)
                axes.plot([], [], marker=marker, color=colour, label=label)
            if spread:
                axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.set_ylim(0, 100)
            axes.set_xlabel(x_label)
            axes.set_ylabel("accuracy, %")
            axes.grid(alpha=0.3)
            if series:
                _legend(axes, narrow)
        return drawn[0]

    return _both(name, caption, draw)


def heat_plot(
    name: str,
    caption: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    links: Sequence[Sequence[str]],
) -> Plot:
    """A matrix of accuracies, with the values written into its cells.

    Args:
        name: A name that is unique on the page.
        caption: What it shows.
        rows: The tasks trained on.
        columns: The tasks tested on.
        values: Accuracies by row and column, from 0 to 1; None where there is none.
        links: The links of the cells.
    """

    def draw(salt: str, narrow: bool) -> str:
        width = _NARROW if narrow else min(_WIDE, 2.2 + 1.3 * len(columns))
        with _figure(salt, width, 1.1 + 0.55 * len(rows)) as (axes, drawn):
            shown = [[float("nan") if value is None else 100 * value for value in row] for row in values]
            axes.imshow(shown, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
            for y, row in enumerate(values):
                for x, value in enumerate(row):
                    if value is not None:
                        ink = "#fefefe" if value > 0.55 else "#101010"
                        axes.text(
                            x, y, f"{100 * value:.0f}", ha="center", va="center", color=ink, url=links[y][x] or None
                        )
            size = 12 if narrow else 30
            axes.set_xticks(range(len(columns)), [textwrap.fill(column, size) for column in columns])
            axes.set_yticks(range(len(rows)), [textwrap.fill(row, size) for row in rows])
            axes.set_xlabel("tested on")
            axes.set_ylabel("trained on")
            for side in ("left", "bottom"):
                axes.spines[side].set_visible(False)
            axes.tick_params(length=0)
        return drawn[0]

    return _both(name, caption, draw)
