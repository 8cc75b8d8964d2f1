"""Data sets that are pure functions of (seed, split, index)."""

import abc
import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pyro_afslvm.data.splits import SPLITS, EmptySplitError, ShortSplitError, Split

Frames = NDArray[np.uint8]
Values = NDArray[np.uint8] | NDArray[np.float32]


class SequenceDataset(Dataset[Tensor], abc.ABC):
    """Sequences of one split: uint8 or float32 tensors (T, C, H, W), or float32 (T, D).

    The index may run past the length: ``epoch, i = divmod(k, len(dataset))``. Training
    sequences differ from epoch to epoch; validation and test repeat exactly. A sequence
    depends on (seed, split, k) alone, never on the worker or on what was drawn before.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of sequences in one epoch."""

    @abc.abstractmethod
    def frames(self, k: int) -> Values:
        """Sequence ``k`` as an array (T, *frame_shape) of its own."""

    def __getitem__(self, k: int) -> Tensor:  # -> (T, *frame_shape)
        k = operator.index(k)
        if k < 0:
            raise IndexError(f"a sequence index is at least 0, got {k}")
        return torch.from_numpy(self.frames(k))

    def __iter__(self) -> Iterator[Tensor]:
        # Without it, Python would iterate until an IndexError that never comes.
        return (self[k] for k in range(len(self)))


def generator(seed: int, split: Split, k: int) -> np.random.Generator:
    """Make the random generator of sequence ``k`` alone.

    Example:
        >>> float(generator(0, "train", 5).random()) == float(generator(0, "train", 5).random())
        True
    """
    return np.random.default_rng([seed, SPLITS.index(split), k])


class GeneratedSequences(SequenceDataset):
    """Sequences drawn on the fly: a fresh one for every training index.

    Args:
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

    A stored sequence of L frames has L // T windows that do not overlap, from frame 0 on.
    Validation and test are these windows in order. A training epoch has as many indices;
    index k takes the sequence of its window from a random first frame. Sequences shorter
    than T are left out.

    Args:
        load: ``load(i, first, last)`` gives frames first..last-1 of stored sequence i as
            an array (T, C, H, W) of uint8 or float32, or (T, D) of float32.
        lengths: Frames of each stored sequence.
        num_frames: Length T of a crop.
        seed: Seed of the crops.
        split: Which split.
        max_windows: Use no more than so many windows of a sequence; ``None`` for all.
        crop: Called with the loaded frames and, for training, the random numbers of this
            index; gives what is seen of each frame.
        where: What to call the store in messages.

    Raises:
        EmptySplitError: There are no sequences.
        ShortSplitError: All of them are shorter than ``num_frames``.

    Example:
        >>> stored = np.arange(20, dtype=np.uint8).reshape(2, 10, 1, 1, 1)
        >>> load = lambda i, first, last: stored[i, first:last].copy()
        >>> test = StoredSequences(load, lengths=[10, 8], num_frames=4, seed=0, split="test")
        >>> [x.flatten().tolist() for x in test]
        [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13], [14, 15, 16, 17]]
    """

    def __init__(
        self,
        load: Callable[[int, int, int], Values],
        *,
        lengths: Sequence[int],
        num_frames: int,
        seed: int,
        split: Split,
        max_windows: int | None = None,
        crop: Callable[[Values, np.random.Generator | None], Values] | None = None,
        where: str = "",
    ) -> None:
        _check_not_empty(len(lengths), split, where)
        self._lengths = np.asarray(lengths, dtype=np.int64)
        if num_frames > self._lengths.max():
            raise ShortSplitError(
                f"{_named(where)}num_frames is {num_frames}, but the stored sequences of the "
                f"{split} split have {self._lengths.max()} frames at most"
            )
        windows = self._lengths // num_frames
        self._ends = np.cumsum(windows if max_windows is None else windows.clip(max=max_windows))
        self._load, self._crop, self._num_frames = load, crop, num_frames
        self._seed, self._split = seed, split

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each stored sequence."""
        return self._lengths.copy()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def frames(self, k: int) -> Values:
        window = k % len(self)
        i = int(np.searchsorted(self._ends, window, side="right"))
        rng = generator(self._seed, "train", k) if self._split == "train" else None
        if rng is None:
            start = self._num_frames * (window - int(self._ends[i - 1] if i else 0))
        else:
            start = int(rng.integers(self._lengths[i] - self._num_frames + 1))
        frames = self._load(i, start, start + self._num_frames)
        return frames if self._crop is None else self._crop(frames, rng)


def _check_not_empty(size: int, split: Split, where: str = "") -> None:
    if size < 1:
        raise EmptySplitError(
            f"{_named(where)}the {split} split is empty: ask for at least one sequence"
        )


def _named(where: str) -> str:
    return f"{where}: " if where else ""
