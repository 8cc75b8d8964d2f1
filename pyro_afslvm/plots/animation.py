"""Sequences side by side as an animated GIF."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageColor, ImageDraw, ImageFont

from pyro_afslvm.plots.checks import as_frames, first_of
from pyro_afslvm.plots.style import FAINT, GIVEN, INK, PREDICTED, Array

_BORDER, _GAP, _HEAD, _FOOT = 4, 8, 24, 26  # pixels


def animation(
    panels: Mapping[str, Array],
    *,
    context: int = 0,
    fps: float = 6.0,
    size: int = 128,
    first: int = 1,
) -> bytes:
    """Make a looping GIF of labelled sequences side by side.

    Frames are enlarged by a whole factor to at least ``size`` pixels; their border is blue
    where they were given and orange where they are predicted.

    Args:
        panels: label to one sequence ``(T, C, H, W)``, or to several ``(N, T, C, H, W)``,
            which are drawn below one another; values in [0, 1], NaN white.
        context: how many frames were given.
        fps: frames per second; the last frame stays a second longer.
        size: least height of a frame in pixels.
        first: time index of the first frame.

    Raises:
        ValueError: for no panels, another rank, or different shapes.
    """
    first_of(panels)
    columns = {label: _enlarged(label, panel, size) for label, panel in panels.items()}
    if len({column.shape for column in columns.values()}) > 1:
        raise ValueError(f"expected panels of one shape, but {', '.join(columns)} differ")
    length = first_of(columns).shape[1]
    slides = [_slide(columns, t, first + t, t < context) for t in range(length)]
    palette = _palette(slides)
    slides = [_indexed(slide, palette) for slide in slides]
    pause = round(1000 / fps)
    buffer = BytesIO()
    slides[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=slides[1:],
        duration=[pause] * (length - 1) + [pause + 1000],
        loop=0,
    )
    return buffer.getvalue()


def _enlarged(label: str, panel: Array, size: int) -> Array:  # -> (N, T, H', W', 3) uint8
    panel = np.asarray(panel)
    sequences = panel if panel.ndim == 5 else panel[None]
    pixels = np.stack([np.moveaxis(as_frames(label, frames), 1, -1) for frames in sequences])
    grey = np.rint(np.clip(np.nan_to_num(pixels, nan=1.0), 0, 1) * 255).astype(np.uint8)
    factor = -(-size // pixels.shape[2])
    large = grey.repeat(factor, axis=2).repeat(factor, axis=3)
    return np.broadcast_to(large, (*large.shape[:-1], 3))


def _slide(columns: Mapping[str, Array], t: int, time: int, given: bool) -> Image.Image:
    """All panels at one time, with labels above and the time below."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), 13)
    rows, _, high, wide, _ = first_of(columns).shape
    across = [max(wide + 2 * _BORDER, round(font.getlength(label))) for label in columns]
    down = high + 2 * _BORDER + _GAP
    size = (sum(across) + _GAP * (len(across) + 1), _HEAD + down * rows + _FOOT - _GAP)
    slide = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(slide)
    colour, state = (GIVEN, "given") if given else (PREDICTED, "predicted")
    left = _GAP
    for (label, column), width in zip(columns.items(), across, strict=True):
        draw.text((left + width / 2, _HEAD / 2), label, fill=INK, font=font, anchor="mm")
        x = left + (width - wide) // 2
        for row in range(rows):
            y = _HEAD + _BORDER + down * row
            box = (x - _BORDER, y - _BORDER, x + wide + _BORDER - 1, y + high + _BORDER - 1)
            draw.rectangle(box, fill=colour)
            slide.paste(Image.fromarray(column[row, t]), (x, y))
        left += width + _GAP
    draw.rectangle((_GAP, size[1] - 18, _GAP + 10, size[1] - 8), fill=colour)
    draw.text((_GAP + 17, size[1] - 13), f"t = {time}", fill=INK, font=font, anchor="lm")
    draw.text((_GAP + 72, size[1] - 13), state, fill=FAINT, font=font, anchor="lm")
    return slide


def _palette(slides: Sequence[Image.Image]) -> Image.Image:
    """256 colours for all slides: one palette, so that still parts do not flicker."""
    few = [slides[0], slides[len(slides) // 2], slides[-1]]
    wide, high = few[0].size
    sheet = Image.new("RGB", (wide, high * len(few)))
    for number, slide in enumerate(few):
        sheet.paste(slide, (0, high * number))
    colours = sheet.quantize(250, method=Image.Quantize.MEDIANCUT).getpalette() or []
    exact = [
        value for name in ("white", INK, GIVEN, PREDICTED) for value in ImageColor.getrgb(name)
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*exact, *colours[:750]])
    return palette


def _indexed(slide: Image.Image, palette: Image.Image) -> Image.Image:
    indexed = slide.quantize(palette=palette, dither=Image.Dither.NONE)
    white = (np.asarray(slide) == 255).all(-1)  # Pillow may take a grey just beside it
    indexed.paste(0, mask=Image.fromarray(white))
    return indexed
