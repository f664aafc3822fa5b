"""Screening: which decompositions a student learns from. Packages add rules under the entry point `divcon.rules`."""

from divcon.distill.screening._rule import RECORDED, RULES, Judgement, Rule, well_formed
from divcon.distill.screening._screen import Screened, judging, screen
from divcon.distill.screening._solver import Grade, Solver

__all__ = ["RECORDED", "RULES", "Grade", "Judgement", "Rule", "Screened", "Solver", "judging", "screen", "well_formed"]
