"""Questions that reasoning-gym generates (Stojanovski et al. 2025, arXiv 2505.24760; Apache-2.0)."""

from __future__ import annotations

from divcon.benchmarks.tasks._problems import TaskError
from divcon.programs import Item


def gym_items(name: str, count: int, seed: int) -> list[Item]:
    """`count` different questions of one of reasoning-gym's data sets.

    Answers are graded by divcon's own strict graders, by the form of the gold answer, not by reasoning-gym's.

    Args:
        name: The data set's name, such as `chain_sum`.
        count: How many.
        seed: The same seed gives the same questions.

    Raises:
        TaskError: The package is missing, has no such data set, or draws too few different questions.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise TaskError("The task reasoning-gym needs its package.", "pip install 'divcon[gym]'") from error
    try:
        drawn = reasoning_gym.create_dataset(name, size=3 * count + 20, seed=seed)
    except (ValueError, TypeError, AssertionError) as error:
        raise TaskError(f"reasoning-gym gives no data set '{name}': {error}.", "Correct task.subtask.") from error
    items: dict[str, Item] = {}
    for number, entry in enumerate(drawn):
        question, answer = str(entry["question"]).strip(), str(entry["answer"] or "").strip()
        if question and answer:
            identity = f"gym-{name}-{seed}-{number}"
            items.setdefault(question, Item(id=identity, question=question, answer=answer, family=name))
        if len(items) == count:
            return list(items.values())
    raise TaskError(
        f"reasoning-gym's '{name}' gave {len(items)} different questions, and {count} are asked for.",
        "Lower task.train or task.test.",
    )
