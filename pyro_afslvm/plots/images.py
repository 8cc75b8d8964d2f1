"""Single images in rows."""

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pyro_afslvm.plots.checks import as_frames, first_of
from pyro_afslvm.plots.style import FAINT, INK, STYLE, WIDTH, Array

_LABELS, _GAP = 1.2, 2  # inches for the labels, pixels between images


@rc_context(STYLE)
def image_grid(panels: Mapping[str, Array], *, columns: int = 20) -> Figure:
    """Draw images in rows, those of one place in different panels below one another.

    Args:
        panels: label and images ``(N, C, H, W)`` in [0, 1], as many in each.
        columns: images in a row.

    Raises:
        ValueError: for no panel, arrays of another rank, or of different lengths.
    """
    count = len(first_of(panels))
    images = {label: as_frames(label, panel, count) for label, panel in panels.items()}
    rows = [
        (label, _row(panel[start : start + columns], columns))
        for start in range(0, count, columns)
        for label, panel in images.items()
    ]
    pixels = np.concatenate([row for _, row in rows])
    width = WIDTH - _LABELS
    height = width * pixels.shape[0] / pixels.shape[1]
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((_LABELS / WIDTH, 0, width / WIDTH, 1))
    axes.imshow(pixels, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for i, (label, _) in enumerate(rows):
        if i < len(panels):  # the rows that follow repeat them
            y = 1 - (i + 0.5) / len(rows)
            colour = INK if i == 0 else FAINT
            figure.text(_LABELS / WIDTH - 0.01, y, label, ha="right", va="center", color=colour)
    return figure


def _row(images: Array, columns: int) -> Array:  # -> (H + gap, columns * (W + gap), 3)
    padded = np.pad(images, ((0, columns - len(images)), (0, 0), (0, _GAP), (0, _GAP)))
    padded[:, :, -_GAP:], padded[..., -_GAP:], padded[len(images) :] = 1, 1, 1  # white
    padded = np.nan_to_num(padded, nan=1.0)
    row = np.concatenate(list(np.moveaxis(padded, 1, -1)), axis=1)
    return np.broadcast_to(row, (*row.shape[:2], 3))
