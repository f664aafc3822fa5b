"""An engine of another package: one file, and an entry point that names it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from divcon.distill import Provenance, Training, TrainSettings, local_base, train_adapter

SUPPORT = Path(__file__).parents[2] / "support"

PIPELINE = """\
task: {{name: offline, train: 10, test: 5}}
roles:
  teacher: {{model: scripted/references}}
  solver: {{model: embedded/base}}
  decomposer:
    base: {base}
    serve: outside
    adapter: lora
    server:
      arguments: {{script: {script}}}
      environment: {{STAND_IN: ok, STAND_IN_STARTS: starts}}
"""

ASK = """
import json, sys
from pathlib import Path
from divcon import load_pipeline
from divcon._models import Models
from divcon.distill import RunStore
from divcon.distill.serving import ENGINES

pipeline = load_pipeline(Path("p.yaml"))
student = pipeline.roles.decomposer
[found] = ENGINES[student.serve].examine(student.server)
told = []
models = Models(pipeline, RunStore(Path("store")), list, Path("log"), told.append)
lm = models.student(Path(sys.argv[1]))
said = lm("How many plums are left?")
models.close()
print(json.dumps([list(ENGINES), found.text, lm.model, said, told]))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages in which one adds the engine."""
    folder = tmp_path / "site"
    metadata = folder / "outside-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "outside.py").write_text((SUPPORT / "outside_engine.py").read_text())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[divcon.engines]\noutside = outside:ENGINE\n")
    return folder


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *words], cwd=site.parent, env=environment, capture_output=True, text=True)


def test_an_engine_of_another_package_serves_a_student(site: Path, tiny_base, tmp_path: Path) -> None:
    assert len((SUPPORT / "outside_engine.py").read_text().splitlines()) <= 80
    row = {"prompt": [{"role": "user", "content": "Split."}], "completion": [{"role": "assistant", "content": "1. A?"}]}
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(row)] * 8))
    settings = TrainSettings(rank=4, batch_size=4)
    base = local_base(str(tiny_base.path))
    train_adapter(Training(tmp_path / "rows.jsonl", base, tmp_path / "student", settings), Provenance(student="sd-t"))
    (tmp_path / "p.yaml").write_text(PIPELINE.format(base=tiny_base.path, script=SUPPORT / "vllm_stand_in.py"))
    done = run(site, "-c", ASK, str(tmp_path / "student"))
    assert done.returncode == 0, done.stderr
    engines, found, model, said, told = json.loads(done.stdout.splitlines()[-1])
    assert engines == ["embedded", "vllm", "outside"]
    assert found.startswith("Outside ")
    assert model.startswith("openai/sd-t-")
    assert said == [f"{model.removeprefix('openai/')} says so"]
    assert any(line.startswith("Outside serves ") for line in told)
    assert any(line.startswith("probe of sd-t-") for line in told)


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ("{serve: outsid}", "there is no serving engine 'outsid'; did you mean outside"),
        ("{serve: outside, guided: true}", "guided is for 'serve: vllm', and this student is served by Outside."),
        ("{serve: outside, server: {arguments: {port: 1}}}", "it is roles.decomposer.server.port"),
        ("{server: {port: 8000}}", "server is for 'serve: vllm or outside', and this student is served in this pro"),
    ],
)
def test_what_an_engine_doesnt_take_is_refused(site: Path, tmp_path: Path, student: str, says: str) -> None:
    head = PIPELINE[: PIPELINE.index("  decomposer:")].format()
    (tmp_path / "p.yaml").write_text(f"{head}  decomposer: {student}\n")
    done = run(site, "-c", "import divcon; from pathlib import Path; divcon.load_pipeline(Path('p.yaml'))")
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
