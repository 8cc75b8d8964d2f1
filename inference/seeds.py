"""Metrics over training seeds, which stand beside their errors over test sequences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pyro_afslvm.metrics.uncertainty import FEWEST


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Range of a metric over seeds, and the standard error of its mean from five of them on.

    >>> spread([1.0, 3.0])
    {'error_seeds': None, 'low': 1.0, 'high': 3.0}
    """
    error = None
    if len(values) >= FEWEST:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return {"error_seeds": error, "low": min(values), "high": max(values)}


def over_seeds(seeds: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean of a metric over seeds, its error over test sequences, and what seeds differ by.

    The seeds share their test sequences, so that more of them do not make the error over
    sequences smaller: it is the root of its mean square.

    Args:
        seeds: ``mean`` and ``error`` over sequences of each.
    """
    means, errors = [seed["mean"] for seed in seeds], [seed["error"] for seed in seeds]
    error = None if None in errors else math.sqrt(statistics.fmean(e**2 for e in errors))
    return {"mean": statistics.fmean(means), "error": error, **spread(means)}


def metric_text(metric: Mapping[str, Any], digits: int, *, sign: bool = False) -> str:
    """Write a mean, its error over sequences and, of several seeds, their error or range.

    >>> metric_text({"mean": -2.94, "error": 0.01, "low": -2.95, "high": -2.93}, 2)
    '−2.94 ± 0.01 (−2.95 to −2.93)'
    """
    plus = "+" if sign else ""
    text = f"{metric['mean']:{plus}.{digits}f}"
    if metric.get("error") is not None:
        text += f" ± {metric['error']:.{digits}f}"
    if metric.get("error_seeds") is not None:
        text += f" ± {metric['error_seeds']:.{digits}f}"
    elif metric.get("low") is not None:
        low, high = (f"{metric[end]:{plus}.{digits}f}" for end in ("low", "high"))
        text += f" ({low} to {high})" if low != high else ""
    return text.replace("-", "−")


def errors_text(what: str, count: int) -> str:
    """Say what stands behind the means of a table.

    >>> errors_text("sequences", 3)
    '± standard error over sequences, in brackets the range over 3 seeds'
    """
    text = f"± standard error over {what}"
    if count >= FEWEST:
        return f"{text}, then over {count} seeds"
    return f"{text}, in brackets the range over {count} seeds" if count > 1 else f"{text}, one seed"
