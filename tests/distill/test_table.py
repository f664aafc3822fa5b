"""Tables, with packages that add to them by entry points on a path."""

from collections.abc import Callable
from pathlib import Path

import pytest

from divcon.distill import PluginError, Table, UnknownName, find_student, screening
from divcon.distill._students import decomposer_student

RULE = """
class Mine:
    student, label, asks_solver, by_item = {student!r}, "MINE", False, False
    def judge(self, item, traces, solver):
        return []
RULE = Mine()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def add(module: str, code: str, entries: str, group: str = "divcon.sizes") -> None:
        folder = tmp_path / module
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entries}\n")
        (folder / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))

    return add


def sizes(*needs: str) -> Table:
    return Table("size", "divcon.sizes", {"small": 1}, needs=needs)


def test_what_a_package_adds_is_found_and_not_imported_before_it_is_used(package: Callable) -> None:
    package("one_more", "raise SystemError('imported')", "large = one_more:LARGE")
    table = sizes()
    assert list(table) == ["small", "large"]
    assert "large" in table
    assert table["small"] == 1
    with pytest.raises(
        PluginError, match=r"The size large \(one_more:LARGE\) can't be imported: SystemError: imported"
    ):
        table["large"]


def test_an_object_without_what_it_has_to_have_is_named(package: Callable) -> None:
    package("lacking", "LARGE = 3", "large = lacking:LARGE")
    with pytest.raises(PluginError, match=r"The size large \(lacking:LARGE\) has no width"):
        sizes("width")["large"]


def test_a_name_that_is_taken_is_an_error_whichever_is_asked_for(package: Callable) -> None:
    package("taking", "", "small = taking:SMALL")
    with pytest.raises(PluginError, match="taking:SMALL adds a size called small, and divcon has one"):
        sizes()["small"]


def test_two_packages_with_one_name_are_both_named(package: Callable) -> None:
    package("first", "", "large = first:LARGE")
    package("second", "", "large = second:LARGE")
    with pytest.raises(PluginError, match=r"(first|second):LARGE adds a size called large, and (first|second):LARGE"):
        list(sizes())


def test_an_unknown_name_is_told_its_neighbours() -> None:
    with pytest.raises(UnknownName, match=r"There is no size 'smal'\. Did you mean small\?"):
        sizes()["smal"]


@pytest.mark.parametrize(
    ("student", "says"),
    [("../../evil", "no name for a file"), ("sd-r", "divcon has a student of that name"), ("se-t", "of that name")],
)
def test_a_rule_cant_name_its_student_like_one_of_ours_or_outside_the_folder(
    package: Callable, monkeypatch: pytest.MonkeyPatch, student: str, says: str
) -> None:
    module = f"evil_{sum(student.encode())}"  # a module is imported once
    package(module, RULE.format(student=student), f"evil = {module}:RULE", "divcon.rules")
    rules = Table("screening rule", "divcon.rules", screening.RULES._ours)
    monkeypatch.setattr("divcon.distill._students.RULES", rules)
    with pytest.raises(PluginError, match=says):
        decomposer_student("evil", "lora")
    assert find_student("sd-r").rule == "oracle", "those who don't name it aren't stopped"
