"""The two-stage program and its baselines, with the adapters, roles and ledger that they share."""

from divcon.programs._adapter import ChatAdapter, CompactAdapter
from divcon.programs._baselines import ChainOfThought, Direct, solver_role
from divcon.programs._divide import DivideAndConquer, Solving, why_refused
from divcon.programs._item import Item
from divcon.programs._ledger import Ledger, Usage, cost_of
from divcon.programs._one_role import OneRole
from divcon.programs._roles import (
    LEARNT,
    ForeignEndpoint,
    NotPickled,
    ReplyCutOff,
    RolePredict,
    RoleWithoutEndpoint,
    Wording,
    bind,
)
from divcon.programs._self_ask import SelfAsk
from divcon.programs._streaming import FieldListener
from divcon.programs._tool import SolvedQuestion, as_tool

__all__ = [
    "LEARNT",
    "ChainOfThought",
    "ChatAdapter",
    "CompactAdapter",
    "Direct",
    "DivideAndConquer",
    "FieldListener",
    "ForeignEndpoint",
    "Item",
    "Ledger",
    "NotPickled",
    "OneRole",
    "ReplyCutOff",
    "RolePredict",
    "RoleWithoutEndpoint",
    "SelfAsk",
    "SolvedQuestion",
    "Solving",
    "Usage",
    "Wording",
    "as_tool",
    "bind",
    "cost_of",
    "solver_role",
    "why_refused",
]
