"""Decoding of videos, one frame at a time."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.videos.pictures import pictures_in
from pyro_afslvm.data.videos.prefetch import ahead
from pyro_afslvm.data.videos.timing import read_timing
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    import av

Item = TypeVar("Item")
_Stream: TypeAlias = Generator[Item, None, None]

Pixels = NDArray[np.uint8]
Color = Literal["grey", "rgb"]

DECODING = 2  # goes up when the same file and settings give other frames

_FORMATS = {"grey": "gray", "rgb": "gbrp"}
_BATCH_PIXELS = 1 << 19  # so that frames are still in the processor's cache when converted


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Settings that turn frames of a video into frames of a data set.

    Frames are upright: turned as the file says, which phones do by a flag, and of the
    proportions in which they are shown, where pixels are not square. By default height and
    width are scaled by one factor, so that the shorter side becomes ``size``; pixels are
    averaged over area. A picture stays until the next one comes.

    Args:
        size: Height and width in pixels that must remain for a square crop.
        color: ``"grey"`` or ``"rgb"``.
        shrink: Divide height and width by this number instead.
        squeeze: Scale to ``size`` by ``size`` instead, whatever the shape was.
        stride: Keep every so many-th frame, from the first one on.
        fps: Frames a second, by time stamps; ``None`` takes the frames as they are stored, at
            whatever rate.
        reduce_bits: Bring pixels of more than 8 bits to 8, which is refused otherwise.

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
    fps: float | None = None
    reduce_bits: bool = False

    def __post_init__(self) -> None:
        check_minimum(size=(self.size, 4), stride=(self.stride, 1))
        if self.color not in _FORMATS:
            raise ValueError(f"color must be 'grey' or 'rgb', got {self.color!r}")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be above 0, got {self.fps:g}")
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
                f"frames are {width}x{height} pixels{left}: too small for size {self.size}; "
                f"--data.size {min(new if left else (height, width))} would do"
            )
        return new

    def describe(self) -> dict[str, object]:
        """Settings as JSON values; those that came later only where they are used."""
        later = {"fps": None, "reduce_bits": False}
        return {k: v for k, v in asdict(self).items() if k not in later or v != later[k]}


class VideoHeader(NamedTuple):
    """Header of a video.

    Attributes:
        frames: 0 where it does not say.
        height: as stored.
        width: as stored.
        fps: mean frames a second by time stamps; ``None`` for pictures of a folder.
        varies: whether its pictures come at times that are not even.
        repeated: pictures that are left out of the file, and shown again.
        aspect: width of a pixel over its height, as shown.
        bits: of a pixel's component.
        colored: whether its pixels have colours.
        transparent: whether they have an alpha channel.
    """

    frames: int
    height: int
    width: int
    fps: float | None = None
    varies: bool = False
    repeated: int = 0
    aspect: Fraction = Fraction(1)
    bits: int = 8
    colored: bool = False
    transparent: bool = False


def read_header(path: Path) -> VideoHeader:
    """Read the header of a video file, or of a folder of pictures.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: PyAV is not installed.
        ValueError: It is no video.
    """
    if path.is_dir():
        files = pictures_in(path)
        return read_header(files[0])._replace(frames=len(files), fps=None)
    with _open(path) as container:
        stream = _film(path, container)
        timing = read_timing(container, stream, counts_frames=_counts_frames(stream))
        return VideoHeader(
            stream.frames,
            stream.height,
            stream.width,
            *timing,
            stream.sample_aspect_ratio or Fraction(1),
            _bits(stream),
            *_channels(stream),
        )


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
        path: The file, or a folder of pictures.
        framing: Colour, scale and stride.
        first: First frame of the file that counts.
        last: Frame of the file before which to stop; ``None`` for its end.
        allow_truncated: End quietly where a damaged file breaks off.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no video, too small, without frames, breaks off, or its frames
            change size.
    """
    if path.is_dir():
        yield from _read_pictures(path, framing, first, last)
        return
    resolution: tuple[int, int] | None = None
    convert = _converter(framing)
    with _open(path) as container:
        stream = _film(path, container)
        _check_bits(path, framing, stream)
        frames = _decode(path, container, stream, allow_truncated, whole=last is None)
        frames = _paced(frames, stream, framing.fps)
        for i, frame in enumerate(chain.from_iterable(ahead(_batches(frames)))):
            if last is not None and i >= last:
                break
            if resolution is None:
                resolution = _checked(path, framing, frame, stream)
                shape = frame.height, frame.width
            if (frame.height, frame.width) != shape:
                raise ValueError(
                    f"{path}: mixed frame sizes: frame {i} is {frame.width}x{frame.height} "
                    f"after {shape[1]}x{shape[0]}"
                )
            if i >= first and (i - first) % framing.stride == 0:
                yield convert(frame, resolution)
    if resolution is None:
        raise ValueError(f"{path}: holds no frames")


def _read_pictures(
    folder: Path, framing: Framing, first: int, last: int | None
) -> Iterator[Pixels]:
    """Read the pictures of a folder, which are all of one size."""
    if framing.fps is not None:
        raise ValueError(f"{folder}: pictures have no time stamps for fps: choose by stride")
    convert, shape = _converter(framing), (0, 0)
    resolution = shape
    for i, file in enumerate(pictures_in(folder)[:last]):
        with _open(file) as container:
            stream = _film(file, container)
            _check_bits(file, framing, stream)
            frame = _only_frame(file, container, stream)
            if not i:
                shape, resolution = (
                    (frame.height, frame.width),
                    _checked(file, framing, frame, stream),
                )
            if (frame.height, frame.width) != shape:
                raise ValueError(
                    f"{file}: mixed frame sizes: it is {frame.width}x{frame.height}, the pictures "
                    f"before are {shape[1]}x{shape[0]}"
                )
            if i >= first and (i - first) % framing.stride == 0:
                yield convert(frame, resolution)


def _only_frame(
    file: Path, container: "av.container.InputContainer", stream: "av.VideoStream"
) -> "av.VideoFrame":
    import av

    try:
        return next(container.decode(stream))
    except (av.error.FFmpegError, StopIteration) as error:
        raise ValueError(f"{file}: truncated or damaged: {_reason(error)}") from None


def _counts_frames(stream: "av.VideoStream") -> bool:
    """Tell whether a stream counts its time in frames, as AVI does."""
    rate, tick = stream.average_rate, stream.time_base
    return bool(rate and tick and rate * tick == 1)


@contextmanager
def _open(path: Path) -> "Iterator[av.container.InputContainer]":
    try:
        import av
    except ModuleNotFoundError:
        raise RuntimeError("videos need PyAV: pip install 'pyro-afslvm[video]'") from None
    with ExitStack() as stack:
        name: Any = str(path.absolute())  # or a:b.avi would be of protocol a
        try:
            if any("\ud800" <= character <= "\udfff" for character in name):
                name = stack.enter_context(path.open("rb"))  # a name in another encoding
            container = stack.enter_context(av.open(name, "r"))
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None
        except av.error.FFmpegError as error:
            raise ValueError(f"{path}: not a video: {_reason(error)}") from None
        yield container


def _film(path: Path, container: "av.container.InputContainer") -> "av.VideoStream":
    """Choose the stream that players show: never a picture that is only attached, like a cover.

    Raises:
        ValueError: There is none.
    """
    from av.stream import Disposition

    films = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not films:
        what = "only an attached picture" if container.streams.video else "no picture stream"
        raise ValueError(f"{path}: not a video: it has {what}")
    best = container.streams.best("video")
    return next((stream for stream in films if best is not None and stream is best), films[0])


def _bits(stream: "av.VideoStream") -> int:
    format = stream.codec_context.format
    return max((part.bits for part in format.components), default=8) if format else 8


def _channels(stream: "av.VideoStream") -> tuple[bool, bool]:
    """Whether pixels have colours, and whether they have an alpha channel."""
    format = stream.codec_context.format
    if not format:
        return False, False
    parts = format.components
    alpha = any(part.is_alpha for part in parts)
    return format.has_palette or len(parts) - alpha > 1, alpha


def _check_bits(path: Path, framing: Framing, stream: "av.VideoStream") -> None:
    """Refuse to leave out bits of pixels that nobody has given up.

    Raises:
        ValueError: Pixels have more than 8 bits.
    """
    if (bits := _bits(stream)) > 8 and not framing.reduce_bits:
        raise ValueError(
            f"{path}: its pixels have {bits} bits, of which 8 would be kept: "
            "`--data.reduce_bits true` leaves the others out, real numbers go into an array"
        )


def _decode(
    path: Path,
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    allow_truncated: bool,
    *,
    whole: bool,
) -> "_Stream[av.VideoFrame]":
    import av

    count, broken, end = 0, "", 0
    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                broken = "a damaged frame"
                break
            count += 1
            end = max(end, (frame.pts or 0) + (frame.duration or 0) - (stream.start_time or 0))
            yield frame
    except av.error.FFmpegError as error:
        broken = _reason(error)
    # Headers of intact files may count a frame or two that the decoder never shows, and files
    # may leave out pictures that are shown again.
    missing = stream.frames - max(2, stream.frames // 100) - count
    tick = (stream.duration or 0) / stream.frames if stream.frames else 0
    short = (stream.duration or 0) - end > max(2 * tick, (stream.duration or 0) / 100)
    if not broken and whole and missing > 0 and (short or not stream.duration):
        broken = "the end of the file"
    if broken and count and not allow_truncated:
        said = f" of {stream.frames}" if stream.frames else ""
        raise ValueError(f"{path}: truncated or damaged: {broken} after {count}{said} frames")


def _paced(
    frames: "_Stream[av.VideoFrame]", stream: "av.VideoStream", fps: float | None
) -> "_Stream[av.VideoFrame]":
    """Show each picture until the next one comes, so many times a second.

    Without ``fps`` that is the rate of a stream that counts its time in frames, as AVI does; of
    another the pictures are taken as they are.
    """
    tick = stream.time_base
    if fps is not None and tick:
        step = 1 / (fps * float(tick))  # in units of the time stamps
    elif _counts_frames(stream):
        step = 1.0
    else:
        yield from frames
        return
    before: av.VideoFrame | None = None
    shown, start = 0, 0
    with closing(frames):
        for frame in frames:
            if frame.pts is None:
                yield frame
                continue
            if before is None:
                start = frame.pts
            else:
                until = math.ceil(round((frame.pts - start) / step, 6))
                yield from [before] * (until - shown)
                shown = max(shown, until)
            before = frame
        if before is not None:
            end = (before.pts or 0) + (before.duration or 0)
            held = max(1.0, (end - start) / step - shown)
            yield from [before] * math.ceil(round(held, 6) - 1e-9)


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


def _checked(
    path: Path, framing: Framing, frame: "av.VideoFrame", stream: "av.VideoStream"
) -> tuple[int, int]:
    """Give the height and width to scale to, of a frame as it is shown."""
    shape = float(stream.sample_aspect_ratio or 1)  # of a pixel: width over height
    height, width = frame.height, round(frame.width * shape)
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
