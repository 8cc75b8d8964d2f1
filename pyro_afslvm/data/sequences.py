"""Data sets that are pure functions of (seed, split, index)."""

import abc
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pyro_afslvm.data.splits import SPLITS, EmptySplitError, ShortSplitError, Split

Frames = NDArray[np.uint8]
Values = NDArray[np.uint8] | NDArray[np.float32]
Covariates = NDArray[np.float32]
Windows = Literal["all", "one", "whole"]  # what is scored of each sequence: crops, or all of it


class SequenceDataset(Dataset[Tensor], abc.ABC):
    """Sequences of one split: uint8 or float32 tensors (T, C, H, W), or float32 (T, D).

    The index may run past the length: ``epoch, i = divmod(k, len(dataset))``. Training
    sequences differ from epoch to epoch; validation and test repeat exactly. A sequence
    depends on (seed, split, k) alone, never on the worker or on what was drawn before.

    Attributes:
        windows: Whether an epoch has one crop of each sequence, or all that do not overlap.
        context_features: Covariates that are known of every frame; 0 for none.
    """

    windows: Windows = "one"
    context_features: int = 0

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of sequences in one epoch."""

    @abc.abstractmethod
    def frames(self, k: int) -> Values:
        """Sequence ``k`` as an array ``(T, *frame_shape)`` of its own."""

    def context(self, k: int) -> Covariates:
        """Covariates of the frames of sequence ``k``: (T, context_features)."""
        raise ValueError("these sequences have no covariates")

    @property
    def sequences(self) -> NDArray[np.int64]:
        """Number of the sequence that each crop of an epoch is cut from, (N,); its own here."""
        return np.arange(len(self))

    @property
    def units(self) -> NDArray[np.int64]:
        """Number of the independent unit that each crop is of, such as a video or a person, (N,).

        Numbers stay the same whatever the length of the crops is.
        """
        return self.sequences

    def __getitem__(self, k: int) -> Tensor:  # -> (T, *frame_shape)
        k = operator.index(k)
        if k < 0:
            raise IndexError(f"a sequence index is at least 0, got {k}")
        return torch.from_numpy(self.frames(k))

    def __iter__(self) -> Iterator[Tensor]:
        # Without it, Python would iterate until an IndexError that never comes.
        return (self[k] for k in range(len(self)))


class Known(NamedTuple):
    """Frames of a sequence, or of a batch, and covariates that are known of each of them."""

    frames: Tensor  # (*batch, T, *frame_shape)
    context: Tensor  # (*batch, T, context_features)


class KnownSequences(Dataset[Known]):
    """Sequences together with their covariates.

    Args:
        data: Has covariates.
    """

    def __init__(self, data: SequenceDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: int) -> Known:
        return Known(self.data[k], torch.from_numpy(self.data.context(operator.index(k))))

    @property
    def units(self) -> NDArray[np.int64]:
        """Number of the independent unit that each sequence is of, (N,)."""
        return self.data.units


def with_context(data: SequenceDataset) -> Any:
    """Give sequences together with their covariates, or as they are where they have none."""
    return KnownSequences(data) if data.context_features else data


def parted(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Take frames and covariates apart; ``None`` where there are none.

    Args:
        batch: Of :func:`with_context`.
    """
    return (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1])


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
        units: Independent unit of each stored sequence, such as the person it shows; by
            default every sequence is one.
        context: ``context(i, first, last)`` gives the covariates of frames first..last-1 of
            stored sequence i as an array (T, context_features) of float32.
        context_features: How many there are of each frame; 0 for none.

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
        units: Sequence[int] | None = None,
        context: Callable[[int, int, int], Covariates] | None = None,
        context_features: int = 0,
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
        self._units = np.arange(len(lengths)) if units is None else np.asarray(units)
        self.windows = "one" if max_windows == 1 else "all"
        self._context, self.context_features = context, context_features

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each stored sequence."""
        return self._lengths.copy()

    @property
    def sequences(self) -> NDArray[np.int64]:
        """Number of the stored sequence that each window is cut from, (N,)."""
        return np.searchsorted(self._ends, np.arange(len(self)), side="right")

    @property
    def units(self) -> NDArray[np.int64]:
        """Number of the independent unit of each window, (N,)."""
        found: NDArray[np.int64] = self._units[self.sequences]
        return found

    @property
    def units_of_stored(self) -> NDArray[np.int64]:
        """Number of the independent unit of each stored sequence."""
        return self._units.copy()

    def stored(self, i: int) -> tuple[Tensor, Tensor | None]:
        """Stored sequence ``i`` from its first frame to its last, with its covariates."""
        length = int(self._lengths[i])
        frames = self._load(i, 0, length)
        if self._crop is not None:
            frames = self._crop(frames, None)
        known = None if self._context is None else self._context(i, 0, length)
        return torch.from_numpy(frames), None if known is None else torch.from_numpy(known)

    def whole(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Every stored sequence from its first frame to its last, with its covariates."""
        return map(self.stored, range(len(self._lengths)))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def frames(self, k: int) -> Values:
        i, start, rng = self._place(k)
        frames = self._load(i, start, start + self._num_frames)
        return frames if self._crop is None else self._crop(frames, rng)

    def context(self, k: int) -> Covariates:
        if self._context is None:
            return super().context(k)
        i, start, _ = self._place(k)
        return self._context(i, start, start + self._num_frames)

    def _place(self, k: int) -> tuple[int, int, np.random.Generator | None]:
        """Stored sequence and first frame of sequence ``k``, and its random numbers from there."""
        window = k % len(self)
        i = int(np.searchsorted(self._ends, window, side="right"))
        rng = generator(self._seed, "train", k) if self._split == "train" else None
        if rng is None:
            start = self._num_frames * (window - int(self._ends[i - 1] if i else 0))
        else:
            start = int(rng.integers(self._lengths[i] - self._num_frames + 1))
        return i, start, rng


def _check_not_empty(size: int, split: Split, where: str = "") -> None:
    if size < 1:
        raise EmptySplitError(
            f"{_named(where)}the {split} split is empty: ask for at least one sequence"
        )


def _named(where: str) -> str:
    return f"{where}: " if where else ""
