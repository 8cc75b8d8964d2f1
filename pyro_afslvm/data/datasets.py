"""Data sets that are pure functions of (seed, split, index)."""

import abc
import operator
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pyro_afslvm.data.base import SPLITS, EmptySplitError, Split

Frames = NDArray[np.uint8]


class SequenceDataset(Dataset[Tensor], abc.ABC):
    """Sequences of one split, as uint8 tensors (T, C, H, W).

    The index may run past the length: ``epoch, i = divmod(k, len(dataset))``. Training
    sequences differ from epoch to epoch; validation and test repeat exactly. A sequence
    depends on (seed, split, k) alone, never on the worker or on what was drawn before.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of sequences in one epoch."""

    @abc.abstractmethod
    def frames(self, k: int) -> Frames:
        """Sequence ``k`` as an array (T, C, H, W) of its own."""

    def __getitem__(self, k: int) -> Tensor:  # -> (T, C, H, W)
        k = operator.index(k)
        if k < 0:
            raise IndexError(f"a sequence index is at least 0, got {k}")
        return torch.from_numpy(self.frames(k))

    def __iter__(self) -> Iterator[Tensor]:
        # Without it, Python would iterate until an IndexError that never comes.
        return (self[k] for k in range(len(self)))


def generator(seed: int, split: Split, k: int) -> np.random.Generator:
    """Random numbers of sequence ``k`` alone.

    Example:
        >>> float(generator(0, "train", 5).random()) == float(generator(0, "train", 5).random())
        True
    """
    return np.random.default_rng([seed, SPLITS.index(split), k])


class GeneratedSequences(SequenceDataset):
    """Sequences drawn on the fly: a fresh one for every training index.

    Arguments:
        draw: Makes one sequence (T, C, H, W), uint8, from a random generator.
        size: Sequences in an epoch.
        seed: Seed of the whole set.
        split: Which split; other splits draw other numbers.

    Example:
        >>> draw = lambda rng: rng.integers(256, size=(2, 1, 4, 4), dtype=np.uint8)
        >>> test = GeneratedSequences(draw, size=3, seed=0, split="test")
        >>> torch.equal(test[1], test[4])
        True
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], Frames],
        *,
        size: int,
        seed: int,
        split: Split,
    ) -> None:
        _check_not_empty(size, split)
        self._draw, self._size, self._seed, self._split = draw, size, seed, split

    def __len__(self) -> int:
        return self._size

    def frames(self, k: int) -> Frames:
        k = k if self._split == "train" else k % self._size
        return self._draw(generator(self._seed, self._split, k))


class StoredSequences(SequenceDataset):
    """Sequences from a store, cropped in time.

    Training sequence k is stored sequence ``k % size`` from a random first frame;
    validation and test sequences start at frame 0.

    Arguments:
        load: ``load(i, first, last)`` gives frames first..last-1 of stored sequence i as
            an array (T, C, H, W), uint8.
        size: Number of stored sequences.
        stored_frames: Length of a stored sequence.
        num_frames: Length T of a crop.
        seed: Seed of the crops.
        split: Which split.

    Raises:
        ValueError: The split is empty or the stored sequences are too short.

    Example:
        >>> stored = np.arange(20, dtype=np.uint8).reshape(2, 10, 1, 1, 1)
        >>> load = lambda i, first, last: stored[i, first:last].copy()
        >>> test = StoredSequences(
        ...     load, size=2, stored_frames=10, num_frames=3, seed=0, split="test"
        ... )
        >>> test[3].flatten().tolist()
        [10, 11, 12]
    """

    def __init__(
        self,
        load: Callable[[int, int, int], Frames],
        *,
        size: int,
        stored_frames: int,
        num_frames: int,
        seed: int,
        split: Split,
    ) -> None:
        _check_not_empty(size, split)
        if num_frames > stored_frames:
            raise ValueError(
                f"num_frames is {num_frames}, but the stored sequences have {stored_frames} frames"
            )
        self._load, self._size, self._seed, self._split = load, size, seed, split
        self._num_frames, self._last_start = num_frames, stored_frames - num_frames

    def __len__(self) -> int:
        return self._size

    def frames(self, k: int) -> Frames:
        start = 0
        if self._split == "train":
            start = int(generator(self._seed, "train", k).integers(self._last_start + 1))
        return self._load(k % self._size, start, start + self._num_frames)


def _check_not_empty(size: int, split: Split) -> None:
    if size < 1:
        raise EmptySplitError(f"the {split} split is empty: ask for at least one sequence")
