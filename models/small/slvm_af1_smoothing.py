"""SLVM w/ 1-AF, small, with a smoothing guide: every latent sees all frames."""

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    LSTMConditioner,
    Pair,
    SmoothingGuide,
    TemporalAffine,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp

NAME = "SLVM w/ 1-AF, smoothing"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32), *, latent_size: int = 32) -> Pair:
    """Model and smoothing guide."""
    conditioner = ConvConditioner(frame_shape[0], hidden=16, norm="group", residual=True)
    prior = LSTMConditioner(latent_size, hidden=64, pre_network=mlp(latent_size, 64, 64))
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=ConvDecoder(latent_size, frame_shape, width=16),
        flow=TemporalAffine(conditioner),
    )
    encoder = ConvEncoder(frame_shape, features=64, width=16)
    return Pair(model, SmoothingGuide(model, encoder, summary=32, hidden=64))
