"""The look that all pictures share, and PNG bytes."""

from io import BytesIO
from typing import Any

import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure

from pyro_afslvm.moved import old_names

Array = npt.NDArray[Any]

#: Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E6E6E")
GIVEN, PREDICTED = "#0072B2", "#E69F00"  # frames of the context, frames of a model
INK, FAINT = "#222222", "#777777"
WIDTH = 9.6  # inches, of a page
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}


@rc_context(STYLE)
def to_png(figure: Figure, dpi: float = 150) -> bytes:
    """Draw a figure as PNG bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


__getattr__ = old_names(__name__)
