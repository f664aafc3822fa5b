"""A program with other LMs and another planner in it: behind a store, recorded, or on a student."""

from __future__ import annotations

import os
from typing import Any

import dspy
from dspy.clients.backend_selection import CLIENT_KEYS

from divcon.distill._engine import StoredEngine, role_lm
from divcon.distill._http import LMBackend
from divcon.distill._provider import EmbeddedEngine
from divcon.distill._store import RunStore, fingerprint
from divcon.programs import RolePredict
from divcon.signatures import DivconError

StoredLMs = dict[tuple[int, str], dspy.BaseLM]  # by original LM and role


class DistillationError(DivconError):
    """The program, the examples or the teacher can't give a student."""


def behind_store(given: dspy.Module, planner: str, store: RunStore, stored: StoredLMs) -> dspy.Module:
    """A copy of the program with every LM behind the store; equal LMs of a predictor share what is in flight."""
    program: dspy.Module = given.deepcopy()
    originals = dict(given.named_predictors())
    for name, predictor in program.named_predictors():
        lm = originals[name].lm or dspy.settings.lm
        if lm is None:
            raise DistillationError(
                f"The predictor '{name}' has no LM.", "Set it, or pass teacher=dspy.LM(...) for the planner."
            )
        role = "teacher" if name == planner else name
        if (id(lm), role) not in stored:
            stored[id(lm), role] = stored_lm(lm, role, store)
        predictor.lm = stored[id(lm), role]
    return program


def with_planner(program: dspy.Module, planner: str, role: RolePredict) -> dspy.Module:
    """The program with `role` wherever its planner was, under all its names."""
    if planner == "self":  # the program is the planner
        return role
    _replace(program, dict(program.named_predictors())[planner], role, set())
    return program


def stored_lm(lm: dspy.BaseLM, role: str, store: RunStore) -> dspy.BaseLM:
    own = getattr(lm, "engine", None)
    if isinstance(own, StoredEngine):
        return lm  # of a run, whose store keeps its replies
    state = getattr(own, "dump_state", None)
    where: Any = lm.kwargs.get("api_base") or lm.kwargs.get("base_url") or (state() if state else None)
    if isinstance(own, EmbeddedEngine):
        where = own.model.base.revision
    elif where is None:  # the environment decides
        where = os.environ.get(f"{lm.model.partition('/')[0].upper()}_API_BASE")
    asked = {key: value for key, value in lm.kwargs.items() if key not in CLIENT_KEYS}
    limit = asked.pop("max_completion_tokens", None)
    asked.setdefault("max_tokens", limit)
    asked.setdefault("temperature", None)
    engine = StoredEngine(
        LMBackend(lm.copy(cache=False)), role, lm.model, store,
        price=getattr(lm, "divcon_price", None), identity=fingerprint(lm.model, where),
    )  # fmt: skip
    return role_lm(engine, **asked)


def _replace(node: Any, old: Any, new: Any, seen: set[int]) -> Any:
    """Put `new` for `old` in a module, its sub-modules, lists and dicts; gives back what stands for `node`."""
    if node is old:
        return new
    if id(node) in seen:
        return node
    seen.add(id(node))
    if isinstance(node, dspy.Module):
        for name, value in list(vars(node).items()):
            if (put := _replace(value, old, new, seen)) is not value:
                setattr(node, name, put)
    elif isinstance(node, list):
        node[:] = [_replace(value, old, new, seen) for value in node]
    elif isinstance(node, dict):
        node.update({key: _replace(value, old, new, seen) for key, value in node.items()})
    elif type(node) is tuple:
        put = tuple(_replace(value, old, new, seen) for value in node)
        return put if any(a is not b for a, b in zip(put, node, strict=True)) else node
    return node
