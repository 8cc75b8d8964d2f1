"""Contact sheets: some sequences of a data set, one below the other."""

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_afslvm.plots.checks import first_of
from pyro_afslvm.plots.film import frame_strip
from pyro_afslvm.plots.style import COLOURS, STYLE, WIDTH, Array

_COLUMNS = 16  # frames that fit beside each other
_ROW, _HEAD = 0.95, 0.85  # inches


def contact_sheet(sequences: Mapping[str, Array], *, low: float, high: float) -> Figure:
    """Draw sequences as rows over time: frames, or lines of vectors.

    Args:
        sequences: label to frames ``(T, C, H, W)`` or vectors ``(T, D)``, all of one length.
        low: value that is drawn black; frames only.
        high: value that is drawn white.

    Raises:
        ValueError: there are no sequences, or they are of another rank.
    """
    first = first_of(sequences)
    if first.ndim == 2:
        return _lines(sequences)
    shown = np.unique(np.linspace(0, len(first) - 1, _COLUMNS).round().astype(int))
    rows = {
        label: (np.asarray(frames[shown], dtype=np.float64) - low) / max(high - low, 1e-30)
        for label, frames in sequences.items()
    }
    return frame_strip(rows, times=[int(time) + 1 for time in shown])


@rc_context(STYLE)
def _lines(sequences: Mapping[str, Array]) -> Figure:
    figure = Figure(figsize=(WIDTH, _HEAD + _ROW * max(len(sequences), 2)), layout="constrained")
    grid = figure.subplots(len(sequences), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axes, (label, vectors) in zip(grid, sequences.items(), strict=True):
        time = np.arange(1, len(vectors) + 1)
        for j, values in enumerate(vectors.T[: len(COLOURS)]):
            axes.plot(time, values, color=COLOURS[j], lw=1.2, label=f"feature {j + 1}")
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
    axes.set_xlabel("time $t$")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=7)
    return figure
