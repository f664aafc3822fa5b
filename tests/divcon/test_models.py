from pathlib import Path

import pytest

from divcon import Run, load_pipeline
from divcon._models import Models
from divcon.config import Pipeline
from divcon.distill import Base, RunStore, find_student, fingerprint
from divcon.signatures import READER

pytestmark = pytest.mark.model

PIPELINE = """\
task: {name: offline, train: 10, test: 5}
roles: {teacher: {model: scripted/references}, solver: {model: embedded/base}}
"""


def test_a_precision_decides_replies_and_bfloat16_keeps_the_keys_it_had(tmp_path: Path, base: Base) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE)
    identities = {}
    for chosen in ("bfloat16", "float32"):
        pipeline = load_pipeline(tmp_path / "p.yaml", [f"roles.precision={chosen}"])
        models = Models(pipeline, RunStore(tmp_path / chosen), list, tmp_path / "log", lambda text: None)
        assert models.student_model.precision == chosen
        identities[chosen] = (models.solver.engine.identity, models.student(None).engine.identity)
    before = fingerprint("embedded/base", base.revision)
    assert identities["bfloat16"] == (before, before)
    assert before not in identities["float32"]


def test_a_served_student_keeps_the_keys_it_had(tmp_path: Path, base: Base) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE)
    address = {"api_base": "http://127.0.0.1:9/v1", "arguments": {}, "environment": {}}
    for guided, cap in ((False, None), (True, 3)):
        given = [f"roles.decomposer={{serve: vllm, guided: {guided}, server: {{api_base: {address['api_base']}}}}}"]
        pipeline = load_pipeline(tmp_path / "p.yaml", given)
        models = Models(pipeline, RunStore(tmp_path / "store"), list, tmp_path / "log", lambda text: None)
        shown = f"hosted_vllm/{base.id}"
        assert models.student(None).model == shown
        expected = fingerprint(shown, base.revision, "vllm", "base", address, cap)
        assert models.student(None).engine.identity == expected
        assert models.student(None, "solver").engine.identity == fingerprint(
            shown, base.revision, "vllm", "base", address, None
        )


def test_the_demos_replies_are_found_under_the_keys_they_had(root: Path, tmp_path: Path, base: Base) -> None:
    run = Run(load_pipeline(root / "examples" / "demo.yaml", ["roles.precision=bfloat16"]), tmp_path / "run")
    assert run.models.solver.engine.identity == "a0bb311e55534873"
    assert run.models.teacher.engine.identity == "df87223ca6e9bf20"
    assert run.keys.collection().digest == "edbca478f5d4a3b7"
    # Verdicts are keyed by the version of the reader of answers too.
    assert READER == 4
    assert run.keys.screening("oracle").digest == "a41d9517a5feec7b"
    changes = ["roles.precision=bfloat16", "program.reask=0"]
    other = Run(load_pipeline(root / "examples" / "demo.yaml", changes), tmp_path / "other")
    assert other.keys.screening("none").digest == run.keys.screening("none").digest
    assert other.keys.screening("oracle").digest != run.keys.screening("oracle").digest
    solves = find_student("se-a")
    assert solves is not None
    assert other.keys.rows(solves).digest != run.keys.rows(solves).digest
    arms = {name: run.arm(name).key.digest for name in ("direct", "untuned", "teacher")}
    assert arms == {"direct": "55cd7db2d95a1a45", "untuned": "07acfd825eda3f46", "teacher": "eb0de7d1991dae77"}


@pytest.mark.parametrize(
    ("model", "limit"),
    [("openai/gpt-4.1-mini", {"max_tokens": 2048}), ("openai/gpt-5-mini", {"max_completion_tokens": 16_000})],
)
def test_no_reply_of_a_server_is_without_a_limit(tmp_path: Path, model: str, limit: dict[str, int]) -> None:
    roles = {"teacher": {"model": model}, "solver": {"model": model}}
    pipeline = Pipeline.model_validate({"task": {"name": "word-problems", "train": 9, "test": 9}, "roles": roles})
    models = Models(pipeline, RunStore(tmp_path), list, tmp_path / "log", print)
    for lm in (models.teacher, models.solver):
        assert limit.items() <= lm.kwargs.items()
