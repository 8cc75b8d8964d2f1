"""When the pictures of a film are shown, by its time stamps and not by what its header says."""

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import av

_READ = 2000  # pictures from the beginning
_JITTER = 0.2  # of a picture's time, beside the rounding of its time stamps


class Timing(NamedTuple):
    """Times of a film's pictures.

    Attributes:
        fps: Mean pictures a second; ``None`` where there are no two with a time stamp.
        varies: Whether they come at times that are not even.
        left_out: Pictures that a stream that counts its time in frames does not have.
    """

    fps: float | None
    varies: bool
    left_out: int


def read_timing(
    container: "av.container.InputContainer", stream: "av.VideoStream", *, counts_frames: bool
) -> Timing:
    """Read time stamps of packets, without decoding any.

    Args:
        container: The file, at its beginning.
        stream: The film in it.
        counts_frames: Whether the stream counts its time in frames, as AVI does.
    """
    packets = (p for p in container.demux(stream) if p.size and p.pts is not None)
    ticks = np.array(sorted({p.pts for p in islice(packets, _READ) if p.pts is not None}))
    if len(ticks) < 2 or not stream.time_base:
        return Timing(None, False, 0)
    apart = np.diff(ticks)
    if counts_frames:
        return Timing(1 / float(stream.time_base), False, int((apart - 1).sum()))
    varies = apart.max() - apart.min() > max(2, _JITTER * float(np.median(apart)))
    return Timing(1 / float(apart.mean() * stream.time_base), bool(varies), 0)
