import json
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import dspy
import pytest
from support.openai_server import OpenAIServer, user_text

from divcon.benchmarks import is_right
from divcon.distill import (
    CompileError,
    Destination,
    Job,
    LMBackend,
    NothingToLearn,
    PluginError,
    RunStore,
    ScriptedTeacher,
    Solver,
    StoredEngine,
    Trace,
    collect,
    compile_program,
    export,
    judging,
    role_lm,
    screen,
)
from divcon.distill.training import METHODS
from divcon.programs import DivideAndConquer, Item, RolePredict, SelfAsk
from divcon.signatures import Decompose, Solve, Subquestions, demonstrations


def scripted(items: list[Item], store: RunStore, **faults: float) -> RolePredict:
    engine = StoredEngine(ScriptedTeacher(items, faults), "teacher", "scripted/references", store)
    return RolePredict(Decompose, "teacher", lm=role_lm(engine, temperature=None, max_tokens=None), refuse_cut_off=True)


def served(server: OpenAIServer, store: RunStore, signature, role: str, **more: object) -> RolePredict:
    inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0, **more)
    engine = StoredEngine(LMBackend(inner), role, "openai/m", store)
    return RolePredict(signature, role, lm=role_lm(engine, temperature=None, max_tokens=None), refuse_cut_off=True)


def number_of(body: dict) -> int:
    return int(user_text(body).split("What is ")[1].split()[0])


def test_what_is_there_is_not_asked_again(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(lambda body: f"1. What is case {number_of(body)}?") as server:
        teacher = served(server, store, Decompose, "teacher")
        assert collect(teacher, items[:7], store, "c").asked == 7
        assert collect(teacher, items, store, "c").asked == 20
        assert len(server.requests) == 20
        assert collect(teacher, items, store, "c").failed == 0
        assert len(server.requests) == 20
    assert [t.item for t in store.traces("c")] == [item.id for item in items]


def test_calls_overlap(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(lambda body: "1. What is it?", delay=0.2) as server:
        collect(served(server, store, Decompose, "teacher"), items, store, "c", concurrency=10)
        assert server.busiest >= 5


def test_one_unreadable_reply_among_twenty_is_one_reject_with_its_reason(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)

    def reply(body: dict):
        number = number_of(body)
        return {3: "I refuse.", 4: ("1. How many red", "length")}.get(number, f"1. What is case {number}?")

    with OpenAIServer(reply) as server:
        collect(served(server, store, Decompose, "teacher"), items, store, "c")
    assert {t.item: t.lost for t in store.traces("c") if t.lost} == {"i3": "unreadable", "i4": "cut_off"}
    assert sum(t.subquestions is not None for t in store.traces("c")) == 18


@pytest.mark.parametrize("client", ["auto", "litellm"])
@pytest.mark.parametrize("stream", ["gives", "refuses"])
def test_a_reply_that_didnt_end_by_itself_is_rejected_and_counted_and_no_training_row(
    tmp_path: Path, items: list[Item], client: str, stream: Literal["gives", "refuses"]
) -> None:
    cut = ["length", "max_tokens", "model_length", "MAX_TOKENS"]
    ends = [*cut, "content_filter", "error", "abort", "because"]
    store = RunStore(tmp_path)

    def reply(body: dict):
        number = number_of(body)
        return (f"1. What is case {number}?\n2. What follows?", ends[number] if number < len(ends) else "stop")

    with OpenAIServer(reply, stream=stream) as server:
        teacher = served(server, store, Decompose, "teacher", engine=client)
        teacher.lm("What is 9 ?")  # it shows that the server streams, if it does
        found = collect(teacher, items[:12], store, "c", concurrency=1)
    assert {trace.item: trace.lost for trace in store.traces("c") if trace.lost} == dict.fromkeys(
        ["i0", "i1", "i2", "i3"], "cut_off"
    )
    assert (found.asked, found.failed) == (12, 4)
    assert found.first_error is not None and "content_filter" in found.first_error
    screened = screen("none", list(store.traces("c")), items, store, "s")
    assert screened.lost == {"cut_off": 4}
    made = export(RolePredict(Decompose, "decomposer"), screened, items, Destination(tmp_path / "x.jsonl", "sd-t"))
    assert [int(row.split("What is case ")[1].split("?")[0]) for row in made.file.read_text().splitlines()] == [
        8, 9, 10, 11,
    ]  # fmt: skip


def test_failed_calls_are_no_traces_and_are_asked_again(tmp_path: Path, items: list[Item]) -> None:
    store, broken = RunStore(tmp_path), {5, 6}
    with OpenAIServer(lambda body: 400 if number_of(body) in broken else "1. What is it?") as server:
        teacher = served(server, store, Decompose, "teacher")
        found = collect(teacher, items, store, "c", concurrency=1)
        assert (found.asked, found.failed) == (20, 2)
        assert found.first_error
        broken.clear()
        assert collect(teacher, items, store, "c").failed == 0
        assert len(server.requests) == 22


def test_a_refused_key_stops_at_once(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(lambda body: 401) as server, pytest.raises(dspy.LMError):
        collect(served(server, store, Decompose, "teacher"), items, store, "c", concurrency=1)
    assert len(server.requests) == 1


def test_several_samples_differ_and_are_kept(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(lambda body: f"1. What is case {len(server.requests)}?") as server:
        collect(served(server, store, Decompose, "teacher"), items[:2], store, "c", samples=3, concurrency=1)
    traces = list(store.traces("c"))
    assert [(t.item, t.sample) for t in traces] == [(i, s) for i in ("i0", "i1") for s in range(3)]
    assert len({t.subquestions for t in traces}) == 6


def test_the_scripted_teacher_errs_as_seeded_and_screening_loses_each_fault_by_reason(
    tmp_path: Path, items: list[Item]
) -> None:
    store = RunStore(tmp_path)
    faults = {"missing_step": 0.2, "restated_fact": 0.2, "wrong_order": 0.2, "too_many": 0.1, "cut_off": 0.1}
    script = ScriptedTeacher(items, faults)
    collect(scripted(items, store, **faults), items, store, "c")
    traces = list(store.traces("c"))
    planted = {item.id: script.fault(item, 0) for item in items}
    assert {"missing_step", "restated_fact", "too_many", "cut_off", None} <= set(planted.values())

    def solve(body: dict) -> str:
        """Right exactly where the subquestions are the references."""
        number = number_of(body)
        good = Subquestions(items[number].subquestions).render() in user_text(body)
        return f"1. 0\n2. x\nAnswer: {number if good else 99}"

    with OpenAIServer(solve) as server:
        solver = served(server, store, Solve, "solver")
        found = screen("oracle", traces, items, store, "s", solver=Solver(solver, is_right))
        asked = len(server.requests)
        again = screen("oracle", traces, items, store, "s", solver=Solver(solver, is_right))
        assert len(server.requests) == asked
    assert again == found
    assert {t.item for t in found.kept} == {i for i, fault in planted.items() if fault is None}
    counted = {fault: sum(f == fault for f in planted.values()) for fault in planted.values()}
    assert found.lost == {
        "cut_off": counted["cut_off"],
        "over_long": counted["too_many"],
        "unsolved": sum(counted.get(f, 0) for f in ("missing_step", "restated_fact", "wrong_order")),
    }
    assert len(found.disputed) == found.lost["unsolved"]  # every sample said 99
    plain = screen("none", traces, items, store, "n")
    assert plain.lost == {key: found.lost[key] for key in ("cut_off", "over_long")}


def test_the_scripted_teacher_gives_its_list_one_at_a_time_to_self_ask(tmp_path: Path, items: list[Item]) -> None:
    faults = {"missing_step": 0.4}
    script = ScriptedTeacher(items, faults)
    engine = StoredEngine(ScriptedTeacher(items, faults), "teacher", "scripted/references", RunStore(tmp_path))
    planner = role_lm(engine, temperature=None, max_tokens=None)
    with OpenAIServer(lambda body: "5") as server:
        program = SelfAsk(planner, dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False), max_steps=4)
        for item in items[:8]:
            found = program(question=item.question, context="A passage.")
            spoiled = script.fault(item, 0) == "missing_step"
            assert len(found.subquestions) == len(item.subquestions) - spoiled
            assert set(found.subquestions) <= set(item.subquestions)
            assert found.status == "decomposed"


def test_a_second_solver_sample_can_save_a_trace(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    traces = [Trace("i7", 0, ("What is it?",))]
    with OpenAIServer(lambda body: "s\nAnswer: 7" if len(server.requests) > 1 else "s\nAnswer: 8") as server:
        solver = served(server, store, Solve, "solver")
        once = screen("oracle", traces, items, store, "one", solver=Solver(solver, is_right, samples=1))
        twice = screen("oracle", traces, items, store, "two", solver=Solver(solver, is_right, samples=2))
    assert (len(once.kept), len(twice.kept)) == (0, 1)


def test_no_decomposition_is_lost_as_whole_unless_kept(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    traces = [Trace("i0", 0, ()), Trace("i1", 0, ("What is it?",))]
    assert screen("none", traces, items, store, "a").lost == {"whole": 1}
    assert len(screen("none", traces, items, store, "b", keep_whole=True).kept) == 2


def test_export_is_chat_json_lines_with_one_row_a_decomposition(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    good = Trace("i0", 0, ("What is it?",))
    traces = [
        good,
        Trace("i0", 1, ("What is it?",)),
        Trace("i0", 2, ("What else?",)),
        Trace("i1", 0, None, lost="empty"),
    ]
    screened = screen("none", traces, items, store, "s")
    decompose = RolePredict(Decompose, "decomposer")
    made = export(decompose, screened, items, Destination(tmp_path / "sd-t.jsonl", "sd-t"))
    rows = [json.loads(line) for line in made.file.read_text().splitlines()]
    assert made.rows == len(rows) == 2
    assert rows[0]["prompt"] == decompose.prompt(question=items[0].question)
    assert rows[0]["completion"][0]["content"] == "1. What is it?"
    manifest = json.loads((tmp_path / "sd-t.manifest.json").read_text())
    assert manifest["screening"] == {"collected": 4, "kept": 3, "lost": {"empty": 1}, "failed": 0, "disputed": 0}
    before = made.file.read_bytes()
    assert export(decompose, screened, items, Destination(made.file, "sd-t")).file.read_bytes() == before


def test_nothing_kept_says_what_was_lost(tmp_path: Path, items: list[Item]) -> None:
    screened = screen("none", [Trace("i1", 0, None, lost="empty")], items, RunStore(tmp_path), "s")
    with pytest.raises(NothingToLearn, match="1 empty"):
        export(RolePredict(Decompose, "decomposer"), screened, items, Destination(tmp_path / "x.jsonl", "sd-t"))


def test_a_method_without_a_row_says_so(tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._ours, "picky", SimpleNamespace(rows=lambda role, screened, items: []))
    screened = screen("none", [Trace("i1", 0, ("What is it?",))], items, RunStore(tmp_path), "s")
    to = Destination(tmp_path / "x.jsonl", "sd-t", method="picky")
    with pytest.raises(NothingToLearn, match="picky finds nothing to learn in 1 traces"):
        export(RolePredict(Decompose, "decomposer"), screened, items, to)


def test_an_outage_during_compilation_is_raised_and_not_compiled_in(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(lambda body: 503) as server:
        teacher = served(server, store, Decompose, "teacher").lm
        program = DivideAndConquer(teacher, teacher)
        with pytest.raises(dspy.LMError):
            compile_program(program, "bootstrap", items[:4], is_right)


def test_compiled_demos_are_decompositions_and_the_solver_is_left_alone(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)

    def reply(body: dict) -> str:
        number = number_of(body)
        if "Split" in body["messages"][0]["content"]:
            return f"1. What is case {number}?"
        return f"1. x\nAnswer: {number if number % 2 else 99}"

    with OpenAIServer(reply) as server:
        program = DivideAndConquer(
            served(server, store, Decompose, "teacher").lm, served(server, store, Solve, "solver").lm
        )
        compiled = compile_program(program, "bootstrap", items[:6], is_right)
    assert len(compiled.decompose.demos) == 3
    assert all("subquestions" in demo for demo in compiled.decompose.demos)
    assert compiled.solve.demos == []
    assert program.decompose.demos == demonstrations(Decompose)
    with pytest.raises(CompileError, match="no optimizer"):
        compile_program(program, "NoSuchThing", items, is_right)


def test_subquestions_that_end_in_a_quote_pass_every_station(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    asked = ('Who said "How are you?"', "Why?")
    with OpenAIServer(lambda body: f"1. {asked[0]}\n2. {asked[1]}") as server:
        collect(served(server, store, Decompose, "teacher"), items[:1], store, "c")
    with OpenAIServer(lambda body: "1. a\n2. b\nAnswer: 0") as server:
        solver = served(server, store, Solve, "solver")
        found = screen("oracle", list(store.traces("c")), items, store, "s", solver=Solver(solver, is_right))
    assert [trace.subquestions for trace in found.kept] == [asked]
    assert (
        export(RolePredict(Decompose, "decomposer"), found, items, Destination(tmp_path / "x.jsonl", "sd-r")).rows == 1
    )


class OfOthers:
    """A rule of another package that does what it is told."""

    def __init__(self, given: object) -> None:
        self.given = given

    def judge(self, item: Item, traces: list[Trace], solver: Solver | None) -> object:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], r"Screen mine gave 0 judgements for 1 traces of i1"),
        ([True], r"Screen mine failed on i1: TypeError"),
        (ValueError("boom"), r"Screen mine failed on i1: ValueError: boom"),
    ],
)
def test_what_a_rule_of_others_does_wrong_ends_the_run_and_names_the_rule(
    items: list[Item], given: object, says: str
) -> None:
    work = judging(OfOthers(given), None)
    with pytest.raises(PluginError, match=says):
        work(Job("screen mine", items[1], traces=(Trace("i1", 0, ("a b?",)),)))


def test_the_script_tells_equal_questions_apart_by_their_passages(tmp_path: Path) -> None:
    passages = {"a": "Ann won.", "b": "Ann won. Then Bert won.", "c": None}
    items = [
        Item(id=name, question="Who won it?", answer=name, context=passage, subquestions=(f"Is it {name}?",))
        for name, passage in passages.items()
    ]
    engine = StoredEngine(ScriptedTeacher(items), "teacher", "scripted/references", RunStore(tmp_path))
    ask = RolePredict(Decompose, "decomposer", lm=role_lm(engine, temperature=None, max_tokens=None))
    for item in items:
        assert list(ask(question=item.question, context=item.context).subquestions) == list(item.subquestions)
