"""1-AF, small: one affine flow across time for frames of 32 x 32 on two cores."""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine

NAME = "1-AF"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32), *, context_features: int = 0) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    known = {"context_features": context_features}  # covariates, such as a robot's actions
    conditioner = ConvConditioner(frame_shape[0], hidden=16, norm="group", residual=True, **known)
    return Pair(FlowModel(TemporalAffine(conditioner), frame_shape, **known), None)
