"""1-Spline, small: a spline of each pixel's noise given the past, for two cores."""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalSpline

NAME = "1-Spline"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000
BINS = 6


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    conditioner = ConvConditioner(
        frame_shape[0], hidden=16, norm="group", num_parameters=3 * BINS + 1, residual=True
    )
    return Pair(FlowModel(TemporalSpline(conditioner, bins=BINS), frame_shape), None)
