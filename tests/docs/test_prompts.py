"""The pages on prompts and on an untrained model say what the code does, and what was recorded."""

import json
import re
from pathlib import Path

import pytest


def test_the_blocks_of_the_page_print_what_it_says(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = root / "docs" / "prompts.md"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    told = capsys.readouterr().out
    assert "Split the question" in told
    assert "\n3 0\n" in told, "demonstrations for an untrained model, and for a student"
    assert "text='10 plums', rule='answer_is'" in told


def test_the_figures_of_the_untrained_model_are_the_recorded_ones(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "perf-real.json").read_text())
    page = (root / "docs" / "untrained.md").read_text(encoding="utf-8")
    for found, title in ((recorded, "now"), (recorded["before"], "before")):
        for name in ("gsm8k", "svamp"):
            for arm in found[name]["arms"]:
                low, high = arm["ci95"]
                tokens = sum(spent["output_tokens"] for spent in arm["tokens_a_question"].values())
                cells = [
                    title,
                    name,
                    arm["label"],
                    f"{100 * arm['accuracy']:.1f} %",
                    f"{100 * low:.0f} to {100 * high:.0f}",
                    str(arm["unreadable"]),
                    f"{100 * arm['plans_used']:.0f} %" if arm["name"] in ("own", "recorded", "people") else "–",
                    f"{tokens:.0f}",
                ]
                assert f"| {' | '.join(cells)} |" in page, cells
    for found in recorded["published"]["answers"].values():
        assert abs(found["final_line"] - found["program"]) <= 0.005
    for student, found in recorded["published"]["lists"].items():
        used, agreed = (
            [f"{100 * found[how]['used']:.0f} %", f"{found[how]['rouge_l']:.2f}", f"{found[how]['count_error']:.2f}"]
            for how in ("refused", "salvaged")
        )
        assert f"| {student} | {' | '.join(used)} | {' | '.join(agreed)} |" in page, student
    chat = json.loads((root / "benchmarks" / "results" / "perf-real-chat.json").read_text())
    arms = {arm["name"]: arm for arm in chat["gsm8k"]["arms"]}
    shown = [f"{100 * arms[name]['accuracy']:.1f} %" for name in ("cot", "own", "plain")]
    assert "chain of thought {}, two-stage with its own plans {}, asked plainly {}.".format(*shown) in page
    assert "the model writes 93\ntokens behind a plan and 179 without one" in page
    assert (arms["cot"]["unreadable"], arms["own"]["unreadable"], chat["questions"]) == (0, 0, 60)
    assert [round(arms[name]["tokens_a_question"]["solver"]["output_tokens"]) for name in ("own", "cot")] == [93, 179]
    # What was to be reached.
    for name in ("gsm8k", "svamp"):
        arms = {arm["name"]: arm for arm in recorded[name]["arms"]}
        asked = [arm for arm in arms.values() if arm["name"] != "plain"]
        assert all(arm["unreadable"] <= 0.03 * recorded["questions"] for arm in asked)
        assert arms["own"]["plans_used"] >= 0.85
        assert arms["direct"]["tokens_a_question"]["solver"]["output_tokens"] <= 20
        whole = recorded[name]["whole"]
        assert whole["questions"] == whole["same_as_chain_of_thought"]


def test_the_summary_of_the_untrained_model_was_recorded(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "perf-real.json").read_text())
    said = " ".join((root / "docs" / "untrained.md").read_text(encoding="utf-8").split())
    used, direct, minus = [], [], []
    for name in ("gsm8k", "svamp"):
        arms = {arm["name"]: arm for arm in recorded[name]["arms"]}
        used.append(f"{100 * arms['own']['plans_used']:.1f}")
        direct.append(f"{arms['direct']['tokens_a_question']['solver']['output_tokens']:.0f}")
        [found] = [row for row in recorded[name]["differences"] if (row["a"], row["b"]) == ("own", "cot")]
        low, high = found["ci95"]
        minus.append((100 * found["difference"], 100 * low, 100 * high))
        asked = [arm["unreadable"] for key, arm in arms.items() if key != "plain"]
        assert max(asked) <= 1
    assert f"could be used in {used[0]} and {used[1]} % of the questions" in said
    assert f"The direct answer took {direct[0]} and {direct[1]} tokens" in said
    (one, low, high), (other, below, above) = minus
    assert f"was {one:+.1f} points ({low:+.1f} to {high:+.1f}) and {other:+.1f} ({below:+.1f} to {above:+.1f})" in said
