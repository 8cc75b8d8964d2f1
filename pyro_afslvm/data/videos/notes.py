"""What a user should know of films: rates, proportions, bits and channels."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pyro_afslvm.data.videos.decoding import VideoHeader

Headers = Mapping[Path, VideoHeader]


def notes_on_rates(headers: Headers) -> list[str]:
    """Frame rates, where they differ or vary, and pictures that are shown again."""
    rates = sorted({round(h.fps, 3) for h in headers.values() if h.fps})
    advice = "as stored, one frame is one frame; fps=… resamples by time stamps"
    found = [
        f"{path}: pictures at uneven times; {advice}" for path, h in headers.items() if h.varies
    ]
    if len(rates) > 1:
        found.append(f"frame rates of {rates[0]:g} to {rates[-1]:g} a second; {advice}")
    elif rates:
        found.append(f"{rates[0]:g} frames a second")
    return found + [
        f"{path}: {h.repeated} pictures are left out of the file, the one before is shown again"
        for path, h in headers.items()
        if h.repeated
    ]


def notes_on_pixels(headers: Headers, color: str) -> list[str]:
    """Pixels that are not square, have more than 8 bits, or channels that are not used."""
    found = []
    for aspect in sorted({h.aspect for h in headers.values()} - {1}):
        which = _named(path for path, h in headers.items() if h.aspect == aspect)
        shape = f"{aspect.numerator}:{aspect.denominator}"
        found.append(f"{which}: pixels are {shape}, frames are brought to the proportions shown")
    for bits in sorted({h.bits for h in headers.values() if h.bits > 8}):
        which = _named(path for path, h in headers.items() if h.bits == bits)
        found.append(f"{which}: of {bits} bits of each pixel 8 are kept")
    if which := _named(path for path, h in headers.items() if h.colored and color == "grey"):
        found.append(f"{which}: stored in colours, read as grey; color=rgb keeps them")
    if which := _named(path for path, h in headers.items() if h.transparent):
        found.append(f"{which}: transparency is left out")
    return found


def _named(paths: Iterable[Path]) -> str:
    """Name the first of some files, and how many more there are."""
    first, *more = [*map(str, paths)] or [""]
    return f"{first} and {len(more)} more" if more else first
