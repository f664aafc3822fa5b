"""Screening: which decompositions a student learns from. One file a rule; `divcon.rules` takes those of others."""

from divcon.distill.screening._rule import RULES, Judgement, Rule, well_formed
from divcon.distill.screening._screen import Screened, judging, screen
from divcon.distill.screening._solver import Grade, Solver

__all__ = ["RULES", "Grade", "Judgement", "Rule", "Screened", "Solver", "judging", "screen", "well_formed"]
