"""Notes on runs beside simple models, such as a copy of the last frame."""

import math
from collections.abc import Iterator, Sequence

from pyro_afslvm.metrics.beside import figures, verdict
from pyro_afslvm.runs.contents import RunContents


def beside(runs: Sequence[RunContents]) -> Iterator[str]:
    """Give the simple models' nats/dim, and a sentence on every run that does not beat them.

    Runs that are scored on different frames have figures of their own, and are named by them.
    """
    lines: dict[str, list[str]] = {}
    sentences: list[str] = []
    for run in runs:
        simple, value = _simple(run), run.number("nats_per_dim")
        if not simple or value is None:
            continue
        lines.setdefault(figures(simple), []).append(run.label)
        sentences.append(verdict(run.label, value, simple))
    for line, labels in lines.items():
        of = f" as {', '.join(labels)}" if len(lines) > 1 else ""
        yield f"Nats/dim on the same frames{of}: {line}"
    yield from filter(None, sentences)


def _simple(run: RunContents) -> dict[str, float]:
    found = run.results.get("baselines")
    if not isinstance(found, dict):  # of an earlier release
        return {}
    numbers = {str(name): v for name, v in found.items() if isinstance(v, int | float)}
    return {name: float(v) for name, v in numbers.items() if math.isfinite(v)}
