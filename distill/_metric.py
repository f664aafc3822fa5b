"""The metric for every DSPy optimizer: it scores answers, and tells the decomposer how the solver used its list."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import dspy

from divcon.programs._arguments import require_callable
from divcon.signatures import Subquestions

Right = Callable[[dspy.Example, str], bool]

_LINE = re.compile(r"^\W*(\d{1,2})\s*[.):]\s*(.*)$")
_UNANSWERABLE = re.compile(
    r"""(?ix) \b(?:
        unknown | unclear | unanswerable | not\ (?:enough|given|known|stated|mentioned|specified|provided|possible)
      | (?:can(?:no|')t|cannot)\ (?:be\ )?(?:answer|determine|tell|say|know)\w*
      | no\ (?:information|answer|way\ to) | (?:don't|do\ not)\ know | does(?:n't|\ not)\ (?:say|state|mention)
    )\b"""
)
_ALIKE = 0.5  # A subquestion and a reference with at least this ROUGE-L ask the same. Paraphrases lie above it.


class DecompositionMetric:
    """Scores a prediction of `DivideAndConquer`, and explains the score to GEPA.

    - Called as (gold, prediction), it returns the accuracy, 1.0 or 0.0.
    - Called with a trace, as by optimizers that look for demonstrations, it returns whether the answer is right and
      the question was decomposed: an undecomposed question is no demonstration.
    - Called with a predictor's name, as by GEPA, it returns the accuracy with a feedback text.

    Args:
        right: Takes (example, answer), and says whether the answer is right.

    Raises:
        UnusableArgument: `right` can't be called.

    Examples:
        >>> metric = DecompositionMetric(lambda example, answer: answer == example.answer)
        >>> metric(dspy.Example(answer="10"), dspy.Prediction(answer="10", status="whole"))
        1.0
    """

    def __init__(self, right: Right) -> None:
        require_callable("right", right, "lambda example, answer: answer == example.answer")
        self.right = right

    def __call__(
        self,
        gold: dspy.Example,
        pred: dspy.Prediction,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        right = bool(self.right(gold, _answer(pred)))
        if pred_name is None:
            return float(right) if trace is None else right and pred.get("status") == "decomposed"
        from dspy.teleprompt.gepa.gepa_utils import ScoreWithFeedback  # imports gepa, which few need

        return ScoreWithFeedback(score=float(right), feedback=self.feedback(gold, pred, pred_name))

    def feedback(self, gold: dspy.Example, pred: dspy.Prediction, pred_name: str = "decompose") -> str:
        """The feedback for the predictor `pred_name` on this prediction.

        It tells the decomposer which subquestions the solver couldn't answer, which misled the solver, and which were
        missing. The missing ones are taken from `reference_subquestions` in the example. Without these, the first line
        that the solver added is named.
        """
        answer = _answer(pred)
        right = self.right(gold, answer)
        verdict = f"The answer '{answer}' is {'right' if right else 'wrong'}"
        verdict += "." if right else f"; it should be '{gold.get('answer')}'."
        if not pred_name.rpartition(".")[2].startswith("decompose"):
            return verdict
        status = pred.get("status")
        if status == "salvaged":
            why = "repeats itself" if pred.get("reason") == "duplicate" else "was cut off"
            verdict = f"Your list {why}, and only what stands whole in it was used. {verdict}"
        if status == "fell_back":
            return (
                f"Your reply was no usable list ({pred.get('reason')}), so the question went to the solver whole. "
                f"{verdict} Write one subquestion a line, numbered, and nothing else."
            )
        if status == "whole":
            return f"You wrote that no split helps, so the question went to the solver whole. {verdict}"
        notes = self._notes(gold, pred, right)
        if not notes:
            notes = ["Every subquestion was answered" + ("." if right else ", so the list asks for the wrong things.")]
        return " ".join([verdict, *notes])

    def _notes(self, gold: dspy.Example, pred: dspy.Prediction, right: bool) -> list[str]:
        asked = list(pred.get("subquestions") or Subquestions())
        said = _by_number(str(pred.get("sub_answers") or ""))
        references = list(gold.get("reference_subquestions") or [])
        truths = list(gold.get("reference_sub_answers") or [])
        notes = []
        for number, subquestion in enumerate(asked, 1):
            reply = said.get(number, "").replace(subquestion, "").strip()
            shown = f"Subquestion {number} ('{subquestion}')"
            like = _most_alike(subquestion, references)
            if not reply:
                notes.append(f"{shown} was unanswerable: the solver skipped it.")
            elif _UNANSWERABLE.search(reply):
                notes.append(f"{shown} was unanswerable: the solver wrote '{reply}'.")
            elif not right and like is not None and like < len(truths) and not _holds(reply, truths[like]):
                notes.append(f"{shown} was misleading: the solver wrote '{reply}', where '{truths[like]}' is true.")
            elif not right and references and like is None:
                notes.append(f"{shown} was misleading: it asks for nothing that the answer needs.")
        if not right:
            meant = {_most_alike(subquestion, references) for subquestion in asked}
            missing = [reference for i, reference in enumerate(references) if i not in meant]
            notes += [f"Missing: nothing asks '{reference}'." for reference in missing]
            added = [text for number, text in sorted(said.items()) if number > len(asked) and text]
            if added and not references:
                notes.append(f"Missing: the solver had to add '{added[0]}'.")
        return notes


def _answer(pred: dspy.Prediction) -> str:
    answer = pred.get("answer")
    return "" if answer is None else str(answer)


def _by_number(text: str) -> dict[int, str]:
    """The solver's lines by number; a line without a number gets the next one."""
    found: dict[int, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _LINE.match(line)
        number = int(match[1]) if match else max(found, default=0) + 1
        found.setdefault(number, (match[2] if match else line).strip())
    return found


def _most_alike(question: str, references: Sequence[str]) -> int | None:
    """The index of the reference that asks the same as `question`, or None."""
    from rouge_score import rouge_scorer  # it loads nltk and scipy, in a second or more

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    scores = [scorer.score(reference, question)["rougeL"].fmeasure for reference in references]
    best = max(range(len(scores)), key=scores.__getitem__, default=None)
    return best if best is not None and scores[best] >= _ALIKE else None


def _holds(reply: str, truth: str) -> bool:
    """Whether a solver's line contains a sub-answer as whole words."""
    return re.search(rf"(?<!\w){re.escape(truth.strip())}(?!\w)", reply, re.IGNORECASE) is not None
