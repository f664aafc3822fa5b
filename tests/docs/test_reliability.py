"""The page on reliability names tests that exist, and figures that were recorded."""

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

from support.hostile_server import BEHAVIOURS


def recorded(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "benchmarks" / "results" / f"faults-{name}.json").read_text())
    return found


def test_every_test_on_the_page_exists(root: Path) -> None:
    page = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 30
    for file, name in named:
        tree = ast.parse((root / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (file, name)


def test_the_figures_of_the_page_are_the_recorded_ones(root: Path) -> None:
    page = " ".join((root / "docs" / "reliability.md").read_text(encoding="utf-8").split())
    assert f"has {len(BEHAVIOURS)} behaviours" in page
    kills = recorded(root, "kills")
    assert f"{kills['kills']} kills at random moments" in page
    assert f"{kills['runs_that_came_to_their_end']} runs that came to their end" in page
    assert (
        f"{kills['asked_twice']} requests were asked twice, of at most {kills['at_most_in_flight']} in flight" in page
    )
    assert kills["exports_that_differed"] == 0 and kills["asked_twice"] <= kills["at_most_in_flight"]
    fuzz = recorded(root, "fuzz")
    assert f"{fuzz['examples']:,} examples in all" in page and fuzz["faults"] == 0
    alone = [one["seconds"] for one in fuzz["targets"] if "public" not in one["target"]]
    public = sum(one["seconds"] for one in fuzz["targets"] if "public" in one["target"])
    assert min(*alone, public) >= 600  # "ten minutes each"
    load, soak = recorded(root, "load"), recorded(root, "soak")
    memory = load["growth"]["megabytes"]
    assert f"{load['traces']:,} traces at {load['concurrency']} requests at a time" in page
    assert f"took {load['seconds'] / 60:.0f} minutes and at most {memory['highest']:.0f} MB" in page
    assert f"memory grew by {slope(memory)[0]} MB a minute (95 % interval {slope(memory)[1]})" in page
    assert f"one process did {soak['runs']} runs in {soak['minutes']:.0f} minutes" in page
    grown = {name: slope(soak["growth"][name]) for name in ("megabytes", "files", "threads")}
    assert f"Memory grew by {grown['megabytes'][0]} MB a minute ({grown['megabytes'][1]})" in page
    assert f"open files by {grown['files'][0]} ({grown['files'][1]})" in page
    assert f"threads by {grown['threads'][0]} ({grown['threads'][1]})" in page
    readers = json.loads((root / "benchmarks" / "results" / "perf-readers.json").read_text())
    slowest = max(one["slowest_ms"] for one in readers["readers"].values())
    assert f"of {readers['replies']} replies of {readers['characters']:,} characters" in page
    assert f"none took a reader or a grader over {math.ceil(slowest)} ms" in page
    # What was to be reached: nothing grows by more than it may, and no reply takes long.
    assert slowest <= 50
    assert memory["a_minute"] < 1
    assert soak["growth"]["megabytes"]["a_minute"] < 1
    assert all(soak["growth"][name]["ci95"][0] <= 0 for name in ("files", "threads"))


def slope(found: dict[str, Any]) -> tuple[str, str]:
    """The growth a minute, and its interval, as the page writes them."""
    growth, low, high = (f"{round(value, 2) + 0.0:.2f}" for value in (found["a_minute"], *found["ci95"]))
    return growth, f"{low} to {high}"
