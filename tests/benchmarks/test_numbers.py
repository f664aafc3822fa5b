from fractions import Fraction

import pytest

from divcon.benchmarks._numbers import first_numbers, glued_number, is_number, numbers, shown


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,200 and 3.5", [1200, Fraction(7, 2)]),
        ("-8, −8, –8 and $-8", [-8, -8, -8, -8]),
        ("minus 8 or negative 8", [-8, -8]),
        ("5–10", [5, 10]),
        ("- 10", [10]),
        # Mixed fractions are one number, and what is none stays two.
        ("2 1/2", [Fraction(5, 2)]),
        ("2-1/2", [Fraction(5, 2)]),
        ("2½ or 2 ½ or ½", [Fraction(5, 2), Fraction(5, 2), Fraction(1, 2)]),
        (r"2\frac{1}{2} or 2\frac12 or \dfrac{1}{2}", [Fraction(5, 2), Fraction(5, 2), Fraction(1, 2)]),
        ("10 - 1/2", [10, Fraction(1, 2)]),
        ("2 11/2", [2, Fraction(11, 2)]),
        ("5/0", []),
        # Powers of ten
        ("1.2e6 1.2E+06 1e-2", [1200000, 1200000, Fraction(1, 100)]),
        (r"1.2 × 10^6, 1.2 · 10⁶, 1.2*10**6, 1.2 \times 10^{6}", [1200000] * 4),
        ("10^6 and 10⁻²", [1000000, Fraction(1, 100)]),
        ("2^10", []),
        ("12 cm^2", [12]),
        # Digits apart
        (r"48\,250, 48,\!250, 48{,}250, 48\ 250", [48250] * 4),
        ("48\u202f250 and 48\u00a0250", [48250, 48250]),
        ("48 250", [48, 250]),
        ("1,00 1,00,000 1.2M 5k 3rd 2x v1.2.3", []),
    ],
)
def test_numbers_in_the_forms_of_data_and_of_replies(text: str, found: list[Fraction]) -> None:
    assert numbers(text) == found
    assert first_numbers(text, 1) == found[:1]


@pytest.mark.parametrize("text", ["1.2e6", "1.2 × 10^6", "10⁶", "$1,200.50", "-3", "50 %", "2½", "2 1/2", "1e+22"])
def test_one_number_is_a_number(text: str) -> None:
    assert is_number(text)


@pytest.mark.parametrize("text", ["", "-", "5/0", "1, 2", "5 kg", "9th", "e6", "3:4", "x = 3", "1,00"])
def test_anything_else_is_none(text: str) -> None:
    assert not is_number(text)


def test_only_one_glued_unit_is_read() -> None:
    assert [glued_number(text) for text in ("2600g", "5kg of it", "5kg or 6kg", "5k", "8C", "12cm²")] == [
        "2600", "5", None, None, None, "12",
    ]  # fmt: skip


def test_a_number_is_shown_whatever_its_size() -> None:
    huge = Fraction(10**400 + 1, 2)
    assert [shown(Fraction(14, 2)), shown(Fraction(5, 2)), shown(huge)] == ["7", "2.5", str(huge)]
    assert len(numbers("7" * 5000)) == 1
