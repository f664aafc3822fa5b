"""Screen: keep the decompositions worth learning from, and count what is lost under its reason.

Rules: `none` keeps every well-formed list (the paper's SD-T); `oracle` keeps those with which the solver reaches the
gold answer in one of m samples (SD-R; the paper's code takes m = 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy.utils.exceptions import AdapterParseError

from divcon.distill._collect import Progress
from divcon.distill._engine import at_station
from divcon.distill._overlap import overlapped
from divcon.distill._store import RunStore, Trace
from divcon.programs import Item, RolePredict
from divcon.signatures import Subquestions

Grade = Callable[[Item, str], bool]


@dataclass(frozen=True)
class Screened:
    """What a rule kept.

    Attributes:
        kept: The traces, in the order of the items and samples.
        collected: Traces looked at.
        lost: Counts by reason: `cut_off`, `empty`, `duplicate`, `unreadable`, `over_long`, `whole`, `unsolved`.
        failed: Traces that couldn't be judged since the solver failed; they are tried again next time.
        disputed: Items on which all solver samples agree on one answer that isn't the gold one; the gold may be wrong.
    """

    kept: list[Trace]
    collected: int
    lost: dict[str, int]
    failed: int = 0
    first_error: str | None = None
    disputed: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """The figures for a manifest and a report."""
        return {
            "collected": self.collected,
            "kept": len(self.kept),
            "lost": dict(sorted(self.lost.items())),
            "failed": self.failed,
            "disputed": len(self.disputed),
        }


def well_formed(trace: Trace, max_subquestions: int, keep_whole: bool) -> str | None:
    """Why a trace is unusable whatever it leads to, or None."""
    if trace.subquestions is None:
        return trace.lost or "unreadable"
    if not trace.subquestions:
        return None if keep_whole else "whole"
    return "over_long" if len(trace.subquestions) > max_subquestions else None


def screen(
    rule: str,
    traces: Sequence[Trace],
    items: Sequence[Item],
    store: RunStore,
    screening: str,
    *,
    solve: RolePredict | None = None,
    grade: Grade | None = None,
    samples: int = 2,
    temperature: float | None = 0.7,
    max_subquestions: int = 3,
    keep_whole: bool = False,
    concurrency: int = 64,
    progress: Progress | None = None,
) -> Screened:
    """Judge every trace by `rule` and store the verdicts.

    Args:
        rule: `none` or `oracle`.
        traces: As collected.
        items: The items they belong to.
        store: Where verdicts go; a verdict that is there is not made again.
        screening: The name verdicts are stored under.
        solve: The solver's predictor, for `oracle`.
        grade: Whether an answer to an item is right, for `oracle`.
        samples: Solver samples; the first is the solver's ordinary answer, and a further one is drawn only while
            none is right.
        temperature: Of the samples after the first; None leaves it to the LM.
        max_subquestions: Longer lists are lost as `over_long`.
        keep_whole: Keep "no decomposition".
        concurrency: Solver calls at a time.
        progress: Called with (done, in all).

    Raises:
        ValueError: An unknown rule, or `oracle` without `solve` and `grade`.
        dspy.LMError: The solver refuses the key or can't be reached.
    """
    if rule not in ("none", "oracle"):
        raise ValueError(f"rule is {rule!r}; it must be 'none' or 'oracle'.")
    if rule == "oracle" and (solve is None or grade is None):
        raise ValueError("the rule 'oracle' needs solve= and grade=")
    ask: Any = solve
    right: Any = grade
    by_id = {item.id: item for item in items}
    verdicts = store.verdicts(screening)
    missing: list[Trace] = []
    for trace in traces:
        if (trace.item, trace.sample) in verdicts:
            continue
        reason = well_formed(trace, max_subquestions, keep_whole)
        if reason is not None or rule == "none":
            store.keep_verdict(screening, trace, reason is None, reason or "well_formed")
        else:
            missing.append(trace)
    done, failed, first_error = len(traces) - len(missing), 0, None
    if progress:
        progress(done, len(traces))

    def judge(trace: Trace) -> tuple[bool, str]:
        item = by_id[trace.item]
        answers: list[str] = []
        for sample in range(samples):
            config: dict[str, Any] = {"rollout_id": sample} if sample else {}
            if sample and temperature is not None:
                config["temperature"] = temperature
            try:
                solved = ask(
                    question=item.question,
                    context=item.context,
                    subquestions=Subquestions(trace.subquestions or ()),
                    config=config,
                )
            except AdapterParseError:
                answers.append("")
                continue
            answers.append(solved.answer.strip())
            if right(item, solved.answer):
                return True, "solved"
        agree = len(answers) > 1 and len(set(answers)) == 1 and bool(answers[0])
        return False, "disputed" if agree else "unsolved"

    with at_station("screen"):
        for trace, verdict, error in overlapped(judge, missing, concurrency):
            if verdict is None:
                failed += 1
                first_error = first_error or f"{type(error).__name__}: {error}"
            else:
                store.keep_verdict(screening, trace, *verdict)
            done += 1
            if progress:
                progress(done, len(traces))
    verdicts = store.verdicts(screening)
    kept = [trace for trace in traces if verdicts.get((trace.item, trace.sample), (False, ""))[0]]
    judged = [(trace.item, *verdicts[key]) for trace in traces if (key := (trace.item, trace.sample)) in verdicts]
    disputed = [item for item, _, reason in judged if reason == "disputed"]
    # A disputed trace is unsolved; that its gold may be wrong is said beside, not instead.
    lost = Counter("unsolved" if reason == "disputed" else reason for _, is_kept, reason in judged if not is_kept)
    return Screened(kept, len(traces), dict(lost), failed, first_error, disputed)
