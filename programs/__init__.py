"""How the asks become an answer: the two-stage program, its baselines, and what every role of them shares."""

from divcon.programs._adapter import ChatAdapter, CompactAdapter
from divcon.programs._baselines import ChainOfThought, Direct
from divcon.programs._divide import DivideAndConquer, Solving
from divcon.programs._item import Item
from divcon.programs._ledger import Ledger, Usage
from divcon.programs._roles import ReplyCutOff, Role, RolePredict, RoleWithoutEndpoint

__all__ = [
    "ChainOfThought",
    "ChatAdapter",
    "CompactAdapter",
    "Direct",
    "DivideAndConquer",
    "Item",
    "Ledger",
    "ReplyCutOff",
    "Role",
    "RolePredict",
    "RoleWithoutEndpoint",
    "Solving",
    "Usage",
]
