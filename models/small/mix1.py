"""1-Mix, small: a mixture of each pixel given the past, for two cores."""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalMixture

NAME = "1-Mix"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000
CENTRES = ("last", 0.0, 1.0)  # a pixel stays as it is, or turns black or white


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    conditioner = ConvConditioner(
        frame_shape[0], hidden=16, norm="group", num_parameters=3 * len(CENTRES)
    )
    flow = TemporalMixture(conditioner, centres=CENTRES, scale=0.02, min_scale=1 / 270)
    return Pair(FlowModel(flow, frame_shape), None)
