"""Arms: the programs that are compared. Packages add arms under the entry point `divcon.arms`."""

from divcon.benchmarks.arms._kind import ArmKind, Built, Parts, Planner
from divcon.benchmarks.arms._ours import (
    CHAIN_OF_THOUGHT,
    DIRECT,
    REFERENCES,
    SELF_ASK,
    TEACHER,
    UNTUNED,
    UNTUNED_SOLVES,
    arm_of,
)
from divcon.benchmarks.arms._table import ARMS, WAYS, letters_of, own_arms, read_arm

__all__ = [
    "ARMS",
    "CHAIN_OF_THOUGHT",
    "DIRECT",
    "REFERENCES",
    "SELF_ASK",
    "TEACHER",
    "UNTUNED",
    "UNTUNED_SOLVES",
    "WAYS",
    "ArmKind",
    "Built",
    "Parts",
    "Planner",
    "arm_of",
    "letters_of",
    "own_arms",
    "read_arm",
]
