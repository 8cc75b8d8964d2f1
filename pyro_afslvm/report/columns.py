"""Columns of a table of results: values with their errors, differences, correlations."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pyro_afslvm.metrics import difference
from pyro_afslvm.runs.contents import RunContents

CONDITIONAL, OTHER_NOISE = "‡", "†"  # marks of values that a note explains


class Cell(NamedTuple):
    """A table's cell; ``best`` where no run of the column does better."""

    text: str
    best: bool = False


class Grid(NamedTuple):
    """Cells in rows below the names of their columns."""

    columns: list[str]
    rows: list[list[Cell]]

    @classmethod
    def of(cls, columns: dict[str, list[Cell]]) -> "Grid":
        """Lay out columns as rows."""
        return cls(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


def labels(runs: Sequence[RunContents]) -> list[Cell]:
    """Make the column of names."""
    return [Cell(run.label) for run in runs]


def measured(
    runs: Sequence[RunContents],
    key: str,
    best: Callable[[Sequence[float]], float],
    among: Sequence[RunContents] | None = None,
    *,
    marks: Callable[[RunContents], str] = lambda run: "",
) -> list[Cell]:
    """Make a column of values and standard errors, of the runs ``among`` which share a protocol."""
    among = runs if among is None else among
    chosen = {run.label for run in among}
    values = [run.number(key) if run.label in chosen else None for run in runs]
    known = [value for value in values if value is not None]
    record = best(known) if len(known) > 1 else None
    return [
        Cell(
            _value(value, run.number(f"{key}_error"), marks(run)),
            value is not None and value == record,
        )
        for value, run in zip(values, runs, strict=True)
    ]


def whole(runs: Sequence[RunContents], key: str) -> list[Cell] | None:
    """Make a column of the bounds of all frames, with their number; none where no run has one."""
    if not any(run.number(key) is not None for run in runs):
        return None
    frames = [run.number("whole_frames") for run in runs]
    return [
        Cell(_value(run.number(key), run.number(f"{key}_error"), "" if n is None else f"({n:.0f})"))
        for run, n in zip(runs, frames, strict=True)
    ]


def differences(runs: Sequence[RunContents], key: str, best: RunContents) -> list[Cell] | None:
    """Make a column of differences to a run, paired by unit; none without values of each."""
    if sum(_scores(run) is not None for run in runs) < 2 or _scores(best) is None:
        return None
    return [Cell("0" if run is best else _difference(run, best, key)) for run in runs]


def correlations(runs: Sequence[RunContents]) -> Grid | None:
    """Lay out what is known of correlations beside Eq. 31 of the scored frames; or nothing."""
    names = {
        "corr x → y, Eq. 31": "correlation",
        "the same, training": "train_correlation",
        "mean |corr|": "absolute_correlation",
        "corr of moving entries": "moving_correlation",
    }
    if not any(run.number("absolute_correlation_x") is not None for run in runs):
        return None
    columns = {title: [Cell(arrow(run, key)) for run in runs] for title, key in names.items()}
    return Grid.of({"temporal correlation": labels(runs), **columns})


def arrow(run: RunContents, key: str) -> str:
    """Write a correlation of the frames and, with a flow, that of the noise behind them."""
    before, after = run.number(f"{key}_x"), run.number(f"{key}_y")
    if before is None:
        return "–"
    return f"{before:.2f}" if after is None else f"{before:.2f} → {after:.2f}"


def count(value: float | None) -> str:
    """Write a number of things."""
    return "–" if value is None else f"{value:,.0f}"


def _value(value: float | None, error: float | None, mark: str = "") -> str:
    if value is None:
        return "–"
    text = f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"
    return f"{text} {mark}".rstrip()


def _scores(run: RunContents) -> dict[str, Any] | None:
    scores = run.results.get("per_sequence")
    return scores if isinstance(scores, dict) else None


def _difference(run: RunContents, best: RunContents, key: str) -> str:
    values, known = (_scores(one) for one in (run, best))
    if values is None or known is None:
        return "–"
    try:
        found = difference(
            values["nats_per_dim"],
            known["nats_per_dim"],
            units=(values["unit"], known["unit"]),
            weights=(values.get("frames"), known.get("frames")),
        )
    except (KeyError, ValueError):  # a file of someone else's, or other sequences
        return "–"
    factor = _scale(run, key)
    return _value(factor * found.mean, None if math.isnan(found.error) else factor * found.error)


def _scale(run: RunContents, key: str) -> float:
    """Units of a column over nats/dim, which values of single sequences are in."""
    value, per_dim = run.number(key), run.number("nats_per_dim")
    return value / per_dim if value and per_dim else 1.0
