"""Why a server died, read from its log."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PORT = r"Address already in use|Errno 98"
_MEMORY = r"out of memory|not enough memory|MemoryError|Cannot allocate memory|DefaultCPUAllocator"
_ARGUMENT = r"unrecognized arguments?|invalid choice|expected one argument|error: argument"
_MODULE = r"No module named"

# What a Python program prints of the error it ends with; the first is the cause, later ones are what came of it.
_RAISED = re.compile(r"^(?:\([^)]*\) )?(?:ERROR .*?\] )?(\w*(?:Error|Exception): .+)$", re.MULTILINE)
_KILLED = 137  # a shell's exit status for SIGKILL


@dataclass(frozen=True)
class Causes:
    """What makes the servers of one software end by themselves.

    Attributes:
        title: The software, as messages call it.
        memory: What to do where memory runs out.
        memory_signs: A regular expression for what its log says then, besides what every Python program does.
    """

    title: str
    memory: str = "Free some memory, or take a smaller base."
    memory_signs: str = ""

    def explain(self, name: str, status: int | None, log: str) -> tuple[str, str]:
        """How a server ended, and what to do; the remedy is empty where the cause isn't known.

        Args:
            name: What the server is called.
            status: The exit status of its process.
            log: What it has written.
        """
        raised = _RAISED.search(log)
        said = f": {raised[1][:300]}" if raised else ""
        memory = f"(?i:{_MEMORY}|{self.memory_signs})" if self.memory_signs else f"(?i:{_MEMORY})"
        # The first that is found counts.
        known = (
            (_PORT, "its port was taken", "Leave the port out, or name a free one."),
            (memory, "it ran out of memory", self.memory),
            (
                _ARGUMENT,
                "it doesn't take one of its arguments",
                "Correct the role's server.arguments, or what stands after '--'.",
            ),
            (
                _MODULE,
                "a module is missing in its environment",
                f"Name the Python that {self.title} is installed for.",
            ),
        )
        for sign, why, remedy in known:
            if re.search(sign, log):
                return f"{name} ended by itself: {why}{said}", remedy
        if status == _KILLED:
            problem = f"{name} was killed (exit status {status}), as the kernel does where memory runs out"
            return problem, self.memory
        return f"{name} ended by itself (exit status {status}){said}", ""


def port_was_taken(log: str) -> bool:
    """Whether a server says that somebody else has its port."""
    return re.search(_PORT, log) is not None
