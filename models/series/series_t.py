"""1-AF for series whose entries are large together: multivariate t noise."""

from collections.abc import Iterable

from torch import Tensor

from pyro_afslvm import MLPConditioner, Pair
from pyro_afslvm.models.noise import JointStudentT
from pyro_afslvm.models.series import estimate_from, series_model, vector_size

NAME = "AF, t"
LEARNING_RATE = 2e-3
BATCH_SIZE = 32
STEPS = 3000
DECAY = "cosine"
AVERAGE = 0.99


def build(frame_shape: tuple[int, ...] = (4,), *, context_features: int = 0) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    size = vector_size(frame_shape)
    known = {"context_features": context_features}  # covariates, such as a calendar
    network = MLPConditioner(2 * size, window=1, hidden=(32, 32), **known)
    base = JointStudentT(size)
    return Pair(series_model(frame_shape, network=network, base=base, **known), None)


def estimate(pair: Pair, batches: Iterable[Tensor]) -> None:
    """The linear part in closed form."""
    estimate_from(pair.model, batches)
