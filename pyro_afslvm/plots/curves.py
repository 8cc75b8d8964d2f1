"""Training curves, and the paper's motivating example."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_afslvm.data.dequantize import GaussianDequantization
from pyro_afslvm.plots.checks import first_of
from pyro_afslvm.plots.style import COLOURS, FAINT, INK, STYLE, WIDTH, Array

Curve = tuple[npt.ArrayLike, npt.ArrayLike]  # x, nats
Curves = Mapping[str, Curve]

NOISE_CEILING = GaussianDequantization.ceiling  # nats per dimension
_DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


@rc_context(STYLE)
def training_curves(
    panels: Mapping[str, Curves],
    *,
    faint: Mapping[str, Curves] | None = None,
    baselines: Mapping[str, float] | None = None,
    ceiling: float | None = NOISE_CEILING,
    ylabel: str = "nats per dimension",
) -> Figure:
    """Draw nats per dimension while training, one panel per kind of x-axis.

    The y-axis follows the later part of each curve: early, far lower values run out of the
    picture instead of flattening it.

    Args:
        panels: label of the x-axis to ``{model: (x, nats)}``, e.g. for seconds and steps.
        faint: more curves of the same models, drawn thin (training next to validation).
        baselines: horizontal lines; one too far away is named in the legend only.
        ceiling: a value no model can exceed, drawn where it is near.
        ylabel: label of the y-axis.

    Raises:
        ValueError: for no panels, or no finite value.
    """
    first_of(panels)
    clean = {xlabel: _finite(curves) for xlabel, curves in panels.items()}
    names = list(dict.fromkeys(name for curves in clean.values() for name in curves))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    limits = _limits([curve for curves in clean.values() for curve in curves.values()])
    limits = _stretched(limits, (baselines or {}).values())
    rows = -(-(len(names) + len(baselines or {}) + 1) // 4)  # of the legend, at most
    figure = Figure(figsize=(WIDTH if len(panels) > 1 else 6.4, 3.2 + 0.22 * rows))
    every = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, (xlabel, curves) in zip(every, clean.items(), strict=True):
        axes.set_ylim(limits)
        axes.margins(x=0.02)
        thin = _finite((faint or {}).get(xlabel, {}))
        _draw(axes, thin, colours, linewidth=0.8, alpha=0.35)
        _draw(axes, curves, colours, label=True)
        _lines(axes, baselines or {}, ceiling, limits)
        axes.set_xlabel(xlabel)
    every[0].set_ylabel(ylabel)
    figure.legend(*every[0].get_legend_handles_labels(), loc="lower center", ncols=4)
    figure.tight_layout(rect=(0, 0.04 + 0.22 * rows / (3.2 + 0.22 * rows), 1, 1), w_pad=2.0)
    return figure


@rc_context(STYLE)
def motivating_example(
    x: Array, u: Array, w: Array, *, correlations: Sequence[float] | None = None
) -> Figure:
    """Draw how two differences turn a smooth path into noise (the paper's Fig. 2).

    .. math:: u_t = x_t - x_{t-1}, \\quad w_t = u_t - u_{t-1}

    Args:
        x: positions, ``(T, D)`` or several sequences ``(N, T, D)``.
        u: first differences, likewise.
        w: second differences, likewise.
        correlations: temporal correlations of x, u and w, for the titles.
    """
    titles = ("position $x_t$", "first difference $u_t$", "second difference $w_t$")
    plane = np.shape(x)[-1] > 1
    figure = Figure(figsize=(WIDTH, 5.2 if plane else 2.7), layout="constrained")
    grid = figure.subplots(1 + plane, 3, squeeze=False)
    for column, (title, values) in enumerate(zip(titles, (x, u, w), strict=True)):
        paths = np.asarray(values).reshape(-1, *np.shape(values)[-2:])[: len(COLOURS)]
        if correlations is not None:
            title += f"\ntemporal correlation {correlations[column]:.2f}".replace("-", "−")
        grid[0, column].set_title(title)
        for path, colour in zip(paths, COLOURS, strict=False):
            grid[-1, column].plot(path[:, 0], color=colour, linewidth=1.2)
            if plane:
                grid[0, column].plot(*path[:, :2].T, ".-", color=colour, lw=0.8, ms=3.5)
        if plane:
            grid[0, column].set_aspect("equal", adjustable="datalim")
            grid[0, column].set_xlabel("coordinate 1")
        grid[-1, column].set_xlabel("time $t$")
    for row, name in zip(grid[::-1], ("coordinate 1", "coordinate 2"), strict=False):
        row[0].set_ylabel(name)
    return figure


def _finite(curves: Curves) -> dict[str, tuple[Array, Array]]:
    """The finite points of each curve; curves without any are left out."""
    clean = {}
    for name, pair in curves.items():
        x, nats = (np.asarray(values, dtype=np.float64) for values in pair)
        keep = np.isfinite(x) & np.isfinite(nats)
        if keep.any():
            clean[name] = x[keep], nats[keep]
    return clean


def _limits(curves: Sequence[tuple[Array, Array]]) -> tuple[float, float]:
    """Limits that show the last three quarters of each curve, up to six nats below the best."""
    if not curves:
        raise ValueError("nothing to draw: no curve has a finite value")
    late = [nats[x >= x[0] + (x[-1] - x[0]) / 4] for x, nats in curves]
    high = max(float(np.max(nats)) for nats in late)
    low = min(float(np.percentile(nats, 10)) for nats in late)
    low = max(low, high - 6.0)
    margin = 0.1 * max(high - low, 0.3)
    return low - 2 * margin, high + margin


def _stretched(limits: tuple[float, float], values: Iterable[float]) -> tuple[float, float]:
    """The limits, widened to values at most one range, or one nat, away."""
    low, high = limits
    room = max(high - low, 1.0)
    near = [value for value in values if low - room < value < high + room]
    return min([low, *(v - 0.05 * room for v in near)]), max(
        [high, *(v + 0.05 * room for v in near)]
    )


def _draw(
    axes: Axes,
    curves: Mapping[str, tuple[Array, Array]],
    colours: Mapping[str, str],
    *,
    label: bool = False,
    **line: Any,
) -> None:
    for name, (x, nats) in curves.items():
        marker = "o" if label and len(x) <= 25 else None
        shown = name + _off_scale(nats[-1], axes.get_ylim()) if label else None
        axes.plot(
            x, nats, color=colours.get(name, FAINT), label=shown, marker=marker, ms=3.5, **line
        )


def _lines(
    axes: Axes, baselines: Mapping[str, float], ceiling: float | None, limits: tuple[float, float]
) -> None:
    low, high = limits
    for (name, value), dash in zip(baselines.items(), _DASHES * len(baselines), strict=False):
        label = name + _off_scale(value, limits)
        axes.axhline(value, color=INK, linewidth=1.1, linestyle=dash, label=label)
    if ceiling is not None and low <= ceiling <= high:
        axes.axhline(ceiling, color=FAINT, linewidth=1, linestyle=":", label="noise ceiling")


def _off_scale(value: float, limits: tuple[float, float]) -> str:
    inside = limits[0] <= value <= limits[1]
    return "" if inside else f" ({value:.2f}, off scale)".replace("-", "−")
