"""Rebinding: replace the LMs of a program by stored ones, and its planner by another predictor."""

from __future__ import annotations

import os
from typing import Any

import dspy
from dspy.clients.backend_selection import CLIENT_KEYS

from divcon.distill._engine import StoredEngine, role_lm
from divcon.distill._http import LMBackend
from divcon.distill._provider import EmbeddedEngine
from divcon.distill._store import RunStore, fingerprint
from divcon.programs import Meter, RolePredict
from divcon.signatures import DivconError

StoredLMs = dict[tuple[int, str], dspy.BaseLM]  # by original LM and role


class DistillationError(DivconError):
    """A student can't be distilled from this program, these examples or this teacher."""


def behind_store(given: dspy.Module, planner: str, store: RunStore, stored: StoredLMs) -> dspy.Module:
    """A copy of the program in which every LM goes through the store; predictors of a role share an LM's stored one."""
    program: dspy.Module = given.deepcopy()
    originals = dict(given.named_predictors())
    for name, predictor in program.named_predictors():
        lm = originals[name].lm or dspy.settings.lm
        if lm is None:
            raise DistillationError(
                f"The predictor '{name}' has no LM.", "Set it, or pass teacher=dspy.LM(...) for the planner."
            )
        if not isinstance(lm, dspy.BaseLM):
            raise DistillationError(
                f"The predictor '{name}' has a {type(lm).__name__} for its LM.", "Set it to dspy.LM('provider/model')."
            )
        role = "teacher" if name == planner else name
        if (id(lm), role) not in stored:
            stored[id(lm), role] = stored_lm(lm, role, store)
        predictor.lm = stored[id(lm), role]
    return program


def with_planner(program: dspy.Module, planner: str, role: RolePredict) -> dspy.Module:
    """The program with its planner replaced by `role`, under all names that the planner has."""
    if planner == "self":  # the program is the planner
        return role
    _replace(program, dict(program.named_predictors())[planner], role, set())
    return program


def stored_lm(lm: dspy.BaseLM, role: str, store: RunStore) -> dspy.BaseLM:
    own = getattr(lm, "engine", None)
    if isinstance(own, StoredEngine):
        return lm  # the LM of a run, whose own store keeps its replies
    state = getattr(own, "dump_state", None)
    where: Any = lm.kwargs.get("api_base") or lm.kwargs.get("base_url") or (state() if state else None)
    if isinstance(own, EmbeddedEngine):
        where = own.model.base.revision
    elif where is None:  # the provider's client reads the address from the environment
        where = os.environ.get(f"{lm.model.partition('/')[0].upper()}_API_BASE")
    asked = {key: value for key, value in lm.kwargs.items() if key not in CLIENT_KEYS}
    limit = asked.pop("max_completion_tokens", None)
    asked.setdefault("max_tokens", limit)
    asked.setdefault("temperature", None)
    backend, meter = LMBackend(lm.copy(cache=False)), getattr(lm, "divcon_meter", Meter())
    engine = StoredEngine(backend, role, lm.model, store, price=meter.price, identity=fingerprint(lm.model, where))
    return role_lm(engine, **asked)


def _replace(node: Any, old: Any, new: Any, seen: set[int]) -> Any:
    """Replace `old` by `new` in a module, its sub-modules, lists and dicts; returns what replaces `node`."""
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
