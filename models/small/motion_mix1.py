"""1-Mix with motion, small: each pixel is a moved one, black or white; for two cores."""

from pyro_afslvm import FlowModel, MotionConditioner, Pair, TemporalMixture

NAME = "1-Mix, moved"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000
CENTRES = ("predicted", "predicted", 0.0, 1.0)  # moved in two ways, black, white


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    conditioner = MotionConditioner(frame_shape[0], num_parameters=14, moves=2)
    flow = TemporalMixture(conditioner, centres=CENTRES, scale=0.02, min_scale=1 / 270)
    return Pair(FlowModel(flow, frame_shape), None)
