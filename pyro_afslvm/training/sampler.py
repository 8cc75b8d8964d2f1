"""The order of training as a pure function of seed, step and rank."""

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np


class StepBatches:
    """Batches of indices for the steps from ``position()`` on.

    The stream of indices is one shuffle of the data after another, each a function of
    (seed, epoch); step s on rank r takes its fixed place in it. Index ``epoch * size + i``
    stands for sequence i under fresh randomness.

    Args:
        size: number of sequences.
        batch_size: sequences per step and rank.
        seed: of the shuffles.
        position: the step to start with, asked when iteration starts.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        position: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if size < 1:
            raise ValueError("there are no sequences to train on")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.position = position
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in itertools.count(self.position()):
            yield self.batch(step)

    def batch(self, step: int) -> list[int]:
        """Indices of one step."""
        start = (step * self.world_size + self.rank) * self.batch_size
        return [self._index(place) for place in range(start, start + self.batch_size)]

    def _index(self, place: int) -> int:
        epoch, i = divmod(place, self.size)
        return epoch * self.size + int(_shuffle(self.size, self.seed, epoch)[i])


@lru_cache(maxsize=4)
def _shuffle(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)
