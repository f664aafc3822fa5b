"""Which characters are shown by their code points."""

import json
import unicodedata

import pytest

from divcon.signatures import printable, printable_json, printable_values

STEERING = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in ("Cc", "Cs", "Zl", "Zp")]
TURNING = [chr(n) for n in range(0x110000) if unicodedata.bidirectional(chr(n)) in (
    "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")]  # fmt: skip
MARKS = ["\u061c", "\u200e", "\u200f"]


def test_every_character_that_steers_a_terminal_or_turns_text_is_visible() -> None:
    for one in {*STEERING, *TURNING, *MARKS} - {"\n", "\t"}:
        assert printable(f"a{one}b") == f"a[U+{ord(one):04X}]b"


@pytest.mark.parametrize(
    "text", ["two\nlines\tand a tab", "żółć 日本語 שלום سلام", "👩‍👩‍👧 نمی‌خواهم", "[bold] :smile: \\[x]"]
)
def test_other_text_stays(text: str) -> None:
    assert printable(text) == text


def test_a_line_end_of_windows_is_a_line_end_and_a_return_alone_is_none() -> None:
    assert printable("a\r\nb\rc") == "a\nb[U+000D]c"


def test_json_is_printable_and_means_the_same() -> None:
    value = {"\x1b[2J": ["\u202e", "\x9b1m", "\x7f", "\ud83d", "\n", "ä"]}
    text = printable_json(value)
    assert json.loads(text) == value
    assert text.isprintable()
    assert "ä" in text


def test_every_text_of_a_value_is_shown() -> None:
    assert printable_values({"\x07": [("\x1b", 1)], "n": None}) == {"[U+0007]": [["[U+001B]", 1]], "n": None}
