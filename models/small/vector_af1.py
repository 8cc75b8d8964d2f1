"""1-AF for vectors: one affine flow across time for series of any number of features."""

from pyro_afslvm import FlowModel, MLPConditioner, Pair, TemporalAffine

NAME = "1-AF"
LEARNING_RATE = 1e-3
BATCH_SIZE = 32
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (4,)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    conditioner = MLPConditioner(frame_shape[0], hidden=(64, 64), residual=True)
    return Pair(FlowModel(TemporalAffine(conditioner), frame_shape), None)
