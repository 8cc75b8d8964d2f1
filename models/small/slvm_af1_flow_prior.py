"""SLVM w/ 1-AF, small, with a flow prior: two affine transforms across time on the latents."""

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    LSTMConditioner,
    Pair,
    TemporalAffine,
    TemporalChain,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp

NAME = "SLVM w/ 1-AF, flow prior"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32), *, latent_size: int = 32) -> Pair:
    """Model and filtering guide."""
    conditioner = ConvConditioner(frame_shape[0], hidden=16, norm="group", residual=True)
    prior = [
        LSTMConditioner(latent_size, hidden=64, pre_network=mlp(latent_size, 64, 64))
        for _ in range(2)
    ]
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalChain([TemporalAffine(part) for part in prior]),
        decoder=ConvDecoder(latent_size, frame_shape, width=16),
        flow=TemporalAffine(conditioner),
    )
    encoder = ConvEncoder(frame_shape, features=64, width=16)
    return Pair(model, FilteringGuide(model, encoder, hidden=64))
