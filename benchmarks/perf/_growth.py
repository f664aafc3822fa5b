"""How the memory and the handles of a process grow: samples from outside, and a fitted line with its interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import psutil
from scipy import stats


@dataclass(frozen=True)
class Sample:
    """One look at a process.

    Attributes:
        minutes: Since the first look.
        megabytes: Resident memory.
        files: Open files, sockets included.
        threads: Threads.
        others_cpu: The share of all cores that other processes used since the look before.
    """

    minutes: float
    megabytes: float
    files: int
    threads: int
    others_cpu: float


def watch(pid: int, goes_on: Callable[[], bool], every: float = 5.0) -> list[Sample]:
    """Look at a process every few seconds for as long as it runs and `goes_on`.

    Args:
        pid: The process.
        goes_on: Whether to look once more.
        every: Seconds between two looks.
    """
    process, began, samples = psutil.Process(pid), time.monotonic(), []
    cores = psutil.cpu_count() or 1
    psutil.cpu_percent()
    before, at = sum(process.cpu_times()[:2]), time.monotonic()
    while goes_on():
        time.sleep(every)
        try:
            with process.oneshot():
                spent, now = sum(process.cpu_times()[:2]), time.monotonic()
                seen = process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()
                ended = process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            break
        if ended:
            break
        own = (spent - before) / (now - at) / cores
        others = max(0.0, psutil.cpu_percent() / 100 - own)
        samples.append(Sample((now - began) / 60, *seen, others))
        before, at = spent, now
    return samples


def growth(samples: Sequence[Sample], warm_up: float = 0.2) -> dict[str, Any]:
    """The slope of each figure per minute, with the 95 % interval of a straight line fitted by least squares.

    Samples of a process aren't independent, so the interval is narrower than it should be.

    Args:
        samples: At least ten after the warm-up.
        warm_up: The share of the samples that is left out at the beginning, while modules and caches are loaded.
    """
    kept = samples[int(len(samples) * warm_up) :]
    minutes = [sample.minutes for sample in kept]
    found: dict[str, Any] = {"samples": len(kept), "minutes": round(minutes[-1] - minutes[0], 1)}
    for name in ("megabytes", "files", "threads"):
        values = [float(getattr(sample, name)) for sample in kept]
        line = stats.linregress(minutes, values)
        # Of a figure that never changed, scipy has no standard error.
        error = line.stderr if len(set(values)) > 1 else 0.0
        margin = float(stats.t.ppf(0.975, len(kept) - 2) * error)
        found[name] = {
            "first": round(values[0], 1),
            "last": round(values[-1], 1),
            "highest": round(max(values), 1),
            "a_minute": round(float(line.slope), 4),
            "ci95": [round(float(line.slope) - margin, 4), round(float(line.slope) + margin, 4)],
        }
    found["cpu_of_other_processes"] = round(fmean(sample.others_cpu for sample in kept), 2)
    return found
