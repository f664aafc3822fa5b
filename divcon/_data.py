"""What the questions of a pipeline lack for its arms and its training, found before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence

from divcon.benchmarks.arms import read_arm
from divcon.config import Pipeline
from divcon.distill import FORM_STEPS
from divcon.distill.serving import Finding
from divcon.programs import Item
from divcon.signatures import Decompose


def lacking_references(pipeline: Pipeline, items: Sequence[Item]) -> Finding | None:
    """A failure, where an arm needs reference subquestions and a question has none; else None."""
    needing = [arm for arm in pipeline.arms if read_arm(arm)[0].planner == "references"]
    bare = [item.id for item in items if not item.subquestions]
    if not (bare and needing):
        return None
    text = f"The arm {needing[0]} needs reference subquestions; {len(bare)} questions have none, first {bare[0]}."
    return Finding("failure", "data", text, "Leave it out of the arms, or take a task whose data has them.")


def too_long_to_learn(pipeline: Pipeline, items: Sequence[Item]) -> Finding | None:
    """A failure, where training rows are too long whatever is replied; else None.

    A word has a token at least, so no tokenizer is needed to find what is much too long.

    Args:
        pipeline: The pipeline.
        items: The training questions.
    """
    train, told = pipeline.train, pipeline.program.instruction or Decompose.instructions
    words = [len(f"{told} {item.context or ''} {item.question}".split()) for item in items]
    over = [number for number, length in enumerate(words) if length > train.max_length]
    if not (pipeline.decomposer_students and over) or (train.over_length == "drop" and len(over) < len(items)):
        return None
    shorter = "program.instruction" if pipeline.program.instruction else "the question"
    text = (
        f"The prompt of {items[over[0]].id} has {words[over[0]]:,} words, and a training row takes "
        f"{train.max_length:,} tokens with its reply (train.max_length); {len(over)} of {len(items)} are too long."
    )
    return Finding("failure", "data", text, f"Raise train.max_length, or shorten {shorter}.")


def too_few_steps(pipeline: Pipeline, questions: int) -> Finding | None:
    """A warning, where a training will have too few steps to teach the form of a plan; else None.

    Args:
        pipeline: The pipeline.
        questions: The number of training questions.
    """
    train, samples = pipeline.train, pipeline.collect.samples
    steps = train.steps(questions * samples)
    if steps >= FORM_STEPS or not (pipeline.students and questions):
        return None
    plans = f"{questions:,} questions" + (f" x {samples} plans" if samples > 1 else "")
    most = "1 step" if steps == 1 else f"{steps} steps"
    text = (
        f"{plans} x {train.epochs:g} epochs / {train.batch_size} rows a step is {most} at most; with fewer than "
        f"{FORM_STEPS}, a student rarely learns the form of a plan"
    )
    return Finding("warning", "data", text, "Raise task.train or train.epochs, or lower train.batch_size.")
