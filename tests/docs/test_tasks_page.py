"""The page on tasks names all of them."""

import re
from pathlib import Path

from divcon.benchmarks._graders import KINDS
from divcon.benchmarks.tasks import PUBLIC, TASKS, Task


def test_the_page_of_tasks_names_them_all_with_their_licences(root: Path) -> None:
    page = (root / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    shown = {name: row for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    assert set(TASKS) <= set(shown)
    for name, source in TASKS.items():
        assert shown[name][3] == (source.licence or ("yours" if source.own else "generated here"))
    for name, task in PUBLIC.items():
        assert shown[name][4] == f"`{task.hub[0]}`"
    for kind in KINDS:
        assert f"`{kind}`" in page
    for option in re.findall(r"`task\.(\w+)", page):
        assert option in Task.model_fields
