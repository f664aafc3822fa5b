"""The page of a report: one HTML file that needs no network, and may use none.

It shows what models and servers have written. Their controls of the reading direction are made visible, and the page's
policy lets a browser run and draw nothing but the page's own script and styles.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from divcon.benchmarks.report._cells import Table
from divcon.benchmarks.report._names import Program
from divcon.benchmarks.report._plots import Plot
from divcon.benchmarks.report._questions import Shown, index_of, packed
from divcon.signatures import DivconError


class ReportError(DivconError):
    """The packages that draw the report aren't installed, or there is nothing to report."""


class Note(NamedTuple):
    """A sentence of the page.

    Attributes:
        text: The sentence.
        quote: What a model wrote, which stands behind it; empty for none.
    """

    text: str
    quote: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the page: plots, then tables, between texts.

    Attributes:
        name: Its anchor.
        title: Its heading.
        intro: Sentences that stand before the plots.
        plots: Its plots.
        tables: Its tables.
        notes: Sentences that stand after the tables.
        folded: The title of a fold that the tables are in; empty where they stand open.
    """

    name: str
    title: str
    intro: str = ""
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[Note] = ()
    folded: str = ""


@dataclass(frozen=True)
class Page:
    """What a report shows.

    Attributes:
        title: The heading.
        facts: What was measured: (name, value).
        notes: What has to be known to read the figures.
        cards: The advice, as `advice` returns it.
        rule: The rule of the advice; empty where there is none.
        programs: The legend.
        sections: The sections before the questions.
        shown: The questions.
        configuration: The settings, as JSON; None for none.
        refresh: Seconds until the page loads itself again; None for a finished report.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[Note] = ()
    cards: Sequence[Mapping[str, Any]] = ()
    rule: str = ""
    programs: Sequence[Program] = ()
    sections: Sequence[Section] = ()
    shown: Sequence[Shown] = ()
    configuration: Mapping[str, Any] | None = None
    refresh: int | None = None
    _folder: Path = field(default=Path(__file__).parent, repr=False)

    def render(self) -> str:
        """The HTML of the page.

        Raises:
            ReportError: Jinja is missing.
        """
        style, script = ((self._folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        plots = [svg for section in self.sections for plot in section.plots for svg in (plot.wide, plot.narrow)]
        settings = None
        if self.configuration is not None:
            settings = json.dumps(self.configuration, indent=2, ensure_ascii=False)
        return _template(self._folder / "page.html.j2").render(
            page=self,
            policy=_policy(style, script, plots),
            style=style,
            script=script,
            settings=settings,
            index=index_of(self.shown),
            parts=packed(self.shown),
        )


@functools.cache
def _template(file: Path) -> Any:
    """The compiled template; a page that is watched is rendered again and again."""
    try:
        import jinja2
    except ImportError as error:
        raise ReportError(f"The report needs {error.name}.", "pip install 'divcon[report]'") from error
    loader = jinja2.FileSystemLoader(file.parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(file.name)


def require_matplotlib() -> None:
    """Raise an error where plots can't be drawn.

    Raises:
        ReportError: Matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ReportError(f"The report needs {error.name}.", "pip install 'divcon[report]'") from error


class _Styles(HTMLParser):
    """Finds the styles of plots: whole elements, and the attributes `style`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: dict[str, None] = {}  # each once, in the page's order
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "style":
            self._inside = True
            self.elements.append("")
        if (style := dict(attrs).get("style")) is not None:
            self.attributes[style] = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.elements[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def _policy(style: str, script: str, plots: Sequence[str]) -> str:
    """The page's content security policy: the script and the styles of the page and its plots, and nothing else.

    They are named by their hashes, which are taken before a word of a model or a server is on the page.
    """
    found = _Styles()
    for plot in plots:
        found.feed(plot)
    styles = " ".join(map(_hashed, dict.fromkeys([style, *found.elements])))
    attributes = " ".join(map(_hashed, found.attributes))
    images = "data:" if any("data:image/" in plot for plot in plots) else "'none'"
    return (
        f"default-src 'none'; script-src {_hashed(script)}; style-src 'unsafe-hashes' {styles} {attributes}; "
        f"img-src {images}; base-uri 'none'; form-action 'none'"
    )


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
