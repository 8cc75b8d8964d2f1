"""Vector sequences over time: what a flow sees of them, and the futures a model invents."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_afslvm.plots.checks import as_vectors
from pyro_afslvm.plots.film import FlowStep, Step
from pyro_afslvm.plots.style import COLOURS, FAINT, GIVEN, INK, PREDICTED, STYLE, WIDTH, Array
from pyro_afslvm.utils.renamed import renamed_keyword

_MOST = 6  # features that fit into a figure
_ROW, _HEAD = 1.15, 0.75  # inches


@renamed_keyword("levels", "steps")
@rc_context(STYLE)
def flow_lines(frames: Array, steps: Sequence[Step], *, first: int = 1) -> Figure:
    r"""Draw what a flow sees of vectors: their values with shift and scale, then the noise.

    .. math:: x_t = \mu_t + \sigma_t \odot y_t

    The band is :math:`\mu_t \pm 2 \sigma_t`; noise is drawn with the next transform's band.
    The first six features are shown. Of a transform that is not affine it is mean and two
    standard deviations.

    Args:
        frames: one sequence ``(T, D)``.
        steps: the transforms as applied from the frames towards the noise, ``(T, D)`` each.
        first: time index of the first frame.

    Raises:
        ValueError: for arrays of another rank, or of different lengths.
    """
    values = [as_vectors("frames", frames)]
    bands = []
    for step in steps:
        shift, scale, noise = (
            as_vectors(name, array, values[0].shape)
            for name, array in zip(step._fields[:3], step[:3], strict=True)
        )
        bands.append((shift, scale))
        values.append(noise)
    features = min(values[0].shape[1], _MOST)
    time = np.arange(first, first + len(values[0]))
    figure, grid = _grid(features, len(values))
    for column, signal in enumerate(values):
        grid[0, column].set_title(_title(column, len(steps)))
        affine = column >= len(steps) or isinstance(steps[column], FlowStep)
        label = "shift, ± 2 scales" if affine else "mean, ± 2 standard deviations"
        for j, axes in enumerate(grid[:, column]):
            if column < len(bands):
                shift, scale = (band[:, j] for band in bands[column])
                axes.fill_between(
                    time, shift - 2 * scale, shift + 2 * scale, color=COLOURS[0], alpha=0.2, lw=0
                )
                axes.plot(time, shift, color=COLOURS[0], lw=1.2, label=label)
            axes.plot(time, signal[:, j], ".-", color=INK, lw=1, ms=4, label="values")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@rc_context(STYLE)
def forecast_lines(truth: Array, samples: Array, *, context: int, first: int = 1) -> Figure:
    """Draw sampled futures of a vector sequence, one panel for each of its first six features.

    Args:
        truth: the sequence ``(T, D)``, as far as it is known.
        samples: sequences ``(S, T', D)``, T' >= T, of which the first ``context`` frames are
            given.
        context: how many frames were given; the others are predictions.
        first: time index of the first frame.

    Raises:
        ValueError: for arrays of another rank, or of different lengths.
    """
    truth = as_vectors("truth", truth)
    shape = (max(len(truth), np.shape(samples)[1]), truth.shape[1])
    drawn = [as_vectors(f"sample {i}", x, shape) for i, x in enumerate(samples, 1)]
    time = np.arange(first, first + len(drawn[0] if drawn else truth))
    start = max(context - 1, 0)  # futures begin where the given frames end
    columns = 2 if truth.shape[1] > 1 else 1
    rows = -(-min(truth.shape[1], _MOST) // columns)
    figure, grid = _grid(rows, columns, label=False)
    for j, axes in enumerate(grid.flat):
        if j >= min(truth.shape[1], _MOST):
            axes.set_visible(False)
            grid[-2, -1].tick_params(labelbottom=True)
            grid[-2, -1].set_xlabel("time $t$")
            continue
        for i, sample in enumerate(drawn):
            label = None if i else f"{len(drawn)} samples"
            axes.plot(time[start:], sample[start:, j], color=PREDICTED, lw=0.9, label=label)
        axes.plot(
            time[start : len(truth)], truth[start:, j], color=INK, lw=1.3, ls="--", label="truth"
        )
        axes.plot(time[:context], truth[:context, j], ".-", color=GIVEN, lw=1.5, label="given")
        axes.axvline(time[start], color=FAINT, lw=0.8, ls=":")
        axes.set_ylabel(f"feature {j + 1}")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _grid(rows: int, columns: int, *, label: bool = True) -> tuple[Figure, Array]:
    size = (WIDTH if columns > 1 else 6.4, _HEAD + _ROW * max(rows, 2))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in grid[-1]:
        axes.set_xlabel("time $t$")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for j, axes in enumerate(grid[:, 0], 1):
        if label:
            axes.set_ylabel(f"feature {j}")
    return figure, grid


def _title(column: int, steps: int) -> str:
    if column == 0:
        return "values $x_t$"
    return "noise $y_t$" if steps == 1 else f"noise $y^{column}_t$"
