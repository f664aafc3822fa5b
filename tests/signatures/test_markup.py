import pytest

from divcon.signatures import plain


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"\text{B}", "B"),
        (r"\boxed{\text{(B)}}", "(B)"),
        (r"48\,250", "48,250"),
        (r"48{,}250", "48,250"),
        (r"\$18.00", "$18.00"),
        ("$18$", "18"),
        ("$5 and $6", "$5 and $6"),
        ("**$60**", "$60"),
        ("*60*", "60"),
        ("3 * 4 * 5", "3 * 4 * 5"),
        ("snake_case_name", "snake_case_name"),
        (r"50\%", "50%"),
        ("Answer.", "Answer"),
        ("J. R. R. Tolkien", "J. R. R. Tolkien"),
        ("> ) ]", "> ) ]"),
        (r"10,\!000", "10,000"),
        ("48\u202f250", "48,250"),
        ("100~200", "100 200"),  # a range
        (r"\mathbf{7}", "7"),
        (r"{\rm 7}", "7"),
        (r"\left(7\right)", "(7)"),
        (r"7\text{ apples}", "7 apples"),
        (r"\textbf{\emph{Paris}}", "Paris"),
        ("#### Paris", "Paris"),
        ("#1 song", "#1 song"),
    ],
)
def test_markup_goes_and_text_stays(written: str, text: str) -> None:
    assert plain(written) == text
