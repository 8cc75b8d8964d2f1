"""Covariates of the sequences in an array: some of its own features, and other arrays."""

import hashlib
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.arrays.formats import StoredArray, open_array
from pyro_afslvm.data.arrays.reader import ArrayReader

_LARGEST = 10.0  # of covariates with which networks learn well


class Chosen:
    """Which features of an array are its frames, and what is known of each frame beside them.

    Args:
        stored: The array.
        where: What to call it in messages.
        names: Covariates: features of vectors, by their number from 0 or their name, and other
            arrays of the same file.
        dims: Names of its dimensions, in place of those that it has.

    Raises:
        ValueError: There is no such feature, one is named twice, or none is left.
    """

    def __init__(
        self,
        stored: StoredArray,
        where: str,
        names: Sequence[int | str],
        *,
        dims: Sequence[str] | None = None,
    ) -> None:
        labels = [*(stored.columns or ())]
        wanted = [labels.index(name) if name in labels else name for name in names]
        if len({*wanted}) < len(wanted):
            raise ValueError(f"{where}: context names one twice: {', '.join(map(str, names))}")
        self.columns = [name for name in wanted if isinstance(name, int)]
        self.others = [name for name in wanted if isinstance(name, str)]
        self.frames: list[int] | None = None
        if self.columns:
            reader = ArrayReader(where, partial(_same, stored), dims=dims, any_number=True)
            shape = reader.frame_shape
            self.frames = self._rest(shape, where)

    def _rest(self, shape: tuple[int, ...], where: str) -> list[int]:
        """The features that are no covariates."""
        if len(shape) != 1:
            raise ValueError(
                f"{where}: frames {shape} have no features to be covariates: name an array"
            )
        (size,) = shape
        if beyond := [column for column in self.columns if not 0 <= column < size]:
            raise ValueError(f"{where}: no feature {beyond[0]}, there are 0 to {size - 1}")
        rest = [column for column in range(size) if column not in self.columns]
        if not rest:
            raise ValueError(f"{where}: all {size} features are covariates, none is left to model")
        return rest


class Covariates:
    """Covariates of sequences, read piece by piece.

    Args:
        readers: Of arrays of vectors, whose features are put side by side; one of a single
            sequence is that of all sequences.
        lengths: Frames of each sequence.
        where: What to call the data in messages.

    Raises:
        ValueError: An array has other sequences, or fewer times, than the frames.
    """

    def __init__(
        self, readers: Sequence[ArrayReader], lengths: NDArray[np.int64], where: str
    ) -> None:
        self._readers, self._lengths, self._where = readers, lengths, where
        for reader in readers:
            self._check(reader)
        self.features = sum(reader.frame_shape[0] for reader in readers)

    def _check(self, reader: ArrayReader) -> None:
        if len(reader.frame_shape) != 1:
            raise ValueError(f"{reader.where}: covariates are vectors, got {reader.frame_shape}")
        count, wanted = len(reader.lengths), len(self._lengths)
        if count not in (1, wanted):
            raise ValueError(f"{reader.where}: covariates of {count} sequences, expected {wanted}")
        if (short := reader.lengths < self._lengths).any():
            i = int(np.argmax(short))
            raise ValueError(
                f"{reader.where}: covariates of {int(reader.lengths[i % count])} times, expected "
                f"{int(self._lengths[i])}"
            )

    def read(self, i: int, first: int, last: int) -> NDArray[np.float32]:  # -> (T, features)
        """Read those of frames first..last-1 of sequence i."""
        parts = [
            reader.read(i if len(reader.lengths) > 1 else 0, first, last)
            for reader in self._readers
        ]
        return np.concatenate(parts, 1).astype(np.float32)

    def scanned(self) -> str:
        """Hash all values, and check that they are finite.

        Raises:
            ValueError: One is not.
        """
        digest, largest = hashlib.sha256(), 0.0
        for i, length in enumerate(self._lengths):
            values = self.read(i, 0, int(length))
            digest.update(values.astype("<f4").tobytes())
            if not np.isfinite(values).all():
                time = int(np.argmin(np.isfinite(values).all(1)))
                raise ValueError(
                    f"{self._where}: a covariate is NaN or Inf in sequence {i} at time {time}"
                )
            largest = max(largest, float(np.abs(values).max(initial=0.0)))
        if largest > _LARGEST:
            warnings.warn(
                f"{self._where}: covariates reach {largest:.4g} and are taken as they are: models "
                "learn best from values near [-1, 1]",
                stacklevel=3,
            )
        return digest.hexdigest()


def of_file(path: Path, name: str) -> ArrayReader:
    """Read another array of a file, of any numbers."""
    return ArrayReader(f"{path}: {name}", partial(_alone, path, name), any_number=True)


def _alone(path: Path, name: str) -> StoredArray:
    return open_array(path, variable=name)._replace(lengths=None)


def _same(stored: StoredArray) -> StoredArray:
    return stored
