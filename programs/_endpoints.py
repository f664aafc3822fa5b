"""Endpoints: the LM that answers for a role, and the errors where it has none or a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from divcon.signatures import DivconError


class RoleWithoutEndpoint(DivconError):
    """A role's predictor was called before it was given an LM."""


class NotAnEndpoint(DivconError, TypeError):
    """A role was given something else than an LM, such as a model's name."""


class ForeignEndpoint(DivconError):
    """A trained role was given an LM that doesn't serve what it was trained as."""


def require_lm(role: str, lm: Any) -> None:
    """Refuse what is no LM. None passes: a role may get its LM later.

    Raises:
        NotAnEndpoint: It is something else.
    """
    if lm is None or isinstance(lm, dspy.BaseLM):
        return
    if isinstance(lm, str):
        raise NotAnEndpoint(f"The {role} is the text '{lm}', and no LM.", f"Pass {role}=dspy.LM('{lm}').")
    raise NotAnEndpoint(f"The {role} is a {type(lm).__name__}, and no LM.", f"Pass {role}=dspy.LM('provider/model').")


def require_endpoint(role: str, lm: Any, trained: Mapping[str, str] | None) -> None:
    """Refuse an LM that a role can't be called with; see `RolePredict.require_endpoint`."""
    require_lm(role, lm)
    if lm is None:
        raise RoleWithoutEndpoint(
            f"The {role} has no endpoint.",
            f"Pass {role}=dspy.LM(...) to the program, or name the role in the pipeline file.",
        )
    if trained:
        require_served(role, trained, lm)


def require_served(role: str, trained: Mapping[str, str], lm: Any) -> None:
    """Refuse an LM for a trained role, unless its name is the one that the role's adapter is served under.

    Raises:
        ForeignEndpoint: It serves something else.
    """
    served = str(getattr(lm, "model", "")).rpartition("/")[2]
    if served != trained["served"]:
        raise ForeignEndpoint(
            f"The {role} was trained as {trained['served']}, and the LM given for it serves {served or 'nothing'}.",
            f"Serve {trained['served']} and bind that, or set program.{role}.trained = None to leave the student.",
        )


def shown_endpoint(lm: Any, trained: Mapping[str, str] | None) -> str:
    """An endpoint in words: the model's name, whether it is a trained student, or that there is none."""
    if lm is None:
        return f"no LM yet, trained as {trained['served']}" if trained else "no LM yet"
    name = str(getattr(lm, "model", type(lm).__name__))
    return f"{name} (trained)" if trained else name
