"""What is installed was looked up where that can be done, and holds no release that is known to be an attacker's."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement


def audit(root: Path, folder: Path, answer: str, *pins: str) -> subprocess.CompletedProcess[str]:
    """`.ci/audit` with a pip-audit that gives an answer."""
    program = folder / "pip-audit"
    program.write_text(f"#!{sys.executable}\nprint('''{answer}''')\n")
    program.chmod(0o755)
    (folder / "constraints.txt").write_text("\n".join(pins))
    command = [sys.executable, str(root / ".ci" / "audit"), str(program), str(folder / "constraints.txt")]
    return subprocess.run(command, capture_output=True, text=True)


def test_no_pinned_release_is_one_that_was_an_attackers(root: Path) -> None:
    loader = importlib.machinery.SourceFileLoader("audit", str(root / ".ci" / "audit"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("audit", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    bad = set(module.pins(root / ".ci" / "compromised.txt"))
    assert bad
    for file in ("constraints.txt", "constraints-vllm.txt"):
        wanted = module.pins(root / file)
        assert len(wanted) > 50
        assert not bad & set(wanted)


def test_the_compromised_releases_of_what_we_ask_for_are_refused(root: Path) -> None:
    import tomllib

    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = {Requirement(line).name: Requirement(line).specifier for line in declared}
    pinned = dict(line.split("==") for line in (root / "constraints.txt").read_text().splitlines() if "==" in line)
    for line in (root / ".ci" / "compromised.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        if name in asked:
            assert pinned[name] != version
            assert pinned[name] in asked[name]


@pytest.mark.parametrize(
    ("answer", "pin", "status", "says"),
    [
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', "a==1", 0, "no vulnerability service"),
        ("no network", "a==1", 0, "no vulnerability service"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', "a==1", 0, "1 of 1 releases looked up"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            "a==1",
            1,
            "a 1: CVE-1, mended in 2",
        ),
        ("no network", "litellm==1.107.0", 1, "litellm==1.107.0 held an attacker's code"),
    ],
)
def test_an_audit_says_what_it_found_and_whether_it_could_look(
    root: Path, tmp_path: Path, answer: str, pin: str, status: int, says: str
) -> None:
    done = audit(root, tmp_path, answer, pin)
    assert says in done.stdout
    assert done.returncode == status
