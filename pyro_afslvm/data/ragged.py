"""Stored sequences as they are, from their first frame to their last."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pyro_afslvm.data.sequences import Known, StoredSequences, parted


class Ragged(NamedTuple):
    """A batch of sequences of different lengths, with zeros after the last frame of each."""

    frames: Tensor  # (batch, T, *frame_shape)
    context: Tensor | None  # (batch, T, context_features)
    lengths: Tensor  # (batch,)


class WholeSequences(Dataset[Tensor | Known]):
    """Stored sequences of their own lengths, with their covariates.

    Args:
        data: Sequences from a store.
        shortest: Frames without which a sequence is left out.

    Attributes:
        lengths: Frames of each, (N,).
        units: Independent unit of each, (N,).

    Raises:
        ValueError: No sequence is as long.

    Example:
        >>> stored = np.arange(20, dtype=np.float32).reshape(2, 10, 1)
        >>> load = lambda i, first, last: stored[i, first:last].copy()
        >>> test = StoredSequences(load, lengths=[10, 3], num_frames=2, seed=0, split="test")
        >>> whole = WholeSequences(test, shortest=2)
        >>> whole.collate([whole[0], whole[1]]).lengths
        tensor([10,  3])
    """

    def __init__(self, data: StoredSequences, *, shortest: int) -> None:
        self._data = data
        self._chosen = np.flatnonzero(data.lengths >= shortest)
        if not len(self._chosen):
            raise ValueError(f"no sequence has {shortest} frames, the longest {data.lengths.max()}")
        self.lengths: NDArray[np.int64] = data.lengths[self._chosen]
        self.units: NDArray[np.int64] = data.units_of_stored[self._chosen]

    def first(self, count: int | None) -> "WholeSequences":
        """Give the first of these sequences alone."""
        some = WholeSequences(self._data, shortest=0)
        some._chosen = self._chosen[:count]
        some.lengths, some.units = self.lengths[:count], self.units[:count]
        return some

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, k: int) -> Tensor | Known:
        frames, context = self._data.stored(int(self._chosen[k]))
        return frames if context is None else Known(frames, context)

    def collate(self, sequences: Sequence[Tensor | Known]) -> Ragged:
        """Put sequences into one batch, all as long as the longest of the data."""
        parts = [parted(sequence) for sequence in sequences]
        context = [context for _, context in parts if context is not None]
        return Ragged(
            self._padded([frames for frames, _ in parts]),
            self._padded(context) if context else None,
            torch.tensor([len(frames) for frames, _ in parts]),
        )

    def _padded(self, values: list[Tensor]) -> Tensor:
        padded = values[0].new_zeros(len(values), int(self.lengths.max()), *values[0].shape[1:])
        for row, value in zip(padded, values, strict=True):
            row[: len(value)] = value
        return padded
