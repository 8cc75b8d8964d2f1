"""SLVM for series: latent variables on the noise of a vector autoregression."""

from collections.abc import Iterable

from torch import Tensor, nn

from pyro_afslvm import SLVM, FilteringGuide, LSTMConditioner, Pair, TemporalAffine
from pyro_afslvm.models.series import estimate_from, series_flow, vector_size
from pyro_afslvm.networks import MLPDecoder, MLPEncoder, mlp

NAME = "SLVM"
LEARNING_RATE = 2e-3
BATCH_SIZE = 32
STEPS = 3000
DECAY = "cosine"
AVERAGE = 0.99


def build(
    frame_shape: tuple[int, ...] = (4,), *, latent_size: int = 8, context_features: int = 0
) -> Pair:
    """Model and filtering guide."""
    size = vector_size(frame_shape)
    known = {"context_features": context_features}  # covariates, such as a calendar
    prior = LSTMConditioner(latent_size, hidden=32, pre_network=mlp(latent_size, 32), **known)
    decoder = MLPDecoder(latent_size, size)
    nn.init.zeros_(decoder.heads.weight)  # the noise of the flow at the start, whatever the latents
    nn.init.zeros_(decoder.heads.bias)
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=decoder,
        flow=series_flow(size, **known),
        **known,
    )
    return Pair(model, FilteringGuide(model, MLPEncoder(size, features=32), hidden=32))


def estimate(pair: Pair, batches: Iterable[Tensor]) -> None:
    """The linear part in closed form."""
    estimate_from(pair.model, batches)
