"""1-Mix, moved: each pixel is one of the likeliest places it came from, black, white or new."""

from pyro_afslvm import FlowModel, Pair, TemporalAutoregressive
from pyro_afslvm.networks.motion_grid import MotionGrid
from pyro_afslvm.transforms.conditioners import DisplacementConditioner
from pyro_afslvm.transforms.univariate import FreeMixtureMap

NAME = "1-Mix (moved)"
LEARNING_RATE = 2e-3
BATCH_SIZE = 4
STEPS = 2400
AVERAGE = 0.99
DECAY = "cosine"


def build(frame_shape: tuple[int, ...] = (1, 64, 64)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    conditioner = DisplacementConditioner(MotionGrid(frame_shape, latents=0), displacements=9)
    flow = TemporalAutoregressive(conditioner, FreeMixtureMap(9 + 3))
    return Pair(FlowModel(flow, frame_shape), None)
