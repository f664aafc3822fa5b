"""Self-ask: a question is split as it is solved, one subquestion at a time (Press et al. 2023, arXiv 2210.03350).

It is the dynamic counterpart of `DivideAndConquer`, built for a fair comparison. The decomposer sees the question and
the passage at every step. The same solver answers. The decomposer's reply ends with its first line, so that it pays for
no tokens that would be thrown away.
"""

from __future__ import annotations

import re

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.programs._adapter import CompactAdapter
from divcon.programs._arguments import require_whole_number
from divcon.programs._calls import Calls
from divcon.programs._ledger import Ledger
from divcon.programs._prediction import ProgramPrediction
from divcon.programs._program import RoleProgram
from divcon.programs._wording import Wording, require_wordings
from divcon.signatures import DEFAULT_MAX_SUBQUESTIONS, NOTHING_MORE, FollowUp, SolveStep, Subquestions

_NOTHING = re.escape(NOTHING_MORE[:-1])
_DONE = re.compile(
    rf"(?i)\W*(?:{_NOTHING}|no(?:ne| more| further)?\b[^?]*$|(?:so,? )?(?:the )?(?:final )?answer(?: is\b|\s*:))"
)
_LEAD = re.compile(r"(?i)\A\W*(?:follow[- ]?up|next|subquestion)(?: question)?\s*:\s*|\A\s*(?:\d+[.)]|[-*•])\s+")


class SelfAsk(RoleProgram):
    """Two predictors, `decompose` (which asks the next subquestion) and `solve`, each with an LM of its own.

    The prediction has the fields of `DivideAndConquer`'s. `status` is `decomposed` where a subquestion was asked,
    `whole` where none was needed, and `fell_back` where the first one couldn't be used.

    Args:
        decomposer: The LM that asks.
        solver: The LM that answers.
        max_steps: The largest number of subquestions. After them, the question itself is asked.
        stop: Send a stop string, so that the server ends the decomposer's reply after its first line. Only the first
            line of a reply counts in any case. A model may begin with a blank line, or think first; the call is then
            made again without the stop string. It works with `CompactAdapter` alone. Set it to False for models that
            take no stop strings, such as OpenAI's reasoning models.
        reask: How often the solver is asked again, for the answer alone, where its reply can't be read: 0 or 1.
        decomposer_wording: How the decomposer is asked, where it isn't an untrained model.
        solver_wording: The same for the solver.
        adapter: The adapter both predictors pin; `CompactAdapter` by default.

    Raises:
        NotAnEndpoint: `decomposer` or `solver` is no LM.
        UnusableArgument: Another argument can't be used.
    """

    def __init__(
        self,
        decomposer: dspy.BaseLM | None = None,
        solver: dspy.BaseLM | None = None,
        *,
        max_steps: int = DEFAULT_MAX_SUBQUESTIONS,
        stop: bool = True,
        reask: int = 1,
        decomposer_wording: Wording | None = None,
        solver_wording: Wording | None = None,
        adapter: dspy.Adapter | None = None,
    ) -> None:
        super().__init__()
        require_whole_number("max_steps", max_steps, least=1)
        require_wordings(decomposer_wording, solver_wording)
        self.max_steps = max_steps
        self.stop = stop
        planner, worded = decomposer_wording or Wording(), solver_wording or Wording()
        self.decompose = planner.predictor(FollowUp, "decomposer", decomposer, adapter)
        self.solve = worded.predictor(SolveStep, "solver", solver, adapter, reask=reask)

    def _calls(self, question: str, context: str | None, ledger: Ledger) -> Calls:
        about = {"question": question, "context": context}
        asked: list[str] = []
        steps: list[str] = []
        reason = None
        # Other adapters write a marker on the reply's first line.
        stop = self.stop and isinstance(self.decompose.adapter, CompactAdapter)
        while len(asked) < self.max_steps:
            config = {"config": {"stop": ["\n"]}} if stop else {}
            try:
                [split] = yield [(self.decompose, {**about, "steps": _lines(steps), **config})]
                text = _LEAD.sub("", next(iter(split.follow_up.strip().splitlines()), "")).strip()
            except AdapterParseError:
                text = None
            if not text and stop:
                stop = False
                continue
            if text is None:
                reason = "unreadable"
                break
            if not text or _DONE.match(text):
                break
            if text.casefold() in {before.casefold() for before in (*asked, question)}:
                reason = "duplicate" if not asked else None  # the decomposer repeats itself; the steps so far count
                break
            [step] = yield [(self.solve, {**about, "steps": _lines(steps), "subquestion": text})]
            asked.append(text)
            steps.append(f"{len(asked)}. {text} {step.sub_answer}")
        [solved] = yield [(self.solve, {**about, "steps": _lines(steps), "subquestion": question})]
        return ProgramPrediction(
            subquestions=Subquestions(asked),
            sub_answers="\n".join(steps),
            status="decomposed" if asked else "fell_back" if reason else "whole",
            reason=reason if not asked else None,
            read_by=solved.get("read_by"),
            usage=ledger.as_dict(),
            answer=solved.sub_answer,
        )


def _lines(steps: list[str]) -> str | None:
    return "\n".join(steps) or None
