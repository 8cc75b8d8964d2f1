"""SLVM w/ 1-AF, small, with a guide that improves each step by gradients of its bound."""

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    IterativeGuide,
    LSTMConditioner,
    Pair,
    TemporalAffine,
)
from pyro_afslvm.networks import ConvDecoder, mlp

NAME = "SLVM w/ 1-AF, iterative"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32), *, latent_size: int = 32) -> Pair:
    """Model and iterative guide."""
    conditioner = ConvConditioner(frame_shape[0], hidden=16, norm="group", residual=True)
    prior = LSTMConditioner(latent_size, hidden=64, pre_network=mlp(latent_size, 64, 64))
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=ConvDecoder(latent_size, frame_shape, width=16),
        flow=TemporalAffine(conditioner),
    )
    return Pair(model, IterativeGuide(model, iterations=2, hidden=(128, 128)))
