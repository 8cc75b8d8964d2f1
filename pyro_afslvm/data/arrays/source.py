"""Sequences in array files or in memory: pictures or vectors, 8-bit or real numbers."""

import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.arrays.formats import StoredArray, open_array
from pyro_afslvm.data.arrays.reader import ArrayReader, Contents, scan
from pyro_afslvm.data.dequantize import DequantizationName
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import SPLITS, EmptySplitError, Split, check_request
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    from pyro_afslvm.data.sequences import SequenceDataset

Values = NDArray[Any]

_MEMORY = ":memory:"
_LARGEST = 100.0  # standard deviation; the scale of a flow is at most 10
_ENOUGH = 10  # sequences, from which on a split takes whole ones


class Part(NamedTuple):
    """A stretch of a stored sequence: frames first, ..., first + length - 1."""

    sequence: int
    first: int
    length: int


class Arrays(SequenceSource):
    """Sequences in an npy, npz or netCDF file, a zarr folder, or in memory.

    Dimensions are (sequence, time, channel, height, width) or (sequence, time, feature);
    (time, feature) is one long series. Where the file names its dimensions they may come in
    any order. Values are uint8 or floating point; real numbers must be finite, and none of
    a frame's entries may be constant, for then a density of them has no bound.

    From ten sequences on, a fixed shuffle deals whole ones to the splits; fewer are cut in
    time, first training, then validation, then test, with ``gap`` unused frames between. No
    frame is in two splits.

    Args:
        path: The file or zarr folder.
        variable: Which array, where there are several.
        lengths: Name of the array (sequence,) that says how many frames of each sequence
            count; ``"lengths"`` by default, where it is there.
        standardize: Subtract the mean and divide by the standard deviation of each feature,
            or channel, over the training split. Reported densities are then of the
            standardized values.
        validation_fraction: Part of the sequences, or of the time, for validation.
        test_fraction: Part for test.
        gap: Frames left out between splits in time.
        seed: Seed of random crops in time.

    Raises:
        ValueError: A setting is out of range, or, when the data are first needed, they
            cannot be used.
        FileNotFoundError: There is no such file, when it is first needed.

    Example:
        >>> walk = np.random.default_rng(0).normal(size=(500, 3)).cumsum(0)
        >>> source = Arrays.from_array(walk, standardize=True)
        >>> source.dataset("train", num_frames=13)[0].shape
        torch.Size([13, 3])
    """

    name = "arrays"

    def __init__(
        self,
        *,
        path: str,
        variable: str | None = None,
        lengths: str | None = None,
        standardize: bool = False,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        gap: int = 10,
        seed: int = 0,
    ) -> None:
        check_minimum(gap=(gap, 0), seed=(seed, 0))
        _check_fractions(validation_fraction, test_fraction)
        self.path, self.variable, self.lengths = path, variable, lengths
        self.standardize, self.gap, self.seed = standardize, gap, seed
        self._fractions = {"validation": validation_fraction, "test": test_fraction}
        self._given: StoredArray | None = None

    @classmethod
    def from_array(cls, values: Any, *, lengths: Any = None, **settings: Any) -> "Arrays":
        """Make a source of a numpy array or an ``xarray.DataArray`` in memory.

        Args:
            values: The array; an ``xarray.DataArray`` brings names of its dimensions.
            lengths: How many frames of each sequence count, (sequence,).
            settings: As for the class, but for ``path`` and ``variable``.
        """
        source = cls(path=_MEMORY, **settings)
        names = getattr(values, "dims", None)
        dims = None if names is None else tuple(map(str, names))
        lengths = None if lengths is None else np.asarray(lengths)
        source._given = StoredArray(np.asarray(values), dims, lengths)
        return source

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W) or (D,)."""
        return self._reader.frame_shape

    @property
    def dequantization(self) -> DequantizationName:
        """``"gaussian"`` for uint8, ``"none"`` for floating point."""
        return "gaussian" if self._reader.is_8bit else "none"

    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split; see :meth:`SequenceSource.dataset`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It cannot be used, or the split is empty or too short.
        """
        from pyro_afslvm.data.sequences import StoredSequences

        check_request(split, num_frames)
        parts = self._parts(split)
        load = partial(
            _load,
            reader=self._reader,
            parts=parts,
            moments=None if self._reader.is_8bit else self._contents,
            standardize=self.standardize,
        )
        return StoredSequences(
            load,
            lengths=[part.length for part in parts],
            num_frames=num_frames,
            seed=self.seed,
            split=split,
            where=self._reader.where,
        )

    def describe(self) -> dict[str, object]:
        """Settings as JSON values; the data by a hash of their values, not by their place."""
        reader = self._reader
        by_time = {} if self._whole else {"gap": self.gap}
        units = "standardized" if self.standardize else "as stored"
        return {
            "name": self.name,
            "content": self._contents.digest[:16],
            "sequences": len(reader.lengths),
            "frames": int(sum(reader.lengths)),
            "frame_shape": list(reader.frame_shape),
            "values": "uint8" if reader.is_8bit else f"{reader.dtype.name}, {units}",
            "split_by": "sequence" if self._whole else "time",
            **{f"{split}_fraction": part for split, part in self._fractions.items()},
            **by_time,
            "seed": self.seed,
        }

    @cached_property
    def _reader(self) -> ArrayReader:
        if self._given is not None:
            reader = ArrayReader("the array in memory", partial(_same, self._given))
        elif self.path == _MEMORY:
            raise ValueError("the data were given in memory: hand over the same source again")
        else:
            path = Path(self.path).expanduser()
            opener = partial(open_array, path, variable=self.variable, lengths=self.lengths)
            reader = ArrayReader(self.path, opener)
        if self.standardize and reader.is_8bit:
            raise ValueError(f"{reader.where}: standardize is for real numbers, these are uint8")
        return reader

    @cached_property
    def _contents(self) -> Contents:
        train = self._parts("train")
        if not train:
            raise EmptySplitError(f"{self._reader.where}: too short, the train split is empty")
        contents = scan(self._reader, train)
        if not self._reader.is_8bit:
            self._warn(contents)
        return contents

    def _warn(self, found: Contents) -> None:
        """Warn of values with which training, or the numbers that come of it, is worth little."""
        where, low, high = self._reader.where, float(found.scale.min()), float(found.scale.max())
        if found.step:
            warnings.warn(
                f"{where}: all values are multiples of {'1' if found.step == 1 else '1/255'}, and "
                "a density of them has no bound: store them as uint8, or add noise",
                stacklevel=2,
            )
        if not self.standardize and (low < 0.01 or high > _LARGEST):
            warnings.warn(
                f"{where}: standard deviations of {low:.3g} to {high:.3g} are far from one, "
                "where models start and learn best: consider standardize",
                stacklevel=2,
            )

    @property
    def _whole(self) -> bool:
        return len(self._reader.lengths) >= _ENOUGH

    def _parts(self, split: Split) -> list[Part]:
        lengths = self._reader.lengths
        validation, test = (self._fractions[name] for name in ("validation", "test"))
        if self._whole:
            shuffled = np.random.default_rng(0).permutation(len(lengths))
            first, last = _borders(len(lengths), validation, test, 0)[split]
            return [Part(int(i), 0, int(lengths[i])) for i in sorted(shuffled[first:last])]
        parts = []
        for i, length in enumerate(lengths):
            first, last = _borders(int(length), validation, test, self.gap)[split]
            parts += [Part(i, first, last - first)] if last > first else []
        return parts


def _borders(count: int, validation: float, test: float, gap: int) -> dict[Split, tuple[int, int]]:
    """Cut ``count`` in a row into splits ``gap`` apart: first and, exclusive, last of each.

    Example:
        >>> _borders(100, 0.1, 0.2, 5)
        {'train': (0, 60), 'validation': (65, 75), 'test': (80, 100)}
    """
    sizes = [round(part * count) if part else 0 for part in (test, validation)]
    found: list[tuple[int, int]] = []
    end = count
    for size in sizes:
        found.append((max(end - size, 0), end))
        end = max(end - size - (gap if size else 0), 0)
    return dict(zip(SPLITS, [(0, end), *found[::-1]], strict=True))


def _check_fractions(validation: float, test: float) -> None:
    if min(validation, test) < 0 or not validation + test < 1:
        raise ValueError(
            "validation_fraction and test_fraction must be at least 0 and below 1 together, "
            f"got {validation:g} and {test:g}"
        )


def _same(stored: StoredArray) -> StoredArray:
    return stored


def _load(
    i: int,
    first: int,
    last: int,
    *,
    reader: ArrayReader,
    parts: list[Part],
    moments: Contents | None,
    standardize: bool,
) -> Values:  # -> (T, *frame_shape)
    part = parts[i]
    values = reader.read(part.sequence, part.first + first, part.first + last)
    if moments is None:
        return values
    if standardize:
        values = (values - moments.mean) / moments.scale
    return np.asarray(values, dtype=np.float32)
