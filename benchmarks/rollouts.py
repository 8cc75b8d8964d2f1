"""Frames that follow given ones, by the library and by the sequential program.

The given frames are looked at beforehand: what is left to time is sampling.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.bare import networks_of
from benchmarks.graphs import Precision, autocast
from benchmarks.sequential import Sequential
from pyro_afslvm import Pair
from pyro_afslvm.models.base import simulate
from pyro_afslvm.models.programs import evaluating


@torch.no_grad()
def following(pair: Pair, x: Tensor, precision: Precision) -> Callable[[Tensor], Tensor]:
    """Give the map from draws ``(batch, horizon, eps_size)`` to the frames that follow ``x``."""
    model, guide = pair
    with evaluating(model, guide), autocast(x.device, precision):
        z = None if guide is None else guide(x)
        state = model.initial_state(x.shape[:1], given=model.given(x), z=z)

    @torch.no_grad()
    def sample(eps: Tensor) -> Tensor:  # -> (batch, horizon, *frame_shape)
        with evaluating(model, guide), autocast(x.device, precision):
            frames: Tensor = simulate(model, eps, state).x
        return frames

    return sample


def sampling(pair: Pair, x: Tensor, horizon: int, precision: Precision) -> Callable[[], Tensor]:
    """Draws the frames that follow ``x`` from the library."""
    sample = following(pair, x, precision)
    size = (len(x), horizon, int(pair.model.eps_size))
    return lambda: sample(torch.randn(size, dtype=x.dtype, device=x.device))


def sequential_sampling(pair: Pair, x: Tensor, horizon: int) -> Callable[[], Tensor]:
    """Draws the same from the sequential program; the pair is in evaluation mode."""
    sequential = Sequential(networks_of(pair))
    past = sequential.past(x)
    return lambda: sequential.sample(past, horizon)
