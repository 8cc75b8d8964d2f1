"""1-Glow, small: couplings across space, given the past, for two cores."""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAutoregressive
from pyro_afslvm.transforms import GlowMap

NAME = "1-Glow"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    glow = GlowMap(frame_shape[0], steps=4, features=4, residual=True)
    conditioner = ConvConditioner(
        frame_shape[0], hidden=16, norm="group", num_parameters=glow.num_parameters
    )
    return Pair(FlowModel(TemporalAutoregressive(conditioner, glow), frame_shape), None)
