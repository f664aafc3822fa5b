"""The page on the precheck says what the recorded one said."""

import json
from pathlib import Path

from divcon._watch import in_words


def test_what_it_says_of_a_precheck_on_real_questions_was_recorded(root: Path) -> None:
    found = json.loads((root / "benchmarks/results/real/precheck.json").read_text(encoding="utf-8"))
    words = " ".join((root / "docs" / "precheck.md").read_text(encoding="utf-8").split())
    before, later, took = (in_words(found["seconds"][key]) for key in ("expected", "expected_after_first", "took"))
    split, right = found["split"], {arm["name"]: f"{100 * arm['accuracy']:.1f} %" for arm in found["arms"]}
    low, high = (f"{100 * split[end]:+.1f}" for end in ("low", "high"))
    assert found["teacher"]["model"] == "gpt-3.5-turbo (recorded)" and split["best"] == "cot"
    asked, gained = found["questions"], f"{100 * split['value']:+.1f} points ({low} to {high})"
    for said in (
        f"precheck.yaml --questions {asked} ",
        f"It said {before.replace('min', 'minutes')} before it began, and {later.removesuffix(' min')} at most after",
        f"its first eight questions; it took {took.removesuffix(' min')}.",
        f"The verdict is `{found['verdict']}`: with ChatGPT's plans {right['teacher']} of {asked} questions were",
        f"right, by chain of thought {right['cot']}, and the difference is {gained}.",
        f"About {split['to_settle']} questions would settle it.",
    ):
        assert said in words, said
