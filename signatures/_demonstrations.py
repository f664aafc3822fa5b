"""Few-shot demonstrations for untrained models, by signature.

Their questions resemble no benchmark's; they show the form of a reply. Solvers that write steps have none (`_asks` says
why).
"""

from __future__ import annotations

from typing import Any

import dspy

from divcon.signatures._asks import NOTHING_MORE, Answer, Decompose, FollowUp, SolveDirect
from divcon.signatures._subquestions import Subquestions

_RIVERS = "Is the river that flows through Vienna longer than the one that flows through Paris?"
_MUSEUM = (
    "A train leaves at 9:40 and takes 95 minutes. Will Mia, who needs 20 minutes from the station, be at the museum "
    "before it opens at 11:30?"
)
_RICE = "A recipe for 4 people takes 300 g of rice. Is a bag of 1 kg enough for 12 people?"
_SPLITS = {
    _RIVERS: (
        "Which river flows through Vienna, and how long is it?",
        "Which river flows through Paris, and how long is it?",
        "Which of the two is longer?",
    ),
    _MUSEUM: ("When does the train arrive?", "When is Mia at the museum?", "Is that before 11:30?"),
    _RICE: (
        "How much rice does the recipe take for one person?",
        "How much rice do 12 people need?",
        "Is that at most 1 kg?",
    ),
}
_ANSWERS = {
    "In which month does autumn begin in Rome?": "September",
    "What is the plural of mouse?": "mice",
    "A film begins at 19:45 and lasts 90 minutes. When does it end?": "21:15",
}
_SHOWN: dict[type[dspy.Signature], list[dict[str, Any]]] = {
    Decompose: [{"question": asked, "subquestions": Subquestions(split)} for asked, split in _SPLITS.items()],
    Answer: [{"question": asked, "answer": answer} for asked, answer in _ANSWERS.items()],
    SolveDirect: [
        {"question": _RICE, "subquestions": Subquestions(_SPLITS[_RICE]), "answer": "yes"},
        {"question": _MUSEUM, "subquestions": Subquestions(_SPLITS[_MUSEUM]), "answer": "no"},
    ],
    FollowUp: [
        {"question": _RICE, "steps": None, "follow_up": _SPLITS[_RICE][0]},
        {"question": _RICE, "steps": f"1. {_SPLITS[_RICE][0]} 75 g", "follow_up": _SPLITS[_RICE][1]},
        {
            "question": _RICE,
            "steps": f"1. {_SPLITS[_RICE][0]} 75 g\n2. {_SPLITS[_RICE][1]} 900 g",
            "follow_up": NOTHING_MORE,
        },
    ],
}


def demonstrations(signature: type[dspy.Signature], max_subquestions: int | None = None) -> list[dspy.Example]:
    """The demonstrations that ship for a signature; most signatures have none.

    Args:
        signature: A signature of this package, with any instruction.
        max_subquestions: Leave out demonstrations that split a question into more subquestions.
    """
    fields = tuple(signature.fields)  # a signature with another instruction has another name
    return [
        dspy.Example(**demo)
        for asked, shown in _SHOWN.items()
        if tuple(asked.fields) == fields
        for demo in shown
        if max_subquestions is None or len(demo.get("subquestions", ())) <= max_subquestions
    ]
