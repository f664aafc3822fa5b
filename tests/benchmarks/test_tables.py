"""The table of results as CSV."""

import csv
import io
from typing import Any

import pytest

from divcon.benchmarks import as_csv


def row(**more: Any) -> dict[str, Any]:
    return {"name": "cot", "label": "COT", "accuracy": 0.5, "ci95": [0.4, 0.6], "bill": None, "usage": {}, **more}


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", " =1", "\r\n=HYPERLINK(1)", "＝1", "－1"]
)
def test_a_text_that_a_spreadsheet_would_compute_is_text(text: str) -> None:
    [found] = read(as_csv([row(label=text, solver=text)]))
    assert (found["label"], found["solver"]) == (f"'{text}", f"'{text}")
    assert (found["name"], found["accuracy"]) == ("cot", "0.5")


def test_numbers_and_other_texts_stay_as_they_are() -> None:
    bill = {"by_role": {"solver": {"cost": -0.25, "input_tokens": 7}}, "cost": -1.5}
    found = read(as_csv([row(bill=bill, change=-0.5, label="SD-R (a=b)", f1=None), row(label="it's 5 - 3")]))
    assert found[0]["change"] == "-0.5"
    assert (found[0]["solver_dollars_per_1000"], found[0]["dollars_per_1000"]) == ("-250.0", "-1500.0")
    assert (found[0]["solver_input_tokens_a_question"], found[1]["dollars_per_1000"]) == ("7", "")
    assert [line["label"] for line in found] == ["SD-R (a=b)", "it's 5 - 3"]
    assert found[0]["f1"] == ""


def test_what_a_student_keeps_stands_with_its_limits() -> None:
    kept = {"share": 0.9, "ci95": [0.5, None], "n": 20}
    found = read(as_csv([row(retained=kept), row(retained=None), row()]))
    assert [line["retained"] for line in found] == ["0.9", "", ""]
    assert (found[0]["retained_low"], found[0]["retained_high"]) == ("0.5", "")
