"""Motivating example: white noise, integrated twice, and the two differences that undo it.

.. math:: w_t \\sim \\mathcal{N}(0, I), \\qquad u_t = u_{t-1} + w_t, \\qquad x_t = x_{t-1} + u_t

Forces, velocities and positions. Given its past, x is as simple as w: two differences across
time are the whole model, and it has nothing to learn.

Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with Autoregressive
Flows*, §3.1, Fig. 2.
"""

import torch
from torch import Tensor

from pyro_afslvm import FlowModel, Pair, TemporalChain, TemporalDifference

NAME = "motivating example"


def build(frame_shape: tuple[int, ...] = (2,)) -> Pair:
    """The exact model of x; it has no parameters and needs no guide."""
    differences = [TemporalDifference(frame_dims=len(frame_shape)) for _ in range(2)]
    return Pair(FlowModel(TemporalChain(differences), frame_shape), None)


def simulate(
    num_sequences: int, num_frames: int, seed: int = 0, *, frame_shape: tuple[int, ...] = (2,)
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions x, velocities u, forces w: ``(num_sequences, num_frames, *frame_shape)`` each."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(num_sequences, num_frames, *frame_shape, generator=generator)
    u = w.cumsum(1)
    return u.cumsum(1), u, w
