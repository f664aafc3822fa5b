"""Agreement of plans: how far a list of subquestions asks what another list asks, such as people's or a teacher's.

A step of the reference is covered where the plan has a step of its own for it. Steps are paired one to one
(`scipy.optimize.linear_sum_assignment`) so that the sum of their word F1 is largest, and a pair counts from `STEP_F1`
on. Words are stemmed, and a word that several steps of a list share counts less, since it doesn't tell them apart. The
threshold is calibrated on GSM8K's 1,319 test questions, with ChatGPT's plans (arXiv 2402.01812) against people's steps:

| word F1 from | 0.3 | 0.4 | 0.5 | 0.6 | 0.7 |
|---|---|---|---|---|---|
| of people's steps, ChatGPT's plan covers, % | 87 | 81 | 72 | 62 | 51 |
| its plan of another question, with as many steps, covers, % | 10 | 4 | 1 | 0 | 0 |
| of the covered ones, it covers without the step that was paired, % | 51 | 41 | 32 | 21 | 12 |

From 0.5 to 0.6 the first row stands farthest above the third, by 41 points, and chance has all but gone; 0.5 lets more
paraphrases count. With all words counted alike, the two rows part by four points less, with ROUGE-L in place of F1 by
five. A step that was left out may still count as covered where another one is worded like it, and a paraphrase may not:
compare plans by this measure, and read it beside the count error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads `scipy.optimize` when it is first used

from divcon.benchmarks._outcomes import MAX_FAILED, Records, too_many_failed
from divcon.programs import Item

STEP_F1 = 0.5  # see above


class Agreement(NamedTuple):
    """The agreement of a plan with a reference.

    Attributes:
        steps: The number of its steps, minus the number of the reference's.
        rouge_l: ROUGE-L F1 of the joined lists (rouge-score, stemmed).
        covered: The share of the reference's steps that the plan covers.
        exact: Whether the lists are equal word for word.
    """

    steps: int
    rouge_l: float
    covered: float
    exact: bool


def agreement(plan: Sequence[str], reference: Sequence[str]) -> Agreement:
    """How far a plan asks what a reference asks.

    Args:
        plan: The subquestions; none where a plan couldn't be used.
        reference: The subquestions of people, or of a teacher; at least one.

    Raises:
        ValueError: The reference is empty.

    Examples:
        >>> agreement(["How many eggs are sold?"], ["How many eggs are eaten?", "How many eggs are sold?"]).covered
        0.5
    """
    if not reference:
        raise ValueError("the reference has no steps")
    return _agreement(tuple(plan), tuple(reference))


@lru_cache(maxsize=2**16)  # arms share plans, and an experiment by steps needs each twice
def _agreement(plan: tuple[str, ...], reference: tuple[str, ...]) -> Agreement:
    return Agreement(
        steps=len(plan) - len(reference),
        rouge_l=float(_scorer().score("\n".join(reference), "\n".join(plan))["rougeL"].fmeasure),
        covered=sum(score >= STEP_F1 for score in step_scores(plan, reference)) / len(reference),
        exact=plan == reference,
    )


def step_scores(plan: Sequence[str], reference: Sequence[str]) -> list[float]:
    """For each step of a reference, the word F1 of the plan's step that it is paired with; 0 where there is none.

    A word counts as one over the number of steps that have it, in the list where more of them do.
    """
    asked, wanted = ([Counter(_words(step)) for step in steps] for steps in (plan, reference))
    steps_with = Counter(word for step in asked for word in step) | Counter(word for step in wanted for word in step)

    def weight(words: Counter[str]) -> float:
        return sum(count / steps_with[word] for word, count in words.items())

    found = [0.0] * len(reference)
    if plan:
        scores = np.array(
            [[2 * weight(one & other) / max(weight(one) + weight(other), 1e-9) for other in wanted] for one in asked]
        )
        for row, column in zip(*scipy.optimize.linear_sum_assignment(scores, maximize=True), strict=True):
            found[column] = float(scores[row, column])
    return found


@lru_cache(maxsize=2**16)
def _words(step: str) -> tuple[str, ...]:
    return tuple(_tokenizer().tokenize(step))


class _ByStep:
    """The tokenizer of `rouge_score` for joined lists, which keeps the words of each step."""

    def tokenize(self, text: str) -> list[str]:
        return [word for step in text.split("\n") for word in _words(step)]


# `rouge_score` loads nltk and scipy, in a second or more, and most commands compare no plans.
@cache
def _tokenizer() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_ByStep())


def mean_agreement(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, Any]:
    """The mean agreement of plans with references.

    Args:
        pairs: (plan, reference), at least one.

    Returns:
        `n`, the number of pairs; `count_error`, the mean absolute difference in the number of steps; `count_bias`, the
        mean difference, over 0 where plans are longer; `rouge_l` and `covered`, the means; `exact`, the share of lists
        equal word for word.
    """
    found = [agreement(plan, reference) for plan, reference in pairs]
    return {
        "n": len(found),
        "count_error": mean(abs(one.steps) for one in found),
        "count_bias": mean(one.steps for one in found),
        "rouge_l": mean(one.rouge_l for one in found),
        "covered": mean(one.covered for one in found),
        "exact": mean(one.exact for one in found),
    }


def arm_agreement(
    seeds: Sequence[Records], references: Sequence[Mapping[str, Sequence[str]]], max_failed: float = MAX_FAILED
) -> dict[str, Any] | None:
    """The agreement of an arm's subquestions with references.

    Args:
        seeds: For each seed, the outcomes by item id. A list that couldn't be used covers nothing.
        references: The references by item id, for all seeds or for each of them. Those without steps don't count.
        max_failed: The largest share of questions without a list with which there is an agreement, from 0 to 1.

    Returns:
        What `mean_agreement` returns, over questions and seeds, and `left_out`: the questions that have a reference and
        no list, since a call failed or the solver's reply couldn't be read. None where there are no references, or too
        many questions are left out.
    """
    pairs: list[tuple[Sequence[str], Sequence[str]]] = []
    left_out = 0
    for number, records in enumerate(seeds):
        wanted = references[number if len(references) == len(seeds) else 0]
        for item, record in records.items():
            if not wanted.get(item):
                continue
            if "subquestions" in record:
                pairs.append((record["subquestions"], wanted[item]))
            else:
                left_out += 1
    if not pairs or left_out > max_failed * (len(pairs) + left_out):
        return None
    return {**mean_agreement(pairs), "left_out": left_out}


def agreements(
    seeds: Sequence[Records], items: Iterable[Item], teacher: Sequence[Records] | None, max_failed: float = MAX_FAILED
) -> dict[str, Any]:
    """An arm's agreement with the references of the questions, and with the teacher's lists where they are measured.

    Args:
        seeds: For each seed, the outcomes by item id.
        items: The questions.
        teacher: The outcomes of the arm `teacher`, for one or all of the seeds; None where it isn't measured, or
            where the arm's subquestions are the teacher's.
        max_failed: See `arm_agreement`.
    """
    people = {item.id: item.subquestions for item in items}
    found = {"agreement": arm_agreement(seeds, [people], max_failed)}
    if teacher is not None:
        lists = [{item: record.get("subquestions", []) for item, record in records.items()} for records in teacher]
        unknown = too_many_failed(teacher, max_failed)  # those that are left may be of the easy questions
        found["agreement_with_teacher"] = None if unknown else arm_agreement(seeds, lists, max_failed)
    return found


def agreement_rows(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """The lines of results with an agreement, each with whose lists it is compared with, and the agreement.

    Lines of a part of the questions, by the steps that they need, are left out.
    """
    whose = {"agreement": "references", "agreement_with_teacher": "teacher"}
    for line in lines:
        for key, other in whose.items():
            if line.get(key) and "steps" not in line:
                yield line, other, line[key]
