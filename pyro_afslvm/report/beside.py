"""Notes on runs beside simple models, such as a copy of the last frame."""

import math
from collections.abc import Iterator, Sequence

from pyro_afslvm.metrics.beside import figures, verdict
from pyro_afslvm.runs.contents import RunContents


def beside(runs: Sequence[RunContents]) -> Iterator[str]:
    """Give the simple models' nats/dim, and a sentence on every run that does not beat them."""
    stated: set[str] = set()
    for run in runs:
        simple, value = _simple(run), run.number("nats_per_dim")
        if not simple or value is None:
            continue
        line = f"Beside it, nats/dim of the same frames: {figures(simple)}"
        if line not in stated:
            yield line
        stated.add(line)
        if sentence := verdict(run.label, value, simple):
            yield sentence


def _simple(run: RunContents) -> dict[str, float]:
    found = run.results.get("baselines")
    if not isinstance(found, dict):  # of an earlier release
        return {}
    numbers = {str(name): v for name, v in found.items() if isinstance(v, int | float)}
    return {name: float(v) for name, v in numbers.items() if math.isfinite(v)}
