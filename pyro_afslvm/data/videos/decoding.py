"""Decoding of videos, one frame at a time."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.videos.prefetch import ahead
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    import av

Item = TypeVar("Item")
_Stream: TypeAlias = Generator[Item, None, None]

Pixels = NDArray[np.uint8]
Color = Literal["grey", "rgb"]

_FORMATS = {"grey": "gray", "rgb": "gbrp"}
_BATCH_PIXELS = 1 << 19  # so that frames are still in the processor's cache when converted


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Settings that turn frames of a video into frames of a data set.

    Frames are upright: turned as the file says, which phones do by a flag. By default height
    and width are scaled by one factor, so that the shorter side becomes ``size``; pixels are
    averaged over area.

    Args:
        size: Height and width in pixels that must remain for a square crop.
        color: ``"grey"`` or ``"rgb"``.
        shrink: Divide height and width by this number instead.
        squeeze: Scale to ``size`` by ``size`` instead, whatever the shape was.
        stride: Keep every so many-th frame, from the first one on.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> Framing(size=32).resolution(120, 160), Framing(size=32, shrink=4).resolution(360, 640)
        ((32, 43), (90, 160))
    """

    size: int
    color: Color = "grey"
    shrink: int | None = None
    squeeze: bool = False
    stride: int = 1

    def __post_init__(self) -> None:
        check_minimum(size=(self.size, 4), stride=(self.stride, 1))
        if self.color not in _FORMATS:
            raise ValueError(f"color must be 'grey' or 'rgb', got {self.color!r}")
        if self.shrink is not None:
            check_minimum(shrink=(self.shrink, 1))
            if self.squeeze:
                raise ValueError("give shrink or squeeze, not both")

    @property
    def channels(self) -> int:
        """Number of channels: 1 for grey, 3 for RGB."""
        return 1 if self.color == "grey" else 3

    def resolution(self, height: int, width: int) -> tuple[int, int]:
        """Scale a height and width.

        Raises:
            ValueError: The video is too small.
        """
        if self.squeeze:
            new = (self.size, self.size)
        elif self.shrink is not None:
            new = (height // self.shrink, width // self.shrink)
        else:
            short = min(height, width)
            new = (round(height * self.size / short), round(width * self.size / short))
        if min(new) < self.size or new[0] > height or new[1] > width:
            left = f", {new[1]}x{new[0]} after division by {self.shrink}" if self.shrink else ""
            raise ValueError(
                f"frames are {width}x{height} pixels{left}: too small for size {self.size}"
            )
        return new

    def describe(self) -> dict[str, object]:
        """Settings as JSON values."""
        return asdict(self)


class VideoHeader(NamedTuple):
    """Header of a video: frames (0 where it does not say), height and width as stored."""

    frames: int
    height: int
    width: int


def read_header(path: Path) -> VideoHeader:
    """Read the header of a video file.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: PyAV is not installed.
        ValueError: It is no video.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        return VideoHeader(stream.frames, stream.height, stream.width)


def read_frames(
    path: Path,
    framing: Framing,
    *,
    first: int = 0,
    last: int | None = None,
    allow_truncated: bool = False,
) -> Iterator[Pixels]:  # of (C, H, W)
    """Decode the frames of a video as they are asked for; memory does not grow with the video.

    Args:
        path: The file.
        framing: Colour, scale and stride.
        first: First frame of the file that counts.
        last: Frame of the file before which to stop; ``None`` for its end.
        allow_truncated: End quietly where a damaged file breaks off.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no video, too small, without frames, breaks off, or its frames
            change size.
    """
    resolution: tuple[int, int] | None = None
    convert = _converter(framing)
    with _open(path) as container:
        frames = _decode(path, container, allow_truncated, whole=last is None)
        for i, frame in enumerate(chain.from_iterable(ahead(_batches(frames)))):
            if last is not None and i >= last:
                break
            if resolution is None:
                resolution, shape = _checked(path, framing, frame), (frame.height, frame.width)
            if (frame.height, frame.width) != shape:
                raise ValueError(
                    f"{path}: mixed frame sizes: frame {i} is {frame.width}x{frame.height} "
                    f"after {shape[1]}x{shape[0]}"
                )
            if i >= first and (i - first) % framing.stride == 0:
                yield convert(frame, resolution)
    if resolution is None:
        raise ValueError(f"{path}: holds no frames")


def _open(path: Path) -> "av.container.InputContainer":
    try:
        import av
    except ModuleNotFoundError:
        raise RuntimeError("videos need PyAV: pip install 'pyro-afslvm[video]'") from None
    try:
        container = av.open(str(path.absolute()))  # or a:b.avi would be of protocol a
    except av.error.FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: not a video: {_reason(error)}") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: not a video: it has no picture stream")
    return container


def _decode(
    path: Path, container: "av.container.InputContainer", allow_truncated: bool, *, whole: bool
) -> "_Stream[av.VideoFrame]":
    import av

    stream, count, broken = container.streams.video[0], 0, ""
    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                broken = "a damaged frame"
                break
            count += 1
            yield frame
    except av.error.FFmpegError as error:
        broken = _reason(error)
    # Headers of intact files may count a frame or two that the decoder never shows.
    if not broken and whole and count < stream.frames - max(2, stream.frames // 100):
        broken = "the end of the file"
    if broken and count and not allow_truncated:
        said = f" of {stream.frames}" if stream.frames else ""
        raise ValueError(f"{path}: truncated or damaged: {broken} after {count}{said} frames")


def _batches(frames: "_Stream[av.VideoFrame]") -> "_Stream[list[av.VideoFrame]]":
    # Passing single frames between threads would cost as much as decoding them.
    batch: list[av.VideoFrame] = []
    broken: ValueError | None = None
    with closing(frames):
        try:
            for frame in frames:
                batch.append(frame)
                if len(batch) * frame.width * frame.height > _BATCH_PIXELS or len(batch) == 16:
                    yield batch
                    batch = []
        except ValueError as error:
            broken = error
        yield batch  # what came before an error is still good
        if broken:
            raise broken


def _checked(path: Path, framing: Framing, frame: "av.VideoFrame") -> tuple[int, int]:
    height, width = frame.height, frame.width
    try:
        return framing.resolution(*(width, height) if _turns(frame) % 2 else (height, width))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _converter(framing: Framing) -> "Callable[[av.VideoFrame, tuple[int, int]], Pixels]":
    from av.video.reformatter import Interpolation, VideoReformatter

    # Exact rounding: without it a grey level is lost now and then, and machines differ.
    area = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    reformatter, format = VideoReformatter(), _FORMATS[framing.color]  # keeps its tables
    order = (0,) if framing.channels == 1 else (2, 0, 1)  # of the planes green, blue, red

    def convert(frame: "av.VideoFrame", resolution: tuple[int, int]) -> Pixels:
        turns = _turns(frame)
        height, width = resolution[::-1] if turns % 2 else resolution
        # Handing a small frame on to more threads would cost more than scaling it.
        new = reformatter.reformat(frame, width, height, format, interpolation=area, threads=1)
        pixels = np.stack([_rows(new.planes[i], height)[:, :width] for i in order])
        return np.rot90(pixels, turns, axes=(1, 2)) if turns else pixels

    return convert


def _turns(frame: "av.VideoFrame") -> int:
    """Count the quarter turns to the left that set a frame upright."""
    return round(frame.rotation / 90) % 4


def _rows(plane: Any, height: int) -> Pixels:  # -> (H, at least W)
    # Rows are padded to a length the processor likes.
    return np.frombuffer(plane, np.uint8, height * plane.line_size).reshape(height, -1)


def _reason(error: Any) -> str:
    return str(getattr(error, "strerror", "") or error).splitlines()[0]
