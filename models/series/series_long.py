"""1-AF for series with a window of 48 frames, such as a day of half-hours, and t noise."""

from collections.abc import Iterable

from torch import Tensor

from pyro_afslvm import MLPConditioner, Pair
from pyro_afslvm.models.noise import JointStudentT
from pyro_afslvm.models.series import estimate_from, series_model, vector_size

NAME = "AF of 48, t"
LEARNING_RATE = 2e-3
BATCH_SIZE = 32
STEPS = 3000
DECAY = "cosine"
AVERAGE = 0.99
WINDOW = 48


def build(frame_shape: tuple[int, ...] = (4,), *, context_features: int = 0) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    size = vector_size(frame_shape)
    known = {"context_features": context_features}  # covariates, such as a calendar
    network = MLPConditioner(2 * size, window=WINDOW - 1, hidden=(64, 64), **known)
    base = JointStudentT(size)
    model = series_model(frame_shape, lags=WINDOW, network=network, base=base, **known)
    return Pair(model, None)


def estimate(pair: Pair, batches: Iterable[Tensor]) -> None:
    """The linear part in closed form."""
    estimate_from(pair.model, batches)
