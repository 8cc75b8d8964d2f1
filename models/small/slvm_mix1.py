"""SLVM w/ 1-Mix, small: the latent variable model on a mixture flow's noise, for two cores."""

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    LSTMConditioner,
    Pair,
    TemporalAffine,
    TemporalMixture,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp

NAME = "SLVM w/ 1-Mix"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000
CENTRES = ("last", 0.0, 1.0)  # a pixel stays as it is, or turns black or white


def build(frame_shape: tuple[int, ...] = (1, 32, 32), *, latent_size: int = 32) -> Pair:
    """Model and filtering guide."""
    conditioner = ConvConditioner(
        frame_shape[0], hidden=16, norm="group", num_parameters=3 * len(CENTRES)
    )
    prior = LSTMConditioner(latent_size, hidden=64, pre_network=mlp(latent_size, 64, 64))
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=ConvDecoder(latent_size, frame_shape, width=16),
        flow=TemporalMixture(conditioner, centres=CENTRES, scale=0.02, min_scale=1 / 270),
    )
    encoder = ConvEncoder(frame_shape, features=64, width=16)
    return Pair(model, FilteringGuide(model, encoder, hidden=64))
