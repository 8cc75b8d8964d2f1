"""Seeds of torch as pure functions of what the random numbers are for."""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Uses of random numbers besides a training's own, whose streams are its ranks: 0, 1, ...

    The values are fixed: what was reported was drawn with them.
    """

    VALIDATION = 1 << 20
    PARAMETERS = 1 << 21
    EVALUATION = 1 << 22
    PICTURES = 1 << 23
    PROGRAM = 1 << 24
    PARTICLES = 1 << 25
    ESTIMATE = 1 << 26


def seed_step(seed: int, step: int, stream: int) -> None:
    """Seed torch for one step of something, so that its random numbers can be drawn again.

    Args:
        seed: of the whole.
        step: of the training, or the number of a batch.
        stream: a :class:`Stream`, or the rank of a training's process.
    """
    state = np.random.SeedSequence([seed, step, int(stream)]).generate_state(2, np.uint32)
    torch.manual_seed(int(state[0]) << 31 ^ int(state[1]))
