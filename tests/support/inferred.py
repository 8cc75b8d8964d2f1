"""Models and guides whose inference is stored and shown."""

from collections.abc import Callable
from typing import Any

import torch

from pyro_afslvm import SLVM, FilteringGuide, FlowModel, MLPConditioner, TemporalAffine
from pyro_afslvm.data import Protocol
from tests.support.kalman import exact_posterior, noise, plain_guide, system

PROTOCOL = Protocol(
    data={"name": "moving_digits"},
    split="test",
    context_frames=2,
    scored_frames=4,
    noise="gaussian",
    num_samples=3,
    bound="IWAE",
    seed=0,
    versions={},
)


def flow_model(context_length: int | None = None) -> FlowModel:
    flow = TemporalAffine(MLPConditioner(2, window=2))
    return FlowModel(flow, (2,), context_length=context_length)


def near(model: SLVM, x: torch.Tensor, wider: float = 1.1) -> Callable[..., Any]:
    """A guide close to the exact posterior."""
    exact = exact_posterior(system(model), noise(model, x)[0])
    return plain_guide(exact._replace(L=wider * exact.L))


def vector_pair() -> tuple[SLVM, FilteringGuide, torch.Tensor]:
    from pyro_afslvm.networks import MLPDecoder, MLPEncoder
    from pyro_afslvm.transforms import LSTMConditioner

    prior = TemporalAffine(LSTMConditioner(3, hidden=4))
    flow = TemporalAffine(MLPConditioner(2, window=2))
    model = SLVM(
        (2,), 3, prior=prior, decoder=MLPDecoder(3, 2, hidden=(4,)), flow=flow, context_length=2
    )
    return model, FilteringGuide(model, MLPEncoder(2, features=4), hidden=5), torch.rand(3, 6, 2)
