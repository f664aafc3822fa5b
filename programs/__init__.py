"""The two-stage program and its baselines, with the adapters, roles and ledger that they share."""

from divcon.programs._adapter import ChatAdapter, CompactAdapter
from divcon.programs._baselines import ChainOfThought, Direct
from divcon.programs._bind import bind
from divcon.programs._divide import DivideAndConquer, Solving, why_refused
from divcon.programs._endpoints import ForeignEndpoint, NotAnEndpoint, RoleWithoutEndpoint
from divcon.programs._item import Item
from divcon.programs._ledger import Ledger
from divcon.programs._meter import Counters, Meter, PriceOf, Usage, UsageWarning, priced, warn_of_counts, whole_number
from divcon.programs._one_role import OneRole
from divcon.programs._prediction import ProgramPrediction
from divcon.programs._roles import NotPickled, ReplyCutOff, RolePredict
from divcon.programs._self_ask import SelfAsk
from divcon.programs._streaming import FieldListener
from divcon.programs._tool import SolvedQuestion, as_tool
from divcon.programs._wording import LEARNT, Wording

__all__ = [
    "LEARNT",
    "ChainOfThought",
    "ChatAdapter",
    "CompactAdapter",
    "Counters",
    "Direct",
    "DivideAndConquer",
    "FieldListener",
    "ForeignEndpoint",
    "Item",
    "Ledger",
    "Meter",
    "NotAnEndpoint",
    "NotPickled",
    "OneRole",
    "PriceOf",
    "ProgramPrediction",
    "ReplyCutOff",
    "RolePredict",
    "RoleWithoutEndpoint",
    "SelfAsk",
    "SolvedQuestion",
    "Solving",
    "Usage",
    "UsageWarning",
    "Wording",
    "as_tool",
    "bind",
    "priced",
    "warn_of_counts",
    "whole_number",
    "why_refused",
]
