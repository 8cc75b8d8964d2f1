"""Bands of forecasts after a series, in its own units and dates."""

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from pyro_afslvm.plots.style import COLOURS, FAINT, INK, STYLE, WIDTH, Array

_MOST = 8  # panels of a figure
_ROW, _HEAD = 1.6, 0.9  # inches
_BANDS = ((0.05, 0.95, 0.18, "90 %"), (0.25, 0.75, 0.36, "50 %"))


@rc_context(STYLE)
def forecast_bands(
    past: Array, past_times: Any, quantiles: Array, times: Any, *, levels: Array, names: Any
) -> Figure:
    """Draw a series and, after it, median, 50 % and 90 % bands of its forecast.

    Args:
        past: The last observations ``(T, D)``; NaN where a value is missing.
        past_times: Their times, dates or numbers, ``(T,)``.
        quantiles: Of the forecast, ``(Q, H, D)``.
        times: Of the forecast, ``(H,)``.
        levels: Probabilities of the quantiles, 0.05, 0.25, 0.5, 0.75 and 0.95 among them.
        names: Of the features; the first eight are shown.

    Raises:
        ValueError: A quantile that is drawn is not there, or lengths do not fit.
    """
    of = {round(float(level), 6): q for level, q in zip(levels, quantiles, strict=True)}
    if missing := {0.05, 0.25, 0.5, 0.75, 0.95} - of.keys():
        raise ValueError(f"expected quantiles 0.05, 0.25, 0.5, 0.75, 0.95; no {sorted(missing)}")
    count = min(past.shape[1], _MOST)
    columns = 1 if count < 4 else 2
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, _HEAD + _ROW * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for j, axes in enumerate(grid.flat):
        if j >= count:
            axes.set_visible(False)
            continue
        _panel(axes, past[:, j], past_times, {level: q[:, j] for level, q in of.items()}, times)
        axes.set_title(str(names[j]), loc="left")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, past: Array, before: Any, of: dict[float, Array], times: Any) -> None:
    joined = np.concatenate([np.asarray(before)[-1:], np.asarray(times)])
    for low, high, alpha, label in _BANDS:
        lower, upper = (np.concatenate([past[-1:], of[level]]) for level in (low, high))
        axes.fill_between(
            joined, lower, upper, color=COLOURS[1], alpha=alpha, lw=0, label=f"{label} band"
        )
    median = np.concatenate([past[-1:], of[0.5]])
    axes.plot(joined, median, color=COLOURS[1], lw=1.6, label="median")
    axes.plot(np.asarray(before), past, color=INK, lw=1.2, label="observed")
    axes.axvline(joined[0], color=FAINT, lw=0.8, ls=":")
    axes.margins(x=0.01)
    if joined.dtype.kind == "M":
        locator = AutoDateLocator(maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


@rc_context(STYLE)
def anomaly_lines(
    values: Array, times: Any, scores: Array, *, threshold: float, names: Any
) -> Figure:
    """Draw series, marked where their surprise passes the threshold, and the surprise below.

    Args:
        values: ``(T, D)``; the first seven features are shown.
        times: Dates or numbers, ``(T,)``.
        scores: Nats, ``(T,)``.
        threshold: Above it are anomalies.
        names: Of the features.
    """
    count = min(values.shape[1], _MOST - 1)
    figure = Figure(figsize=(WIDTH, _HEAD + 1.2 * (count + 1)), layout="constrained")
    grid = figure.subplots(count + 1, 1, sharex=True)
    times, found = np.asarray(times), scores > threshold
    for j, axes in enumerate(grid[:-1]):
        axes.plot(times, values[:, j], color=INK, lw=1)
        axes.plot(
            times[found], values[found, j], "o", color=COLOURS[1], ms=4, label="above threshold"
        )
        axes.set_title(str(names[j]), loc="left")
    grid[-1].plot(times, scores, color=COLOURS[0], lw=1, label="surprise")
    grid[-1].axhline(threshold, color=COLOURS[1], lw=1.2, ls="--", label="threshold")
    grid[-1].set_title("surprise in nats", loc="left")
    grid[-1].margins(x=0.01)
    if times.dtype.kind == "M":
        locator = AutoDateLocator(maxticks=8)
        grid[-1].xaxis.set_major_locator(locator)
        grid[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
    handles = [h for axes in (grid[-1], grid[0]) for h in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
