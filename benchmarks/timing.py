"""Times and memory of actions, measured so that they can be compared."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def interleaved(
    actions: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each action, measured in turn so that other work meets all of them alike.

    Args:
        actions: what to time, by name.
        repeats: measurements of each.
        warmup: turns before those that count.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(warmup + repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if turn >= warmup:
                found[name].append(time.perf_counter() - start)
    return found


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(
    prepare: Callable[..., Callable[[], object]], *arguments: Any, processes: int = 5
) -> float:
    """Bytes by which an action raises the resident memory of a process of its own.

    Args:
        prepare: a function of a module; makes the action from ``arguments``.
        arguments: of ``prepare``; can be pickled.
        processes: one after the other, whose median counts: where freed memory is used again
            is chance.

    Raises:
        OSError: where there is no ``/proc``.
    """
    found = []
    for _ in range(processes):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found.append(process.submit(_peak, prepare, arguments).result())
    return statistics.median(found)


def _peak(prepare: Callable[..., Callable[[], object]], arguments: Sequence[Any]) -> float:
    action = prepare(*arguments)
    CLEAR.write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    action()
    return status("VmHWM") - before


def status(field: str) -> float:
    """Bytes of this process that Linux has under a name, such as ``VmRSS``."""
    lines = STATUS.read_text().splitlines()
    return 1024 * float(next(line for line in lines if line.startswith(field)).split()[1])


class Line(NamedTuple):
    """A straight line through points."""

    intercept: float
    slope: float
    error: float  # largest distance of a point from it, as a share of the point's value


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Least squares.

    >>> fit_line([1, 2, 3], [3.0, 5.0, 7.0])
    Line(intercept=1.0, slope=2.0, error=0.0)
    """
    slope, intercept = statistics.linear_regression(x, y)
    error = max(abs(intercept + slope * a - b) / b for a, b in zip(x, y, strict=True))
    return Line(intercept, slope, error)
