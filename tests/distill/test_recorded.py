"""The recorded teacher, and the rule that screens by what was recorded."""

from dataclasses import replace
from pathlib import Path

import pytest

from divcon.distill import (
    Budget,
    Limits,
    ManifestError,
    Plan,
    RecordedTeacher,
    RunStore,
    StoredEngine,
    collect,
    find_student,
    read_manifest,
    role_lm,
    screen,
)
from divcon.distill._manifest import Manifest
from divcon.distill.screening._recorded import UnknownOutcome
from divcon.distill.serving.embedded import solver_adapter
from divcon.programs import Item, Ledger, RolePredict, SelfAsk
from divcon.signatures import Decompose


def teacher(items: list[Item], plans: dict[str, Plan | list[Plan]], store: RunStore, **priced: float) -> RolePredict:
    several = {name: plan if isinstance(plan, list) else [plan] for name, plan in plans.items()}
    backend = RecordedTeacher(items, several, "gpt-5")
    engine = StoredEngine(backend, "teacher", "recorded/gpt-5", store, priced or None, accepts_empty=True)
    return RolePredict(Decompose, "teacher", lm=role_lm(engine, temperature=None, max_tokens=None))


def test_the_plans_are_collected_as_they_stand_and_refused_ones_are_lost_with_their_text(
    tmp_path: Path, items: list[Item]
) -> None:
    store = RunStore(tmp_path)
    plans = {
        "i0": Plan("Q1: What is a?\nQ2: What is b?"),
        "i1": Plan("1. What is a?\n2. What is a?\n3. What is a?"),
        "i2": Plan(""),
        "i3": Plan("No decomposition."),
    }
    found = collect(teacher(items, plans, store), items[:5], store, "c")
    traces = {trace.item: trace for trace in store.traces("c")}
    assert traces["i0"].subquestions == ("What is a?", "What is b?")
    assert (traces["i1"].lost, traces["i1"].reply) == ("duplicate", plans["i1"].text)
    assert (traces["i2"].lost, traces["i2"].reply) == ("unreadable", "")
    assert traces["i3"].subquestions == ()
    assert found.failed == 1 and "no recorded plan of gpt-5 for the question 'What is 4" in str(found.first_error)


def test_usage_is_unknown_unless_the_file_has_it(tmp_path: Path, items: list[Item]) -> None:
    plans = {"i0": Plan("1. What is it?"), "i1": Plan("1. What is it?", 100, 10)}
    asks = teacher(items, plans, RunStore(tmp_path), input=1.0, output=2.0)
    with Ledger() as unknown:
        asks(question=items[0].question)
    with Ledger() as known:
        asks(question=items[1].question)
    assert unknown.as_dict()["teacher"] | {"cost": None, "unknown_calls": 1} == unknown.as_dict()["teacher"]
    assert known.as_dict()["teacher"]["cost"] == pytest.approx(120 / 1e6)


def test_questions_that_are_equal_are_told_apart_by_their_passages(tmp_path: Path) -> None:
    items = [Item(str(n), "Who won?", "x", context=f"Passage {n}.") for n in range(2)]
    asks = teacher(items, {str(n): Plan(f"1. Who is it {n}?") for n in range(2)}, RunStore(tmp_path))
    said = [list(asks(question=item.question, context=item.context).subquestions) for item in items]
    assert said == [["Who is it 0?"], ["Who is it 1?"]]


def test_self_ask_gets_a_clear_error(tmp_path: Path, items: list[Item]) -> None:
    lm = teacher(items, {"i0": Plan("1. What?")}, RunStore(tmp_path)).lm
    with pytest.raises(Exception, match="Leave self-ask out of the arms"):
        SelfAsk(lm, lm)(question=items[0].question)


def test_recorded_plans_are_no_part_of_a_budget(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    store.budget = Budget(Limits(calls=1, tokens=1), {}, store, unpaid=["teacher"])
    plans = {item.id: Plan(f"1. What is {item.id}?", 1000, 10) for item in items}
    assert collect(teacher(items, plans, store), items, store, "c").failed == 0
    store.budget = Budget(Limits(calls=1), {}, store, unpaid=["teacher"])
    store.budget.check("collect")


def test_the_rule_keeps_what_was_right_and_asks_nobody(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    judged = [replace(item, plans_right=(int(item.id[1:]) % 3 > 0,)) for item in items]
    collect(teacher(items, {item.id: Plan(f"1. What is {item.id}?") for item in items}, store), judged, store, "c")
    found = screen("recorded", list(store.traces("c")), judged, store, "v")
    assert [trace.item for trace in found.kept] == [f"i{n}" for n in range(20) if n % 3]
    assert found.counts()["lost"] == {"unsolved": 7}
    with pytest.raises(UnknownOutcome, match="needs the outcome of i"):
        screen("recorded", list(store.traces("c")), items, store, "other")


def test_several_plans_of_a_question_are_its_samples_and_judged_one_by_one(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    outcomes: list[tuple[bool | None, ...]] = [(True, False, True), (False, True), (True,)]
    asked = [replace(item, plans_right=right) for item, right in zip(items, outcomes, strict=False)]
    plans = {item.id: [Plan(f"1. Which {n}?") for n in range(len(item.plans_right))] for item in asked}
    assert collect(teacher(items, plans, store), asked, store, "c", samples=2).asked == 5
    traces = list(store.traces("c"))
    assert [(trace.item, trace.sample, trace.subquestions) for trace in traces] == [
        (item, n, (f"Which {n}?",)) for item, n in (("i0", 0), ("i0", 1), ("i1", 0), ("i1", 1), ("i2", 0))
    ]
    kept = screen("recorded", traces, asked, store, "v").kept
    assert [(trace.item, trace.sample) for trace in kept] == [("i0", 0), ("i1", 1), ("i2", 0)]


def test_its_student_has_a_name_of_its_own() -> None:
    student = find_student("sd-rec")
    assert student is not None
    assert (student.rule, student.label) == ("recorded", "SD-R by the recorded outcome")
    assert not student.screened_by_solver


def test_manifests_that_only_knew_scripts_are_read(tmp_path: Path) -> None:
    manifest = read_manifest(solver_adapter())
    assert manifest.teacher is not None and manifest.teacher.kind == "scripted"
    written = manifest.model_dump(exclude={"teacher"})
    assert Manifest.model_validate({**written, "scripted_teacher": False}).teacher is None
    manifest.write(tmp_path)
    with pytest.raises(ManifestError, match="damaged"):
        read_manifest(tmp_path)
    assert Manifest.model_validate_json((tmp_path / "manifest.json").read_text()) == manifest
