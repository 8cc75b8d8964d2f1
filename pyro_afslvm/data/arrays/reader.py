"""Reading of the sequences in a stored array, and a scan of what they hold."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.arrays.formats import StoredArray
from pyro_afslvm.utils.dims import FRAME_DIMS

Values = NDArray[Any]

_NAMES = {  # what dimensions are called
    "sequence": ("sequence", "sequences", "sample", "batch", "episode", "video"),
    "time": ("time", "t", "frame", "frames", "date", "valid_time", "datetime", "timestamp"),
    "channel": ("channel", "channels", "c"),
    "height": ("height", "h", "y", "lat", "latitude"),
    "width": ("width", "w", "x", "lon", "longitude"),
    "feature": ("feature", "features", "d"),
}
_ORDER = tuple(_NAMES)
SINGLE = "single"  # a dimension of size one that says nothing
_FEW = (1, 3, 4)  # channels of pictures: grey, colour, and colour with transparency
_BY_RANK = {
    1: ("time",),
    2: ("time", "feature"),
    3: ("sequence", "time", *FRAME_DIMS[1]),
    5: ("sequence", "time", *FRAME_DIMS[3]),
}
_BLOCK = 8 << 20  # bytes read at a time while scanning


class ArrayReader:
    """Reads pieces of the sequences of a stored array.

    The file is opened when it is first needed, in each process anew; a pickle holds the
    way to it, not its content.

    Args:
        where: What to call the data in messages.
        opener: Opens the array.
        dims: Names of its dimensions, in place of those that it has.
        columns: Features of vectors that are read; ``None`` for all.
        any_number: Whether values may be whole numbers, which are then read as real ones.
    """

    def __init__(
        self,
        where: str,
        opener: Callable[[], StoredArray],
        *,
        dims: Sequence[str] | None = None,
        columns: Sequence[int] | None = None,
        any_number: bool = False,
    ) -> None:
        self.where, self._opener, self._columns = where, opener, columns
        self._opened: tuple[int, StoredArray] | None = None
        stored = self._stored()
        self.dtype = np.dtype(stored.values.dtype)
        if self.dtype != np.uint8 and self.dtype.kind not in ("biuf" if any_number else "f"):
            wanted = "numbers" if any_number else "uint8 or floating point"
            raise ValueError(f"{where}: expected {wanted}, got {self.dtype}")
        shape = tuple(stored.values.shape)
        self.dims = dimensions(stored.dims if dims is None else dims, shape, where)
        sizes = dict(zip(self.dims, shape, strict=True))
        self.frame_shape = _frame_shape(sizes)
        self._stored_shape = self.frame_shape
        if columns is not None:
            self.frame_shape = (len(columns),)
        if not math.prod(shape):
            raise ValueError(f"{where}: holds no values, its shape is {shape}")
        self.lengths = _lengths(stored.lengths, sizes, where)

    @property
    def is_8bit(self) -> bool:
        """True for uint8, False for floating point."""
        return bool(self.dtype == np.uint8)

    def read(self, i: int, first: int, last: int) -> Values:  # -> (T, *frame_shape)
        """Read frames first..last-1 of sequence i into an array of its own."""
        places: dict[str, int | slice] = {"sequence": i, "time": slice(first, last), SINGLE: 0}
        index = tuple(places.get(name, slice(None)) for name in self.dims)
        piece = np.array(self._stored().values[index])
        kept = [name for name in self.dims if name not in ("sequence", SINGLE)]
        order = [kept.index(name) for name in _ORDER if name in kept]
        frames = np.ascontiguousarray(piece.transpose(order)).reshape(-1, *self._stored_shape)
        return frames if self._columns is None else frames[:, self._columns]

    def _stored(self) -> StoredArray:
        if self._opened is None or self._opened[0] != os.getpid():  # a fork shares no handle
            self._opened = os.getpid(), self._opener()
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def dimensions(names: Sequence[str] | None, shape: Sequence[int], where: str) -> tuple[str, ...]:
    """Name the dimensions of an array, by their own names or else by how many there are.

    One unknown name beside those of sequences and time is taken for the features', and unknown
    ones of size one are left out. Without names, five dimensions are (sequence, time, channel,
    height, width), or end in the channels where only the last size can be that of channels.

    Raises:
        ValueError: That is not clear.

    Example:
        >>> dimensions(("station", "time"), (7, 500), "x.nc")
        ('feature', 'time')
        >>> dimensions(None, (10, 20, 64, 64, 3), "x.npy")
        ('sequence', 'time', 'height', 'width', 'channel')
    """
    rank = len(shape)
    home = {alias: name for name, aliases in _NAMES.items() for alias in aliases}
    found = [home.get(name.lower()) for name in names or ()]
    if not any(found) and rank in _BY_RANK:
        return _unnamed(shape, where)
    if names is not None and len(names) == rank:
        found = [
            SINGLE if name is None and size == 1 else name
            for name, size in zip(found, shape, strict=True)
        ]
    if found.count(None) == 1 and not {"feature", "channel", "height", "width"} & {*found}:
        found = [name or "feature" for name in found]
    if "height" not in found and "width" not in found:
        found = ["feature" if name == "channel" else name for name in found]
    known = [name for name in found if name]
    told = [name for name in known if name != SINGLE]
    pictures = ("height" in known) == ("width" in known) and not {"height", "feature"} <= {*known}
    if len(known) < rank or len({*told}) < len(told) or "time" not in known or not pictures:
        got = f"({', '.join(names)})" if names else f"{rank} of them without names"
        raise ValueError(
            f"{where}: expected dimensions (sequence, time, channel, height, width), (sequence, "
            f"time, feature) or (time, feature), got {got}: name those of {tuple(shape)} by dims"
        )
    return tuple(known)


def _unnamed(shape: Sequence[int], where: str) -> tuple[str, ...]:
    """Name dimensions by their number and, for pictures, by which can be that of channels."""
    usual = _BY_RANK[len(shape)]
    if len(shape) < 5 or shape[2] in (*_FEW, 2):
        return usual
    if shape[4] in _FEW:
        return ("sequence", "time", "height", "width", "channel")
    if shape[2] == shape[3] != shape[4]:  # square pictures, it seems
        raise ValueError(
            f"{where}: the channels of an array {tuple(shape)} may come third or last: say so by "
            "dims, such as sequence,time,height,width,channel"
        )
    return usual


class Contents(NamedTuple):
    """Results of a scan of all values."""

    digest: str  # SHA-256 of type, shape, lengths and values
    mean: Values  # over the training split, (D,) or (C, 1, 1)
    scale: Values  # standard deviation over it
    step: float  # 1 or 1/255 where all of its values are multiples of that, 0 elsewhere


def scan(reader: ArrayReader, train: Sequence[tuple[int, int, int]]) -> Contents:
    """Read everything once: hash all values, and check real numbers and take their moments.

    Args:
        reader: Of the sequences.
        train: Sequence, first frame and number of frames of the parts for training.

    Raises:
        ValueError: Real numbers are not finite, or constant over the training split.
    """
    head = [reader.dtype.name, reader.frame_shape, [int(length) for length in reader.lengths]]
    digest = hashlib.sha256(repr(head).encode())
    for i, first, block in _blocks(reader):
        digest.update(block.astype(block.dtype.newbyteorder("<"), copy=False).tobytes())
        if not reader.is_8bit and not np.isfinite(block).all():
            time = first + int(np.argmin(np.isfinite(block).reshape(len(block), -1).all(1)))
            raise ValueError(f"{reader.where}: NaN or Inf in sequence {i} at time {time}")
    if reader.is_8bit:
        return Contents(digest.hexdigest(), np.zeros(()), np.ones(()), 1.0)
    return Contents(digest.hexdigest(), *_moments(reader, train))


def _moments(
    reader: ArrayReader, train: Sequence[tuple[int, int, int]]
) -> tuple[Values, Values, float]:
    """Mean and deviation of each feature or channel, merged block by block, and the step."""
    spread = (0,) if len(reader.frame_shape) == 1 else (0, 2, 3)
    low: Any = np.inf
    high: Any = -np.inf
    count, mean, squares = 0.0, np.zeros(()), np.zeros(())
    steps = [1.0, 1 / 255]
    for i, first, length in train:
        for _, _, block in _blocks(reader, i, first, first + length):
            values = block.astype(np.float64)
            steps = [step for step in steps if _are_multiples(values, step)]
            low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
            n, center = values[:, 0].size, values.mean(spread, keepdims=True)[0]
            shift, total = center - mean, count + n
            squares = squares + ((values - center) ** 2).sum(spread, keepdims=True)[0]
            squares = squares + shift**2 * count * n / total
            count, mean = total, mean + shift * n / total
    if constant := int((low == high).sum()):
        raise ValueError(
            f"{reader.where}: {constant} of {math.prod(reader.frame_shape)} entries of a frame "
            "are constant over the training split, and a density of them has no bound: leave "
            "them out, or store 8-bit pictures as uint8"
        )
    return mean, np.sqrt(squares / count), max(steps, default=0.0)


def _are_multiples(values: Values, step: float) -> bool:
    return bool(np.allclose(values / step, np.rint(values / step), rtol=0, atol=1e-3))


def _blocks(
    reader: ArrayReader, sequence: int | None = None, first: int = 0, last: int | None = None
) -> Any:
    """Sequence, first frame and frames of pieces of moderate size, in order."""
    step = max(1, _BLOCK // (math.prod(reader.frame_shape) * reader.dtype.itemsize))
    for i in range(len(reader.lengths)) if sequence is None else (sequence,):
        end = int(reader.lengths[i]) if last is None else last
        for start in range(first, end, step):
            yield i, start, reader.read(i, start, min(start + step, end))


def _frame_shape(sizes: dict[str, int]) -> tuple[int, ...]:
    if "height" in sizes:
        return (sizes.get("channel", 1), sizes["height"], sizes["width"])
    return (sizes.get("feature", 1),)


def _lengths(given: Any, sizes: dict[str, int], where: str) -> NDArray[np.int64]:
    count, longest = sizes.get("sequence", 1), sizes["time"]
    if given is None:
        return np.full(count, longest, dtype=np.int64)
    lengths = np.asarray(given)
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: expected {count} whole lengths, got {lengths.dtype} of {lengths.shape}"
        )
    if lengths.min() < 0 or lengths.max() > longest:
        raise ValueError(f"{where}: lengths must lie in 0..{longest}")
    return lengths.astype(np.int64)
