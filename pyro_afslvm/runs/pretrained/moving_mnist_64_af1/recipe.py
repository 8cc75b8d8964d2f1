"""1-AF, moved: an affine flow whose shift is the last frame, each block moved as it has before."""

from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.networks.motion_grid import MotionGrid
from pyro_afslvm.transforms.conditioners import DisplacementConditioner

NAME = "1-AF (moved)"
LEARNING_RATE = 2e-3
BATCH_SIZE = 4
STEPS = 2400
AVERAGE = 0.99
DECAY = "cosine"


def build(frame_shape: tuple[int, ...] = (1, 64, 64)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    conditioner = DisplacementConditioner(MotionGrid(frame_shape, latents=0))
    return Pair(FlowModel(TemporalAffine(conditioner), frame_shape), None)
