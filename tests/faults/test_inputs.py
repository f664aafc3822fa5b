"""Input that can't be right: it is refused with its place before anything is paid for, and nothing hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from divcon import Run, load_pipeline
from divcon.config import ConfigError, declared_pipelines
from divcon.distill import RunStore
from divcon.distill._paths import PathError, expanded, expanded_address, expanded_values
from divcon.distill.serving.embedded import cache_folder

DIVCON = Path(sys.executable).with_name("divcon")
GOOD = """\
task: {name: offline, train: 10, test: 5}
roles:
  teacher: {model: scripted/references}
  solver: {model: embedded/solver}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "p.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return file


LAUGHS = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)),
    ]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "compile: &c {optimizer: none, arguments: *c}\n", ["line 5", "refers to itself"]),
        (GOOD + "compile: {arguments: {x: &a [*a]}}\n", ["line 5", "refers to itself"]),
        (GOOD + LAUGHS + "\n", ["over 20,000 values"]),
        (GOOD + "compile: {arguments: {.nan: 1}}\n", ["line 5", "'.nan' is no text"]),
        (GOOD + ".nan: 1\n", ["line 5", "'.nan' is no text"]),
        (GOOD + "? [a, b]\n: 1\n", ["line 5", "is no text"]),
        (GOOD + "compile: {arguments: {x: " + "[" * 60 + "]" * 60 + "}}\n", ["line 5", "nested too deeply"]),
        (GOOD + "x: " + "[" * 600, ["p.yaml"]),
        (GOOD + "x: " + "{a: " * 600, ["p.yaml"]),
        (GOOD + "task: {name: offline, train: 1, test: 1}\n", ["line 5", "duplicate key"]),
        (GOOD + "costs: {training_hour: 1e999}\n", ["line 5", "costs.training_hour", "no finite number"]),
        (GOOD + "costs: {training_hour: .nan}\n", ["line 5", "costs.training_hour", "no finite number"]),
        (GOOD + "compile: {arguments: {x: -.inf}}\n", ["line 5", "compile.arguments.x", "no finite number"]),
        (GOOD + f"costs: {{training_hour: {'9' * 5000}}}\n", ["p.yaml"]),
        (GOOD + 'tracking: {mlflow: "file:\\uD800"}\n', ["line 5", "half of a character"]),
        (GOOD + 'x: !!timestamp "\\uD800"\n', ["line 5", "failed to construct timestamp"]),
        (GOOD + "compile: {arguments: {x: !!binary aGk=}}\n", ["line 5", "neither text"]),
        (GOOD + "compile: {arguments: {x: !!python/object:os.system {}}}\n", ["line 5"]),
    ],
)
def test_a_file_that_no_run_could_use_is_refused_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    file = written(tmp_path, text)
    for load in (load_pipeline, declared_pipelines):
        with pytest.raises(ConfigError) as caught:
            load(file)
        for word in words:
            assert word in str(caught.value)
        str(caught.value).encode()  # it can be printed


@pytest.mark.parametrize("value", ["&a [*a]", "1e999", ".nan", "[" * 600, "{.nan: 1}", '"\\uD800"', "!!binary aGk="])
def test_a_value_on_the_command_line_is_held_to_the_same(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set compile\.arguments\.x: "):
        load_pipeline(written(tmp_path, GOOD), [f"compile.arguments.x={value}"])


def test_an_override_of_one_role_leaves_another_that_shares_its_anchor(tmp_path: Path) -> None:
    text = GOOD.replace("{model: scripted/references}", "&m {model: embedded/base}").replace(
        "solver: {model: embedded/solver}", "solver: *m"
    )
    roles = load_pipeline(written(tmp_path, text), ["roles.solver.model=embedded/solver"]).roles
    assert (roles.teacher.model, roles.solver.model) == ("embedded/base", "embedded/solver")


def test_paths_are_expanded_wherever_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "/data")
    text = (
        "task: {name: jsonl, path: ~/q.jsonl, test_path: '$DATA/t.jsonl', train: 1, test: 1}\n"
        "roles:\n  teacher: {model: scripted/references}\n  solver: {model: embedded/solver}\n"
        "  decomposer: {base: ~/base, serve: vllm, server: {python: '${DATA}/python', "
        "arguments: {download-dir: ~/chat.jinja}}}\n"
        "tracking: {mlflow: 'file:~/mlruns'}\n"
        "compile: {optimizer: GEPA, arguments: {log_dir: ~/gepa, note: '~5 $DATA'}}\n"
    )
    pipeline = load_pipeline(written(tmp_path, text), ["task.test_path=${DATA}/u.jsonl"])
    home = str(tmp_path / "home")
    assert (str(pipeline.task.path), str(pipeline.task.test_path)) == (f"{home}/q.jsonl", "/data/u.jsonl")
    student = pipeline.roles.decomposer
    assert student.server is not None and pipeline.tracking is not None
    assert (student.base, str(student.server.python)) == (f"{home}/base", "/data/python")
    assert student.server.arguments == {"download-dir": f"{home}/chat.jinja"}
    assert pipeline.tracking.mlflow == f"file:{home}/mlruns"
    assert pipeline.compile.arguments == {"log_dir": f"{home}/gepa", "note": "~5 $DATA"}


@pytest.mark.parametrize("key", ["task.path", "task.test_path", "roles.decomposer.base", "tracking.mlflow"])
@pytest.mark.parametrize("path", ["$NO_SUCH_VARIABLE/x", "~nobody-of-this-name/x", "a/${NO_SUCH_VARIABLE}"])
def test_a_path_that_cannot_be_expanded_is_refused_with_its_key(tmp_path: Path, key: str, path: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {key}.*NO_SUCH_VARIABLE|--set {key}.*isn't here"):
        load_pipeline(written(tmp_path, GOOD), ["task.path=x", f"{key}={path}"])


@pytest.mark.parametrize(
    ("address", "means"),
    [
        ("file:///~/x", "file:/home/x"),
        ("file:/a/$DATA/x", "file:/a//data/x"),
        ("sqlite:///~/x.db", "sqlite:////home/x.db"),
        ("~/x", "/home/x"),
        ("http://h:1/~x", "http://h:1/~x"),
        ("databricks", "databricks"),
    ],
)
def test_the_path_of_an_address_is_expanded(address: str, means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home")
    monkeypatch.setenv("DATA", "/data")
    assert expanded_address(address) == means


def test_no_folder_is_ever_called_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIVCON_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "home" / "cache"
    RunStore(Path("~/store")).close()
    run = Run(load_pipeline(written(tmp_path, GOOD)), Path("~/run"))
    run.store.close()
    assert run.folder == tmp_path / "home" / "run"
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["run", "store"]
    assert not list(tmp_path.glob("~*"))


def test_what_is_no_path_stays_as_it_is() -> None:
    assert expanded("a $5 b~") == "a $5 b~"
    assert expanded_values({"a": ["costs $PATH", 1, None]}) == {"a": ["costs $PATH", 1, None]}
    with pytest.raises(PathError):
        expanded("${}/x")


@pytest.mark.parametrize("path", ["~\x00", "a\x00b"])
def test_a_null_character_is_in_no_path(tmp_path: Path, path: str) -> None:
    with pytest.raises(PathError, match="null character"):
        expanded(path)
    task = f"task: {{name: jsonl, path: {json.dumps(path)}, train: 1, test: 1}}"
    with pytest.raises(ConfigError, match=r"line 1: task\.path.*null character"):
        load_pipeline(written(tmp_path, GOOD.replace("task: {name: offline, train: 10, test: 5}", task)))


def test_the_command_line_expands_paths_too(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    written(home, GOOD)
    environment = {**os.environ, "HOME": str(home), "HERE": str(home), "DIVCON_CACHE": str(cache_folder())}

    def divcon(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(DIVCON), *words], cwd=tmp_path, env=environment, text=True, capture_output=True)

    done = divcon(
        "collect", "--run=~/runs", "$HERE/p.yaml", "--set", "task.name=jsonl", "--set", "task.path=~/no.jsonl"
    )
    assert done.returncode == 1
    assert f"The data file {home / 'no.jsonl'} can't be read" in done.stderr
    assert (home / "runs" / "run.sqlite").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    done = divcon("status", "--run=$NO_SUCH_VARIABLE", "~/p.yaml")
    assert done.returncode == 2
    assert "NO_SUCH_VARIABLE" in done.stderr
