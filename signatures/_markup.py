"""The markup that models put around an answer: Markdown's emphasis, and LaTeX's delimiters, wrappers and spacing."""

from __future__ import annotations

import re

_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|md|sc)?|math(?:rm|bf|it|sf|tt|normal|bb|cal)|boldsymbol|bm|operatorname|mbox"
    r"|hbox|emph|underline|ensuremath|boxed|fbox)\*?\s*\{([^{}]*)\}"
    r"|\{\\(?:rm|bf|it|sf|tt|em|bfseries|itshape)\b\s*([^{}]*)\}"
)
_MOST_WRAPPERS = 4  # one in the other
_NO_TEXT = re.compile(r"\\!|\\(?:left|right)\b(?=\s*[()\[\]|\\.])|\\(?:displaystyle|textstyle)\b|\\[()\[\]]")
_SPACE = re.compile(r"\\[,;:> ]|~|\\q?quad\b|\\(?:thin|med|thick)?space\b")
# "48\,250", "10,\!000", "48{,}250", and the narrow spaces of Unicode. "~" also stands between the ends of a range.
_DIGITS_APART = re.compile(r"(?<=\d),?(?:\\[,;:!> ]|\{,\}|\\thinspace\b\s?|[\u00a0\u2007\u2009\u202f])+(?=\d{3}(?!\d))")
_DOLLARS = re.compile(r"\$\$|(?<![\w$])\$(?=[^$\n]*[^\s$]\$(?![\w$]))([^$\n]*)\$(?![\w$])")
_HEADING = re.compile(r"\A[ \t]*#{1,6}[ \t]+")
_BOLD = re.compile(r"\*\*([^*\n]*)\*\*")
_ITALIC = re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])")
_UNDERSCORED = re.compile(r"(?<![\w_])__?(?=\S)([^_\n]+?)(?<=\S)__?(?![\w_])")
_HALF_BOLD = re.compile(r"\A[ \t]*(?:\*\*|__)|(?:\*\*|__)[ \t]*\Z")
_FULL_STOP = re.compile(r"(?<=[\w)%\]])\.$")
_INITIAL = re.compile(r"\b[A-Z]\.$|\.\w\.$")  # "J. R.", "a.m."


def plain(text: str) -> str:
    """Remove the markup that models put around an answer: Markdown's emphasis, LaTeX's delimiters and wrappers.

    Fractions stay in LaTeX.

    Examples:
        >>> plain(r"**\\(\\text{B}\\)**"), plain(r"48\\,250")
        ('B', '48,250')
    """
    text = _DIGITS_APART.sub(",", text)
    if "\\" in text:
        for _ in range(_MOST_WRAPPERS):
            text = _WRAPPED.sub(lambda match: match[1] or match[2] or "", text)
    text = _SPACE.sub(" ", _NO_TEXT.sub("", text))
    text = _DOLLARS.sub(lambda match: match[1] or "", text)
    text = re.sub(r"\\([%$&#_{}])", r"\1", text).replace("\\times", "×").replace("\\cdot", "·")
    for emphasis in (_BOLD, _ITALIC, _UNDERSCORED):
        text = emphasis.sub(r"\1", text)
    text = _HEADING.sub("", _HALF_BOLD.sub("", text))
    text = "\n".join([" ".join(line.split()) for line in text.strip().split("\n")]).strip("`").strip()
    return text if _INITIAL.search(text) else _FULL_STOP.sub("", text)
