"""1-AF for vectors: one affine flow across time for series of any number of features."""

from pyro_afslvm import FlowModel, MLPConditioner, Pair, TemporalAffine

NAME = "1-AF"
LEARNING_RATE = 1e-3
BATCH_SIZE = 32
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (4,), *, context_features: int = 0) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    known = {"context_features": context_features}  # covariates, such as a calendar
    conditioner = MLPConditioner(frame_shape[0], hidden=(64, 64), residual=True, **known)
    return Pair(FlowModel(TemporalAffine(conditioner), frame_shape, **known), None)
