import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from divcon.distill import Base

PREFERENCE = """
import json, sys
from pathlib import Path

from divcon.distill import Base, Destination, Provenance, Screened, Trace, Training, TrainSettings, train_adapter
from divcon.distill.training import METHODS, write_rows
from divcon.programs import Item, RolePredict
from divcon.signatures import Decompose

folder, model = Path(sys.argv[1]), Path(sys.argv[2])
items = [Item(f"i{i}", f"What is {i} and {i + 1}?", str(i)) for i in range(6)]
kept = [Trace(item.id, 0, (f"What is {n}?", "And then?")) for n, item in enumerate(items)]
rejected = [Trace(item.id, 1, ("Why not?",)) for item in items[:4]]
role = RolePredict(Decompose, "decomposer")
screened = Screened(kept, len(kept) + len(rejected), {"unsolved": 4}, rejected)
rows = METHODS["dpo"].rows(role, screened, items)
file = write_rows(rows, role, Destination(folder / "rows.jsonl", "sd-r-dpo", method="dpo"), {}).file
training = Training(
    file, Base(model, "tests/tiny-llama", "seed-0", "bfloat16"), folder / "adapter",
    TrainSettings(method="dpo", epochs=3, batch_size=4, learning_rate=0.05, precision="float32"),
)
manifest = train_adapter(training, Provenance(student="sd-r" + METHODS["dpo"].suffix))
print(json.dumps({
    "methods": list(METHODS), "rows": manifest.rows, "result": manifest.result, "method": manifest.settings["method"],
    "student": manifest.student, "written": sorted(file.name for file in training.output.iterdir()),
}))
"""


def with_plugin(folder: Path, target: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which a package is installed that adds `target` to the training methods."""
    info = folder / "site" / "a_method-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-method\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[divcon.methods]\n{target}\n")
    support = Path(__file__).parents[2] / "support"
    path = os.pathsep.join([str(info.parent), str(support), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.model
def test_a_preference_method_of_another_package_trains_an_adapter(tiny_base: Base, tmp_path: Path) -> None:
    done = with_plugin(tmp_path, "dpo = dpo_method:DPO", PREFERENCE, str(tmp_path), str(tiny_base.path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["methods"] == ["lora", "dpo"]
    assert (found["rows"], found["method"], found["student"]) == (4, "dpo", "sd-r-dpo")
    assert found["result"]["steps"] == 3
    # The reference is the base: before the first step the adapter prefers nothing.
    assert found["result"]["first_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert found["result"]["last_loss"] < found["result"]["first_loss"] - 0.02
    assert found["written"] == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json", "probe.json",
    ]  # fmt: skip


def test_a_method_is_imported_where_it_is_used_and_not_before(tmp_path: Path) -> None:
    code = """
import sys
from divcon.distill import TrainSettings
from divcon.distill.training import METHODS
print(TrainSettings(method=["lora", "dpo"]).methods, "dpo_method" in sys.modules)
print(METHODS["dpo"].suffix, "dpo_method" in sys.modules, "trl" in sys.modules)
"""
    done = with_plugin(tmp_path, "dpo = dpo_method:DPO", code)
    assert done.stdout.splitlines() == ["['lora', 'dpo'] False", "-dpo True False"], done.stderr


def test_a_method_that_can_not_be_imported_is_said(tmp_path: Path) -> None:
    code = "from divcon.distill.training import METHODS; METHODS['dpo']"
    done = with_plugin(tmp_path, "dpo = no_such_module:DPO", code)
    assert "The training method dpo (no_such_module:DPO) can't be imported" in done.stderr
