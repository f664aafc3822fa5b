"""Bind: give the roles of a program their LMs."""

from __future__ import annotations

import dspy

from divcon.programs._arguments import require_program
from divcon.programs._endpoints import require_endpoint
from divcon.programs._roles import RolePredict
from divcon.signatures import UnusableArgument


def bind(program: dspy.Module, **lms: dspy.BaseLM) -> dspy.Module:
    """Give every role of a program its LM. Call it after `program.load`, which loads none.

    Args:
        program: Any program with `RolePredict`s in it; changed in place.
        lms: The LMs by role: `decomposer=...`, `solver=...`.

    Returns:
        The program.

    Raises:
        RoleWithoutEndpoint: A role of the program gets no LM and has none.
        ForeignEndpoint: A trained role was given an LM that doesn't serve its adapter.
        NotAnEndpoint: A role was given something that is no LM.
        UnusableArgument: A role is named that the program doesn't have, or `program` is none.
    """
    require_program(program)
    roles = [module for _, module in program.named_sub_modules(RolePredict)]
    unknown = sorted(set(lms) - {role.role for role in roles})
    if unknown:
        known = ", ".join(sorted({role.role for role in roles})) or "none"
        raise UnusableArgument(
            f"The program has no role {', '.join(unknown)}; it has {known}.",
            "Name its own: bind(program, solver=lm).",
        )
    for role in roles:  # all checks come first, so that no program is bound in part
        require_endpoint(role.role, lms.get(role.role, role.lm), role.trained)
    for role in roles:
        role.lm = lms.get(role.role, role.lm)
    return program
