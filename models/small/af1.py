"""1-AF, small: one affine flow across time for frames of 32 x 32 on two cores."""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine

NAME = "1-AF"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    conditioner = ConvConditioner(frame_shape[0], hidden=16, norm="group", residual=True)
    return Pair(FlowModel(TemporalAffine(conditioner), frame_shape), None)
