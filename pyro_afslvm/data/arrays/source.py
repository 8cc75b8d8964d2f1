"""Sequences in array files or in memory: pictures or vectors, 8-bit or real numbers."""

import math
import warnings
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.arrays.covariates import Chosen, Covariates, of_file
from pyro_afslvm.data.arrays.formats import StoredArray, column_names, open_array
from pyro_afslvm.data.arrays.reader import ArrayReader, Contents, scan
from pyro_afslvm.data.dequantize import DequantizationName
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import SPLITS, EmptySplitError, Split, check_request
from pyro_afslvm.data.standardization import Standardization
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    from pyro_afslvm.data.sequences import SequenceDataset

Values = NDArray[Any]

_MEMORY = ":memory:"
_LARGEST = 100.0  # standard deviation; the scale of a flow is at most 10
_BLOCK = 1 << 24  # bytes of float64 in a stretch
_ENOUGH = 10  # sequences, from which on a split takes whole ones


class Part(NamedTuple):
    """A stretch of a stored sequence: frames first, ..., first + length - 1."""

    sequence: int
    first: int
    length: int


class Arrays(SequenceSource):
    """Sequences in an npy, npz, netCDF or HDF5 file, a zarr folder, or in memory.

    Dimensions are (sequence, time, channel, height, width) or (sequence, time, feature);
    (time, feature) is one long series. Where the file or ``dims`` names them they may come in
    any order, and others of size one are left out. Values are uint8 or floating point; real
    numbers must be finite, and none of a frame's entries may be constant, for then a density of
    them has no bound.

    From ten sequences on, a fixed shuffle deals whole ones to the splits; fewer are cut in
    time, first training, then validation, then test, with ``gap`` unused frames between. No
    frame is in two splits.

    Args:
        path: The file or zarr folder.
        variable: Which array, where there are several; with its group, such as ``train/x``.
        lengths: Name of the array (sequence,) that says how many frames of each sequence
            count; ``"lengths"`` by default, where it is there.
        dims: Names of the dimensions, separated by commas, where the file has none or others:
            ``sequence``, ``time``, ``channel``, ``height``, ``width``, ``feature``; any other name
            is of one that has size one.
        standardize: Subtract the mean and divide by the standard deviation of each feature,
            or channel, over the training split. A run keeps both; what it reports and samples
            is in the units of the file.
        validation_fraction: Part of the sequences, or of the time, for validation.
        test_fraction: Part for test.
        gap: Frames left out between splits in time.
        seed: Seed of random crops in time.
        context: Covariates that are known of each frame in advance, such as a calendar: features
            of vectors, by their number from 0 or their name in the file, which are then no part
            of the frames; and names of other arrays of the file, (sequence, time, feature), or
            (time, feature) for one of all sequences. They are taken as they are.

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
        dims: str | None = None,
        standardize: bool = False,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        gap: int = 10,
        seed: int = 0,
        context: list[int | str] | None = None,
    ) -> None:
        check_minimum(gap=(gap, 0), seed=(seed, 0))
        _check_fractions(validation_fraction, test_fraction)
        self.path, self.variable, self.lengths, self.dims = path, variable, lengths, dims
        self.standardize, self.gap, self.seed = standardize, gap, seed
        self._fractions = {"validation": validation_fraction, "test": test_fraction}
        self.context = [*(context or [])]
        self._given: StoredArray | None = None
        self._given_context: StoredArray | None = None
        self._kept: Standardization | None = None  # by another training split

    @classmethod
    def from_array(
        cls, values: Any, *, lengths: Any = None, covariates: Any = None, **settings: Any
    ) -> "Arrays":
        """Make a source of a numpy array or an ``xarray.DataArray`` in memory.

        Args:
            values: The array; an ``xarray.DataArray`` brings names of its dimensions.
            lengths: How many frames of each sequence count, (sequence,).
            covariates: What is known of each frame in advance, (sequence, time, feature), or
                (time, feature) for all sequences; beside what ``context`` names.
            settings: As for the class, but for ``path`` and ``variable``.
        """
        source = cls(path=_MEMORY, **settings)
        source._given = _in_memory(values, None if lengths is None else np.asarray(lengths))
        if covariates is not None:
            source._given_context = _in_memory(covariates)
        return source

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W) or (D,)."""
        return self._reader.frame_shape

    @property
    def context_features(self) -> int:
        """Covariates of every frame."""
        return self._covariates.features if self._has_context else 0

    @property
    def dequantization(self) -> DequantizationName:
        """``"gaussian"`` for uint8, ``"none"`` for floating point."""
        return "gaussian" if self._reader.is_8bit else "none"

    @property
    def standardization(self) -> Standardization | None:
        """Moments of the training split, if ``standardize``."""
        if not self.standardize:
            return None
        return self._kept or Standardization(self._contents.mean, self._contents.scale)

    def standardize_by(self, standardization: Standardization | None) -> None:
        """Standardize by the moments that a model learned with, or leave values as they are.

        Raises:
            ValueError: They are of other frames.
        """
        if standardization is None and self._arguments.get("standardize"):
            raise ValueError(
                f"{self._reader.where}: the model was trained on values as they are: leave "
                "standardize out"
            )
        if standardization is not None and not self._reader.is_8bit:
            wanted = self._reader.frame_shape[0]
            if len(standardization.mean) != wanted:
                raise ValueError(
                    f"{self._reader.where}: the model was trained on values with "
                    f"{len(standardization.mean)} features or channels, these have {wanted}"
                )
        self.standardize, self._kept = standardization is not None, standardization

    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split; see :meth:`SequenceSource.dataset`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It cannot be used, or the split is empty or too short.
        """
        from pyro_afslvm.data.sequences import StoredSequences

        check_request(split, num_frames)
        parts = self._parts(split)
        if not self._reader.is_8bit:
            _ = self._contents  # which checks them
        load = partial(
            _load, reader=self._reader, parts=parts, standardization=self.standardization
        )
        context = None
        if self._has_context:
            _ = self._context_digest  # which checks them
            context = partial(_load_context, covariates=self._covariates, parts=parts)
        return StoredSequences(
            load,
            lengths=[part.length for part in parts],
            num_frames=num_frames,
            seed=self.seed,
            split=split,
            where=self._reader.where,
            context=context,
            context_features=self.context_features,
        )

    def parts(self, split: Split) -> list[Part]:
        """Say which stretches of which sequences a split has, without standardizing them."""
        check_request(split, 1)
        return self._parts(split)

    def whole(self) -> list[Values]:
        """Give all sequences as they are stored, each ``(T, *frame_shape)``."""
        reader = self._reader
        return [reader.read(i, 0, int(length)) for i, length in enumerate(reader.lengths)]

    def blocks(self) -> Iterator[tuple[int, int, Values]]:
        """Give all values as they are stored: a sequence, a frame, and a stretch from there."""
        reader = self._reader
        size = max(1, _BLOCK // (8 * math.prod(reader.frame_shape)))
        for i, length in enumerate(reader.lengths):
            for first in range(0, int(length), size):
                yield i, first, reader.read(i, first, min(first + size, int(length)))

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
            **self._described_context(),
        }

    def _described_context(self) -> dict[str, object]:
        if not self._has_context:
            return {}
        return {"context": self.context_features, "context_content": self._context_digest[:16]}

    @cached_property
    def _reader(self) -> ArrayReader:
        reader = ArrayReader(
            self._where, self._opener, dims=self._names, columns=self._chosen.frames
        )
        if self.standardize and reader.is_8bit:
            raise ValueError(f"{reader.where}: standardize is for real numbers, these are uint8")
        return reader

    @property
    def _names(self) -> list[str] | None:
        return None if self.dims is None else [name.strip() for name in self.dims.split(",")]

    @property
    def _where(self) -> str:
        return self.path if self._given is None else "the array in memory"

    @property
    def _opener(self) -> Any:
        """What opens the array of the frames."""
        if self._given is not None:
            return partial(_same, self._given)
        if self.path == _MEMORY:
            raise ValueError("the data were given in memory: hand over the same source again")
        return partial(
            open_array,
            Path(self.path).expanduser(),
            variable=self.variable,
            lengths=self.lengths,
            others=self.context,
        )

    @cached_property
    def _chosen(self) -> Chosen:
        if not self.context:
            return Chosen(StoredArray(None), self._where, ())
        chosen = Chosen(self._opener(), self._where, self.context, dims=self._names)
        if chosen.others and self._given is not None:
            raise ValueError(
                f"{self._where}: no feature {chosen.others[0]!r}; give other arrays as covariates"
            )
        return chosen

    @property
    def _has_context(self) -> bool:
        return bool(self.context) or self._given_context is not None

    @cached_property
    def _covariates(self) -> Covariates:
        readers = []
        if self._chosen.columns:
            readers.append(
                ArrayReader(
                    self._where,
                    self._opener,
                    dims=self._names,
                    columns=self._chosen.columns,
                    any_number=True,
                )
            )
        path = Path(self.path).expanduser()
        readers += [of_file(path, name) for name in self._chosen.others]
        if self._given_context is not None:
            opener = partial(_same, self._given_context)
            readers.append(ArrayReader("the covariates in memory", opener, any_number=True))
        return Covariates(readers, self._reader.lengths, self._where)

    @cached_property
    def _context_digest(self) -> str:
        return self._covariates.scanned()

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


def _in_memory(values: Any, lengths: NDArray[np.int64] | None = None) -> StoredArray:
    """Give an array, or an ``xarray.DataArray`` with the names it has, as one that is stored."""
    names = getattr(values, "dims", None)
    if names is None:
        return StoredArray(np.asarray(values), None, lengths)
    return StoredArray(np.asarray(values), tuple(map(str, names)), lengths, column_names(values))


def _load_context(
    i: int, first: int, last: int, *, covariates: Covariates, parts: list[Part]
) -> NDArray[np.float32]:  # -> (T, context_features)
    part = parts[i]
    return covariates.read(part.sequence, part.first + first, part.first + last)


def _same(stored: StoredArray) -> StoredArray:
    return stored


def _load(
    i: int,
    first: int,
    last: int,
    *,
    reader: ArrayReader,
    parts: list[Part],
    standardization: Standardization | None,
) -> Values:  # -> (T, *frame_shape)
    part = parts[i]
    values = reader.read(part.sequence, part.first + first, part.first + last)
    if reader.is_8bit:
        return values
    if standardization is not None:
        values = standardization(values)
    return np.asarray(values, dtype=np.float32)
