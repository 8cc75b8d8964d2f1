"""SLVM, moved, affine as the paper's: latents say how the last frame moves, pixels are Gaussian.

There is no flow below: prior and decoder see the last three frames themselves, Eq. 17. From fresh
weights the latents are not taken up; ``--start_from`` a run of ``slvm_mix.py``.
"""

from pyro_afslvm import SLVM, FilteringGuide, Pair, TemporalAffine
from pyro_afslvm.networks.motion_grid import MotionGrid, MotionSummary
from pyro_afslvm.networks.motion_latents import MotionDecoder, MotionEncoder
from pyro_afslvm.networks.window_memory import WindowMemory
from pyro_afslvm.transforms.conditioners import GivenParameters, StandardNormal

NAME = "SLVM (moved)"
LEARNING_RATE = 2e-3
BATCH_SIZE = 4
STEPS = 4000
AVERAGE = 0.99
DECAY = "cosine"
DIVERGENCE = "closed"  # by samples it is so noisy at first that latents are not taken up


def build(frame_shape: tuple[int, ...] = (1, 64, 64)) -> Pair:
    """Model and filtering guide."""
    grid = MotionGrid(frame_shape)
    model = SLVM(
        frame_shape,
        grid.latent_size,
        prior=TemporalAffine(StandardNormal(grid.latent_size)),
        decoder=MotionDecoder(grid),
        memory=WindowMemory(MotionSummary(grid), window=grid.window),
        decode_memory=True,
        context_length=grid.window,
    )
    posterior = TemporalAffine(GivenParameters(grid.latent_size))
    guide = FilteringGuide(model, MotionEncoder(grid), posterior=posterior, encode_memory=True)
    return Pair(model, guide)
