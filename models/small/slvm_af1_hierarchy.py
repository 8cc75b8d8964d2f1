"""SLVM w/ 1-AF, small, with two levels of latents, in the prior and in the guide."""

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    LSTMConditioner,
    Pair,
    TemporalAffine,
    TemporalHierarchy,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder

NAME = "SLVM w/ 1-AF, two levels"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32), *, latent_size: int = 32) -> Pair:
    """Model and filtering guide; a third of the latents is in the upper level."""
    sizes = [latent_size // 3, latent_size - latent_size // 3]

    def levels(context_features: int) -> TemporalHierarchy:
        upper, lower = sizes
        parts = [
            LSTMConditioner(upper, hidden=64, context_features=context_features),
            LSTMConditioner(lower, hidden=64, context_features=context_features + upper),
        ]
        return TemporalHierarchy([TemporalAffine(part) for part in parts], sizes)

    conditioner = ConvConditioner(frame_shape[0], hidden=16, norm="group", residual=True)
    model = SLVM(
        frame_shape,
        latent_size,
        prior=levels(0),
        decoder=ConvDecoder(latent_size, frame_shape, width=16),
        flow=TemporalAffine(conditioner),
    )
    encoder = ConvEncoder(frame_shape, features=64, width=16)
    return Pair(model, FilteringGuide(model, encoder, posterior=levels(64)))
