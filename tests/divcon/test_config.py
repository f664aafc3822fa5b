from pathlib import Path

import pytest

from divcon import load_pipeline
from divcon.config import ConfigError, load_saved_pipeline
from divcon.signatures import learn_variable

GOOD = """\
task: {name: offline, train: 10, test: 5}
roles:
  teacher: {model: scripted/references}
  solver:
    model: embedded/solver
    max_tokens: 96
screen:
  rule: [none, oracle]
"""


def load(tmp_path: Path, text: str, *overrides: str):
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")
    return load_pipeline(file, overrides)


def test_a_small_file_gets_sensible_defaults(tmp_path: Path) -> None:
    pipeline = load(tmp_path, GOOD)
    assert pipeline.program.max_subquestions == 3
    assert pipeline.arms == ["direct", "cot", "teacher", "untuned", "sd-t", "sd-r"]
    assert pipeline.roles.decomposer.base == "embedded"


def test_a_precision_is_given_once(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "roles.precision=float32", "train.precision=bfloat16").roles.precision == "float32"
    twice = "{serve: vllm, server: {arguments: {dtype: bfloat16}}}"
    with pytest.raises(ConfigError, match="write one of them"):
        load(tmp_path, GOOD, f"roles.decomposer={twice}", "roles.precision=float32")


def test_what_is_never_offered_is_not_kept(tmp_path: Path) -> None:
    program = load(tmp_path, GOOD).program
    assert (program.allow_whole, program.salvage, program.reask) == (False, True, 1)
    with pytest.raises(ConfigError, match=r"needs program\.allow_whole"):
        load(tmp_path, GOOD, "screen.keep_whole=true")
    assert load(tmp_path, GOOD, "screen.keep_whole=true", "program.allow_whole=true").screen.keep_whole


def test_an_own_instruction_has_to_be_one_that_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "program.instruction=Split it into {max_subquestions} steps."
    assert load(tmp_path, GOOD, given).program.instruction == "Split it into {max_subquestions} steps."
    with pytest.raises(ConfigError, match=r"program\.instruction: it is blank"):
        load(tmp_path, GOOD, "program.instruction=' '")
    with pytest.raises(ConfigError, match=r"has to say when to write 'No decomposition\.'"):
        load(tmp_path, GOOD, given, "program.allow_whole=true")
    assert load(tmp_path, GOOD, f"{given} Or write 'No decomposition.'", "program.allow_whole=true").program.allow_whole
    monkeypatch.setenv("OTHER_KEY", "abc-0123456789")
    learn_variable("OTHER_KEY")
    with pytest.raises(ConfigError, match="it holds a secret") as caught:
        load(tmp_path, GOOD, "program.instruction=Split abc-0123456789.")
    assert "abc-0123456789" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("Use #1 for the first answer", "' #' begins a comment"),
        ("Split: it", "Quote a text"),
        ("- Split it", "Quote a text"),
    ],
)
def test_prose_that_yaml_would_cut_or_take_for_a_section_is_to_be_quoted(tmp_path: Path, told: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, GOOD, f"program.instruction={told}")
    assert load(tmp_path, GOOD, f"program.instruction='{told}'").program.instruction == told


def test_a_value_is_overridden_on_the_command_line(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        GOOD,
        "roles.solver.model=openai/gpt-5-mini",
        "train.epochs=3",
        "screen.rule=oracle",
        "evaluate.arms=[direct, sd-r]",
    )
    assert pipeline.roles.solver.model == "openai/gpt-5-mini"
    assert pipeline.roles.solver.max_tokens == 96
    assert pipeline.train.epochs == 3
    assert pipeline.arms == ["direct", "sd-r"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("max_tokens: 96", "max_token: 96"), ["line 6", "roles.solver.max_token", "Did you mean 'max_tokens'"]),
        (("screen:", "screning:"), ["line 7", "screning", "Did you mean 'screen'"]),
        (("train: 10", "train: ten"), ["line 1", "task.train", "integer"]),
        (("train: 10", "train: 0"), ["line 1", "task.train"]),
        (("rule: [none, oracle]", "rule: best"), ["line 8", "screen.rule"]),
        (("rule: [none, oracle]", "rule: oracle\nevaluate: {arms: [sd-t]}"), ["sd-t", "rule 'none'"]),
        (("embedded/solver", "gpt-5"), ["line 5", "roles.solver.model", "no provider"]),
        (("embedded/solver", "vllm/Qwen"), ["line 5", "hosted_vllm/Qwen"]),
        (("embedded/solver", "hosted_vllm/Qwen"), ["line 4", "api_base"]),
        (("embedded/solver", "scripted/references"), ["roles.solver", "only decomposes"]),
        (("max_tokens: 96", "api_key_env: NO_SUCH_KEY"), ["roles.solver", "NO_SUCH_KEY is not set"]),
        (("  teacher: {model: scripted/references}\n", ""), ["line 2", "roles.teacher", "missing"]),
        (("name: offline", "name: jsonl"), ["line 1", "needs path"]),
        (("task: {", "task: {{"), ["line 2", "not YAML"]),
        (("scripted/references}", "openai/x, faults: {cut_off: 0.1}}"), ["line 3", "only a scripted teacher"]),
        (("  solver:", "  decomposer: {guided: true}\n  solver:"), ["line 4", "guided is for 'serve: vllm'"]),
        (("  solver:", "  decomposer: {serve: vllm, adapter: both}\n  solver:"), ["line 4", "adapter", "merged"]),
        (
            ("  solver:", "  decomposer: {serve: vllm, server: {arguments: {host: 0.0.0.0}}}\n  solver:"),
            ["line 4", "roles.decomposer.server.arguments", "loopback"],
        ),
        (
            ("  solver:", "  decomposer: {serve: vllm, server: {restart: 2}}\n  solver:"),
            ["line 4", "roles.decomposer.server.restart", "Did you mean 'restarts'"],
        ),
    ],
)
def test_what_is_wrong_is_named_with_key_line_and_remedy(tmp_path: Path, change: tuple[str, str], words: list) -> None:
    assert change[0] in GOOD
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(*change))
    for word in words:
        assert word in str(caught.value)
    assert caught.value.remedy


def test_all_errors_of_a_file_are_said_at_once_unknown_keys_first(tmp_path: Path) -> None:
    text = GOOD.replace("train: 10", "train: ten").replace("max_tokens: 96", "max_token: 96\n    temperature: -1")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text.replace("rule: [none, oracle]", "rule: oracle\nevaluate: {armz: [x], resamples: 5}"))
    _, *lines = caught.value.problem.splitlines()
    assert "has 5 errors" in caught.value.problem
    assert "roles.solver.max_token" in lines[0] and "evaluate.armz" in lines[1]
    assert all("Did you mean" in line for line in lines[:2])
    assert not any("there is no key" in line for line in lines[2:])
    for key in ("task.train", "roles.solver.temperature", "evaluate.resamples"):
        assert sum(key in line for line in lines) == 1


def test_a_misspelt_key_is_not_said_to_be_missing_too_and_hides_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace("  teacher:", "  teachr:"))
    assert "there is no key 'roles.teachr'" in str(caught.value) and "missing" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace("screen:", "costs: {training: 3}\nevaluate: {arms: [se-z, sd-t]}\nscreen:"))
    assert "costs.training" in caught.value.problem and "se-z" in caught.value.problem


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", ["--set train.epoch", "Did you mean 'epochs'"]),
        ("train.epochs=x", ["--set train.epochs"]),
        ("trian.epochs=3", ["--set trian", "Did you mean 'train'"]),
        ("train", ["KEY=VALUE"]),
        ("train[x]=3", ["train[x]"]),
        ("task.path=2024-13-45", ["not YAML"]),
        ("train.epochs=.inf", ["--set train.epochs"]),
        ("task.name.x=1", ["a value, not a section"]),
    ],
)
def test_a_wrong_override_is_named_as_one(tmp_path: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD, override)
    for word in words:
        assert word in str(caught.value)


def test_a_model_of_another_provider_is_not_sent_its_key_to_the_old_address(tmp_path: Path) -> None:
    text = GOOD.replace("model: embedded/solver", "model: hosted_vllm/q\n    api_base: http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="another provider") as caught:
        load(tmp_path, text, "roles.solver.model=openai/gpt-5")
    assert "api_base=null" in caught.value.remedy
    swapped = load(tmp_path, text, "roles.solver.model=openai/gpt-5", "roles.solver.api_base=null")
    assert swapped.roles.solver.api_base is None
    assert load(tmp_path, text, "roles.solver.model=hosted_vllm/r").roles.solver.model == "hosted_vllm/r"
    whole = load(tmp_path, text, "roles.solver={model: openai/m, api_base: 'http://127.0.0.1:2/v1'}")
    assert whole.roles.solver.api_base == "http://127.0.0.1:2/v1"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://me:pw@h/v1", "secrets stand"),
        ("http://h/v1?api_key=x", "secrets stand"),
        ("127.0.0.1:8000/v1", "write an address such as http://"),
        ("localhost", "write an address such as http://"),
    ],
)
def test_an_address_is_whole_and_holds_no_secret(tmp_path: Path, address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, GOOD.replace("embedded/solver", f"openai/x\n    api_base: {address}"))


def test_all_that_does_not_fit_together_is_said_at_once(tmp_path: Path) -> None:
    changes = ["evaluate.recorded={direct: a, cot: b}", "screen.keep_whole=true", "screen.rule=recorded"]
    with pytest.raises(ConfigError, match="5 things don't fit together") as caught:
        load(tmp_path, GOOD, *changes, "evaluate.arms=[sd-r]")
    for said in ("keep_whole needs", "arm direct is called", "arm cot is called", "arm sd-r needs", "recorded needs a"):
        assert said in caught.value.problem, said


def test_an_arm_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="direct is named twice"):
        load(tmp_path, GOOD, "evaluate.arms=[direct, cot, direct]")


def test_an_empty_section_is_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "compile:\n", "compile.optimizer=none").compile.optimizer == "none"
    assert load(tmp_path, GOOD + "train:\n").train.rank == 8


@pytest.mark.parametrize(
    ("roles", "priced"),
    [
        (
            "{teacher: {model: openai/a, price: {input: 1, output: 2}}, solver: {model: openai/b}}",
            [("teacher", "openai/a")],
        ),
        (
            "{teacher: {model: openai/a}, solver: {model: openai/b, price: {input: 1, output: 2}}}",
            [("solver", "openai/b")],
        ),
        (
            "{teacher: {model: openai/a}, solver: {model: embedded/solver, price: {input: 1, output: 2}}}",
            [("solver", "embedded/solver-0123456789ab")],
        ),
        (
            "{teacher: {base: ./a, price: {input: 1, output: 2}}, solver: {model: openai/b}}",
            [("teacher", "embedded/base")],
        ),
        (
            "{teacher: {base: embedded, serve: vllm, price: {input: 1, output: 2}}, solver: {model: openai/b}}",
            [("teacher", "hosted_vllm/HuggingFaceTB/SmolLM2-135M-Instruct")],
        ),
        (
            "{teacher: {model: openai/a}, solver: {base: Org/b, serve: vllm, price: {input: 1, output: 2}}}",
            [("solver", "hosted_vllm/Org/b")],
        ),
        (
            "{teacher: {model: openai/a}, decomposer: {price: {input: 1, output: 2}}, solver: {model: openai/b}}",
            [("decomposer", "embedded/base"), ("decomposer", "hosted_vllm/sd-r-0123456789ab")],
        ),
    ],
)
def test_a_price_is_of_the_model_that_the_file_names(tmp_path: Path, roles: str, priced: list) -> None:
    """A role's calls may be of students that stand in for it, or of a model that an earlier file named."""
    pipeline = load(tmp_path, f"task: {{name: offline, train: 10, test: 5}}\nroles: {roles}\n")
    [role] = {role for role, _ in priced}
    for _, model in priced:
        assert pipeline.price_of(role, model) == {"input": 1.0, "output": 2.0}, model
    others = ["openai/earlier", "embedded/se-a-0123456789ab", "hosted_vllm/se-a-0123456789ab"]
    others += [] if ("teacher", "embedded/base") in priced else ["embedded/base"]
    for model in ("scripted/references", *(others if role != "decomposer" else ())):
        assert pipeline.price_of(role, model) is None, model
    assert pipeline.price_of({"teacher": "solver"}.get(role, "teacher"), "openai/a") is None


def test_missing_binary_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load_pipeline(tmp_path / "nowhere.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_pipeline(tmp_path / "b.yaml")
    with pytest.raises(ConfigError, match="no mapping"):
        load(tmp_path, "- a\n- b\n")
    with pytest.raises(ConfigError, match="no mapping"):
        load(tmp_path, "")


def test_a_saved_pipeline_loads_and_another_folder_is_no_run(tmp_path: Path) -> None:
    pipeline = load(tmp_path, GOOD)
    (tmp_path / "pipeline.json").write_text(pipeline.model_dump_json())
    assert load_saved_pipeline(tmp_path) == pipeline
    with pytest.raises(ConfigError, match="no run folder"):
        load_saved_pipeline(tmp_path / "other")


def test_the_examples_are_valid(root: Path) -> None:
    examples = sorted((root / "examples").glob("*.yaml"))
    assert examples
    for file in examples:
        load_pipeline(file, ["task.path=x.jsonl"] if "gsm8k" in file.name else [])
