"""Serving: the engines that answer for a base and its trained adapters, and the table in which others are added."""

from divcon.distill.serving._engine import ENGINES, Engine, Finding, Level, ServedBase, ServingOptions
from divcon.distill.serving._one_at_a_time import OneAtATime, TurnBackend
from divcon.distill.serving._settings import AdapterMode, AnyServerSettings, require_address

__all__ = [
    "ENGINES",
    "AdapterMode",
    "AnyServerSettings",
    "Engine",
    "Finding",
    "Level",
    "OneAtATime",
    "ServedBase",
    "ServingOptions",
    "TurnBackend",
    "require_address",
]
