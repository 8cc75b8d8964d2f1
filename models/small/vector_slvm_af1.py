"""SLVM w/ 1-AF for vectors: the latent variable model on the noise of a flow."""

from pyro_afslvm import (
    SLVM,
    FilteringGuide,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    TemporalAffine,
)
from pyro_afslvm.networks import MLPDecoder, MLPEncoder, mlp

NAME = "SLVM w/ 1-AF"
LEARNING_RATE = 1e-3
BATCH_SIZE = 32
STEPS = 2000


def build(
    frame_shape: tuple[int, ...] = (4,), *, latent_size: int = 8, context_features: int = 0
) -> Pair:
    """Model and filtering guide."""
    size = frame_shape[0]
    known = {"context_features": context_features}  # covariates, such as a calendar
    conditioner = MLPConditioner(size, hidden=(64, 64), residual=True, **known)
    prior = LSTMConditioner(latent_size, hidden=32, pre_network=mlp(latent_size, 32), **known)
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=MLPDecoder(latent_size, size),
        flow=TemporalAffine(conditioner),
        **known,
    )
    encoder = MLPEncoder(size, features=32)
    return Pair(model, FilteringGuide(model, encoder, hidden=32))
