"""Rows of frames over time: the flow pictures and the strips of rollouts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyro_afslvm.plots.checks import as_frames, first_of
from pyro_afslvm.plots.style import FAINT, GIVEN, INK, PREDICTED, STYLE, WIDTH, Array
from pyro_afslvm.utils.renamed import renamed_keyword

# inches: row labels, colour bars, largest frame, between rows, time axis
_LABELS, _BARS, _LARGEST, _GAP, _FOOT = 0.98, 0.66, 1.1, 0.07, 0.3


class FlowStep(NamedTuple):
    """Shift, scale and resulting noise of one transform, each ``(T, C, H, W)`` or ``(T, D)``."""

    shift: Array
    scale: Array
    noise: Array

    def until(self, length: int) -> "FlowStep":
        """Cut to the first frames."""
        return FlowStep(self.shift[:length], self.scale[:length], self.noise[:length])


FlowLevel = FlowStep  # the name of releases before


class MomentStep(NamedTuple):
    """Mean and standard deviation of what a transform that is not affine makes of N(0, 1) noise.

    Each ``(T, C, H, W)`` or ``(T, D)``; the probabilities of modes have one more axis at the end.
    """

    mean: Array
    deviation: Array
    noise: Array
    modes: Array | None = None

    def until(self, length: int) -> "MomentStep":
        """Cut to the first frames."""
        modes = None if self.modes is None else self.modes[:length]
        return MomentStep(self.mean[:length], self.deviation[:length], self.noise[:length], modes)


Step = FlowStep | MomentStep


class _Row(NamedTuple):
    label: str
    pixels: Array  # (T, H, W, 3)
    colours: ScalarMappable


@renamed_keyword("levels", "steps")
@rc_context(STYLE)
def flow_figure(frames: Array, steps: Sequence[Step], *, first: int = 1) -> Figure:
    r"""Draw what a flow sees: frames, shift, scale and noise over time (the paper's Fig. 4).

    .. math:: x_t = \mu_t + \sigma_t \odot y_t

    A shift is drawn on the range of what it predicts, a scale on its own, noise
    symmetrically around zero; the ranges of scale and noise leave out the outer percent.
    A scale of three channels is averaged over them. Of a transform that is not affine mean and
    standard deviation take the places of shift and scale, and of a mixture the probability of
    each mode is drawn, from 0 to 1.

    Args:
        frames: one sequence ``(T, C, H, W)`` in [0, 1].
        steps: the transforms as applied from the frames towards the noise.
        first: time index of the first frame.

    Raises:
        ValueError: for arrays of another rank, or of different lengths.
    """
    frames = as_frames("frames", frames)
    low, high, tone = 0.0, 1.0, "gray"
    rows = [_row("frame $x_t$", frames, low, high, tone)]
    for number, step in enumerate(steps, 1):
        mark = f"^{number}" if len(steps) > 1 else ""
        middle, spread, noise = (
            as_frames(name, array, len(frames))
            for name, array in zip(step._fields[:3], step[:3], strict=True)
        )
        names = ("shift", "scale") if isinstance(step, FlowStep) else ("mean", "std. dev.")
        rows.append(_row(rf"{names[0]} $\mu{mark}_t$", middle, low, high, tone))
        spread = spread.mean(1, keepdims=True)
        rows.append(_row(rf"{names[1]} $\sigma{mark}_t$", spread, *_range(spread), "viridis"))
        rows += _modes(step, len(frames), mark)
        high = max(abs(bound) for bound in _range(noise))
        low, tone = -high, "PuOr_r"
        rows.append(_row(f"noise $y{mark}_t$", noise, low, high, tone))
    return _film(rows, range(first, first + len(frames)), bars=True)


def _modes(step: Step, length: int, mark: str) -> list[_Row]:
    """A row for the probability of each mode, averaged over channels."""
    if isinstance(step, FlowStep) or step.modes is None:
        return []
    found = []
    for k in range(step.modes.shape[-1]):
        each = as_frames("modes", step.modes[..., k], length).mean(1, keepdims=True)
        found.append(_row(rf"mode {k + 1} $\pi{mark}_t$", each, 0.0, 1.0, "magma"))
    return found


@rc_context(STYLE)
def frame_strip(
    rows: Mapping[str, Array], *, context: int = 0, times: Sequence[int] | None = None
) -> Figure:
    """Draw labelled rows of frames over time, and mark where the given frames end.

    Args:
        rows: label to frames ``(T, C, H, W)`` in [0, 1], all of one length; NaN is white.
        context: how many of the frames were given; the others are predictions.
        times: the time index of each frame; 1, ..., T by default.

    Raises:
        ValueError: for no rows, another rank, or different lengths.
    """
    length = len(first_of(rows))
    painted = [
        _row(name, as_frames(name, frames, length), 0, 1, "gray") for name, frames in rows.items()
    ]
    return _film(painted, times or range(1, length + 1), context=context)


def _range(values: Array) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(bound) for bound in np.percentile(finite, (1, 99)))
    return low, max(high, low + 1e-6)


def _row(label: str, frames: Array, low: float, high: float, tone: str) -> _Row:
    """Paint ``(T, C, H, W)``: one channel by a colour map, three as red, green and blue."""
    grey = frames.shape[1] == 1
    cmap = colormaps[tone if grey else "gray"].with_extremes(bad="white")
    colours = ScalarMappable(cmap=cmap)
    colours.set_clim(low, high)
    if grey:
        painted = np.asarray(colours.cmap(colours.norm(frames[:, 0])))  # (T, H, W, 4)
        return _Row(label, painted[..., :3], colours)
    pixels = np.clip(np.nan_to_num((frames - low) / (high - low), nan=1.0), 0, 1)
    return _Row(label, np.moveaxis(pixels, 1, -1), colours)


def _tile(pixels: Array) -> tuple[Array, Array]:  # (T, H, W, 3) -> (H, T (W + gap), 3), centres
    width = pixels.shape[2]
    gap = max(1, width // 16)
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=1.0)
    centres = np.arange(len(pixels)) * (width + gap) + (width - 1) / 2
    return np.concatenate(list(padded), axis=1)[:, :-gap], centres


def _film(
    rows: Sequence[_Row], times: Sequence[int], *, context: int = 0, bars: bool = False
) -> Figure:
    """One image per row, placed in inches from the top, so that all columns align."""
    tiles = [_tile(row.pixels)[0] for row in rows]
    centres = _tile(rows[0].pixels)[1]
    right = _BARS if bars else 0.1
    across = min(WIDTH - _LABELS - right, _LARGEST * len(times))
    heights = [across * tile.shape[0] / tile.shape[1] for tile in tiles]
    head = 0.28 if 0 < context < len(times) else 0.06
    top = head + sum(heights) + _GAP * (len(rows) - 1) + _FOOT
    figure = Figure(figsize=(_LABELS + across + right, top))
    top -= head
    for row, tile, high in zip(rows, tiles, heights, strict=True):
        axes = _place(figure, _LABELS, top - high, across, high)
        axes.imshow(tile, aspect="auto")
        axes.text(-0.1 / across, 0.5, row.label, ha="right", va="center", transform=axes.transAxes)
        if bars:
            _bar(_place(figure, _LABELS + across + 0.1, top - high, 0.08, high), row.colours)
        top -= high + _GAP
    _time_axis(axes, times, centres, -0.1 / across)
    if 0 < context < len(times):
        edge = (centres[context - 1] + centres[context] + 1) / 2 / tiles[0].shape[1]
        _mark_context(figure, _LABELS, _LABELS + across * edge, _LABELS + across)
    return figure


def _place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _bar(axes: Axes, colours: ScalarMappable) -> None:
    low, high = colours.get_clim()
    ramp = np.linspace(0, 1, 128)[:, None]
    axes.imshow(ramp, cmap=colours.cmap, origin="lower", aspect="auto", extent=(0, 1, 0, 1))
    axes.yaxis.tick_right()
    axes.set_yticks([0.0, 1.0], [_number(low), _number(high)], fontsize=7.5)
    axes.tick_params(length=0, pad=3)
    bottom, top = axes.get_yticklabels()
    bottom.set_verticalalignment("bottom")
    top.set_verticalalignment("top")


def _number(value: float) -> str:
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"
    return text.replace("-", "−")


def _time_axis(axes: Axes, times: Sequence[int], centres: Array, left: float) -> None:
    axes.set_xticks(centres, [str(time) for time in times])
    axes.tick_params(axis="x", length=0, pad=4)
    where: Any = {"xytext": (0, -4), "textcoords": "offset points", "xycoords": "axes fraction"}
    axes.annotate("time $t$", (left, 0), ha="right", va="top", **where)


def _mark_context(figure: Figure, left: float, edge: float, right: float) -> None:
    """A dashed line at ``edge``, and a coloured bracket over what is given and predicted."""
    across, up = figure.get_size_inches()
    line: Any = {"transform": figure.dpi_scale_trans, "solid_capstyle": "butt"}
    for a, b, name, colour in ((left, edge, "given", GIVEN), (edge, right, "predicted", PREDICTED)):
        figure.add_artist(Line2D([a + 0.02, b - 0.02], [up - 0.23] * 2, color=colour, **line))
        figure.text(
            (a + b) / 2 / across, (up - 0.05) / up, name, ha="center", va="top", color=FAINT
        )
    figure.add_artist(
        Line2D([edge] * 2, [_FOOT, up - 0.18], color=INK, lw=1.2, ls=(0, (3, 2)), **line)
    )
