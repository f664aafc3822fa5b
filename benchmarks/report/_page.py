"""The report: one HTML file with advice, tables, plots and every question. It needs no network, and may use none.

It shows what models and servers have written. Their controls of the reading direction are made visible, and the page's
policy lets a browser run and draw nothing but the template's own script and styles.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from divcon.benchmarks._advice import advice
from divcon.benchmarks._agreement import agreement_rows
from divcon.benchmarks._figures import dollars, percent, points, retained_share, score
from divcon.benchmarks._outcomes import Record, Records
from divcon.benchmarks._tables import FACTORS
from divcon.distill import write_whole
from divcon.programs import Item
from divcon.signatures import DivconError, masked_values, printable_values


class ReportError(DivconError):
    """The packages that draw the report aren't installed."""


@dataclass(frozen=True)
class Shown:
    """The questions of one task, with the arms' answers.

    Attributes:
        task: The task's name.
        items: The test items.
        arms: Label and outcomes of each arm.
    """

    task: str
    items: Sequence[Item]
    arms: Sequence[tuple[str, Records]]


def write_report(results: Mapping[str, Any], records: Mapping[str, Records], items: Sequence[Item], file: Path) -> None:
    """Write the report of a run.

    Args:
        results: The content of `results.json`.
        records: Outcomes by arm and item id.
        items: The test items.
        file: The file to write.

    Raises:
        ReportError: Jinja or Matplotlib is missing.
        StoreError: The file can't be written.
    """
    arms = [(arm["label"], records[arm["name"]]) for arm in results["arms"]]
    results = _shown(results)
    name = results["task"]["name"]
    screening = []
    for student, counts in results["screening"]["by_student"].items():
        training = {key: results["training"].get(student, {}).get(key) for key in _TRAINED}
        screening.append({"cell": name, "student": student, **counts, **training})
    view = {
        "title": f"Which half to distil: {name}",
        "tables": [_table("", [], results["arms"])],
        "comparisons": results["differences"],
        "screening": screening,
        "plots": list(_run_plots(results)),
    }
    _write(results, view, [Shown(name, items, arms)], file)


def write_experiment_report(results: Mapping[str, Any], shown: Sequence[Shown], file: Path) -> None:
    """Write the report of an experiment.

    Args:
        results: The content of the experiment's JSON file.
        shown: The questions and answers of each task.
        file: The file to write.

    Raises:
        ReportError: Jinja or Matplotlib is missing.
        StoreError: The file can't be written.
    """
    results = _shown(results)
    tables = []
    for task in results["tasks"]:
        lines = [row for row in results["rows"] if row["task"] == task]
        factors = [name for name in FACTORS if name != "task" and any(name in line for line in lines)]
        tables.append(_table(task, factors, lines))
    view = {
        "title": f"{results['experiment']}: {results['question']}",
        "tables": tables,
        "comparisons": results["comparisons"],
        "screening": [{**row, "student": row["student"].lower()} for row in results["screening"]],
        "plots": list(_experiment_plots(results)),
    }
    _write(results, view, shown, file)


def _shown(value: Any) -> Any:
    """A value as the page shows it: masked of secrets, its control characters made visible."""
    return printable_values(masked_values(value))


def _table(caption: str, factors: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    more = {name: any(line.get(name) is not None for line in lines) for name in ("by_seed", "f1", "retained")}
    return {"caption": caption, "factors": factors, "lines": lines, "agreed": list(agreement_rows(lines)), **more}


_TRAINED = ("rows", "steps", "first_loss", "last_loss", "seconds")


def _write(results: Mapping[str, Any], view: dict[str, Any], shown: Sequence[Shown], file: Path) -> None:
    try:
        import jinja2
    except ImportError as error:
        raise ReportError(f"The report needs {error.name}.", "pip install 'divcon[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"percent": percent, "score": score, "dollars": dollars, "points": points}
    environment.filters |= {"retained_share": retained_share}
    html = environment.get_template(_TEMPLATE).render(
        policy=_policy([plot for _, plot in view["plots"]]),
        results=results,
        **view,
        advice=advise(results),
        factor_names=FACTORS,
        browser=_browser(shown),
        configuration=json.dumps(
            {key: value for key, value in results.items() if key in _CONFIGURED}, indent=2, ensure_ascii=False
        ),
    )
    write_whole(file, html)


_TEMPLATE = "report.html.j2"


class _Inline(HTMLParser):
    """Finds the styles and scripts of a page: whole elements, and the attributes `style`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: dict[str, list[str]] = {"style": [], "script": []}
        self.attributes: dict[str, None] = {}  # each once, in the page's order
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        data = tag == "script" and given.get("type") == "application/json"
        if tag in self.elements and not data:
            self._inside = tag
            self.elements[tag].append("")
        if (style := given.get("style")) is not None:
            self.attributes[style] = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.elements[self._inside][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = None


def _policy(plots: Sequence[str]) -> str:
    """The page's content security policy: the script and the styles of the template and the plots, and nothing else.

    They are named by their hashes, which are taken before a word of a model or a server is on the page.
    """
    inline = _Inline()
    for part in (Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8"), *plots):
        inline.feed(part)
    scripts, styles = (" ".join(map(_hashed, dict.fromkeys(inline.elements[kind]))) for kind in ("script", "style"))
    attributes = " ".join(map(_hashed, inline.attributes))
    images = "data:" if any("data:image/" in plot for plot in plots) else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-hashes' {styles} {attributes}; "
        f"img-src {images}; base-uri 'none'; form-action 'none'"
    )


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_CONFIGURED = ("task", "tasks", "design", "student_base", "configuration", "versions")


def advise(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The advice on the results of a run or an experiment, one card for each comparison of costs; see `advice`.

    Args:
        results: The content of the JSON file.
    """
    if "arms" in results:
        name = results["task"]["name"]
        return [advice(name, results["arms"], results["costs"])] if results.get("costs") else []
    return [advice(where, _lines(results["rows"], costs), costs) for where, costs in results["costs"].items()]


def _lines(rows: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The lines of an experiment that a comparison of costs is about."""
    whole = [row for row in rows if "steps" not in row]
    return [row for row in whole if all(row.get(key) == value for key, value in costs["where"].items())]


def _run_plots(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from divcon.benchmarks import _plots

    _require_matplotlib()
    yield "Accuracy", _plots.accuracy_plot("accuracy", [_plotted(line, line["label"]) for line in results["arms"]])
    if (costs := results.get("costs")) and not costs["unscored"] and costs["points"]:
        yield "Accuracy and cost", _pareto("pareto", results["arms"], costs)


def _pareto(name: str, lines: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> str:
    from divcon.benchmarks import _plots

    by_name = {line["name"]: line for line in lines if line["name"] in costs["points"]}
    labels = {key: _with_failed(line, line["label"]) for key, line in by_name.items()}
    many = 1000 if costs["in_money"] else 1
    placed = {key: (accuracy, many * cost) for key, (accuracy, cost) in costs["points"].items()}
    label = f"{costs['unit']} {'per 1,000 questions' if costs['in_money'] else 'a question'}, with 95 % intervals"
    unit = "cost_ci95" if costs["in_money"] else "large_tokens_ci95"
    spent = {key: line["bill"].get(unit) for key, line in by_name.items()}
    intervals = {
        key: (line["ci95"], spent[key] and [many * limit for limit in spent[key]]) for key, line in by_name.items()
    }
    return _plots.pareto_plot(name, placed, intervals, labels, costs["pareto_front"], label)


def _experiment_plots(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from divcon.benchmarks import _plots

    _require_matplotlib()
    kind, rows = results["experiment"], results["rows"]
    if kind == "transfer":
        yield from _heat_plots(results)
    axis = {"depth": "steps", "curve": "questions", "cap": "cap"}.get(kind)
    for task in results["tasks"]:
        lines = [row for row in rows if row["task"] == task and row["accuracy"] is not None]
        if axis:
            series: dict[str, list[tuple[float, float, float, float]]] = {}
            failed: Counter[str] = Counter()
            for line in lines:
                if axis in line:
                    low, high = line["ci95"]
                    point = (line[axis], 100 * line["accuracy"], 100 * low, 100 * high)
                    series.setdefault(line["label"], []).append(point)
                    failed[line["label"]] += line["failed"]
            series = {_with_failed({"failed": failed[label]}, label): points for label, points in series.items()}
            yield (
                f"{task}: accuracy by {FACTORS[axis]}",
                _plots.lines_plot(f"lines-{task}", series, FACTORS[axis], "accuracy, %"),
            )
        else:
            labelled = [_plotted(line, arm_label(line)) for line in lines]
            yield f"{task}: accuracy", _plots.accuracy_plot(f"accuracy-{task}", labelled)
    for number, (where, costs) in enumerate(results["costs"].items()):
        if not costs["unscored"]:
            yield f"{where}: accuracy and cost", _pareto(f"pareto-{number}", _lines(rows, costs), costs)


def _heat_plots(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from divcon.benchmarks import _plots

    tasks = list(results["tasks"])
    moved = list(dict.fromkeys(row["name"] for row in results["rows"] if "trained_on" in row))
    for name in moved:
        rows = [row for row in results["rows"] if row["name"] == name]
        found = {(row["trained_on"], row["task"]): row["accuracy"] for row in rows}
        values = [[found.get((origin, task)) for task in tasks] for origin in tasks]
        failed = sum(row["failed"] for row in rows if row["accuracy"] is not None)
        title = f"{_with_failed({'failed': failed}, name.upper())}: accuracy, %"
        yield f"{name.upper()} moved to other tasks", _plots.heat_plot(f"heat-{name}", tasks, tasks, values, title)


def _with_failed(line: Mapping[str, Any], label: str) -> str:
    """A label of a plot, with the number of answers that failed and are in no accuracy."""
    return f"{label} ({line['failed']} failed)" if line["failed"] else label


def _plotted(line: Mapping[str, Any], label: str) -> dict[str, Any]:
    """A line for `accuracy_plot`."""
    return {**line, "label": _with_failed(line, label)}


def arm_label(line: Mapping[str, Any]) -> str:
    """A line's label, with the values that distinguish it from other lines of its task."""
    more = [str(line[name]) for name in FACTORS if name not in ("task", "trained_on") and name in line]
    return f"{line['label']} ({', '.join(more)})" if more else str(line["label"])


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ReportError(f"The report needs {error.name}.", "pip install 'divcon[report]'") from error


def _browser(shown: Sequence[Shown]) -> str:
    """The questions as JSON that is safe in a script element. The page renders a question when it is opened."""
    data = []
    for part in shown:
        questions = [
            {
                "q": item.question,
                "c": item.context or "",
                "g": item.answer,
                "r": [_answered(records[item.id]) for _, records in part.arms],
            }
            for item in part.items
        ]
        data.append({"task": part.task, "arms": [label for label, _ in part.arms], "questions": questions})
    return json.dumps(_shown(data), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _answered(record: Record) -> list[Any]:
    """Outcome, status and rule, subquestions, sub-answers, answer."""
    how = " ".join(str(record[key]) for key in ("status", "reason", "rule") if record.get(key))
    said = record.get("answer", record.get("error", ""))
    return [record["outcome"][0], how, record.get("subquestions", []), record.get("sub_answers", ""), said]
