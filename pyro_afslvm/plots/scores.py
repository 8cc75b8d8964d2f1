"""Scores of forecasts, frame by frame ahead."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_afslvm.plots.checks import as_line, first_of
from pyro_afslvm.plots.style import COLOURS, FAINT, INK, STYLE, WIDTH
from pyro_afslvm.utils.renamed import renamed_keyword

_DASHED = (0, (5, 2))


@renamed_keyword("levels", "calibrated")
@rc_context(STYLE)
def score_curves(
    panels: Mapping[str, Mapping[str, npt.ArrayLike]],
    *,
    ahead: Sequence[int],
    baseline: str | None = None,
    calibrated: Mapping[str, float] | None = None,
) -> Figure:
    """Draw one panel per score, one line per forecast, over frames ahead.

    Args:
        panels: name of a score to ``{forecast: values}``, one value for each frame ahead.
        ahead: how many frames ahead each value is.
        baseline: the forecast that is drawn dashed and dark.
        calibrated: name of a score to the value that a calibrated forecast has.

    Raises:
        ValueError: for no panels, or values of another length.

    >>> scores = {"CRPS": {"model": [0.1, 0.2], "copy": [0.2, 0.3]}}
    >>> figure = score_curves(scores, ahead=[1, 2], baseline="copy")
    """
    first_of(panels)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    models = [name for name in names if name != baseline]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(models)}
    figure = Figure(figsize=(min(WIDTH, 3.2 * len(panels)), 2.6), layout="constrained")
    for axes, (title, lines) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        for name, values in lines.items():
            look: dict[str, Any] = {"color": INK, "ls": _DASHED, "lw": 1.2}
            if name != baseline:
                look = {"color": colours[name], "marker": "o", "ms": 3}
            axes.plot(ahead, as_line(name, values, len(ahead)), label=name, **look)
        if calibrated and title in calibrated:
            axes.axhline(calibrated[title], color=FAINT, lw=1, ls=":")
        axes.set_title(title)
        axes.set_xlabel("frames ahead")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    widest = max(figure.axes, key=lambda axes: len(axes.lines))
    figure.legend(*widest.get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    return figure
