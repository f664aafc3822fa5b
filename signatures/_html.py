"""Small pieces of HTML for notebooks: no script, nothing loaded, every text escaped and masked of secrets."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from divcon.signatures._printable import printable
from divcon.signatures._secrets import masked

_CELL = 'style="text-align:left;vertical-align:top;white-space:pre-wrap;padding:2px 14px 2px 0"'


def escaped(text: object) -> str:
    """A text as HTML shows it: escaped, masked of secrets, its control characters visible.

    Examples:
        >>> escaped("<b>5 & 6</b>")
        '&lt;b&gt;5 &amp; 6&lt;/b&gt;'
    """
    return html.escape(printable(masked(str(text))))


def html_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a caption; every text in it is escaped.

    Args:
        caption: What it shows.
        columns: The names of its columns; a table without names has no head.
        rows: The cells of each row.
    """
    head = "".join(f"<th {_CELL}>{escaped(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td {_CELL}>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<table><caption style="text-align:left"><b>{escaped(caption)}</b></caption>'
        f"{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
    )
