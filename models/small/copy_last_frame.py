"""Copy-last-frame: a Normal around the last frame with one learned scale, the baseline."""

from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.transforms import LastFrame

NAME = "copy last frame"
LEARNING_RATE = 5e-2
BATCH_SIZE = 8
STEPS = 200


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has one parameter."""
    frame = LastFrame(len(frame_shape), learned_scale=True)
    return Pair(FlowModel(TemporalAffine(frame), frame_shape, context_length=3), None)
