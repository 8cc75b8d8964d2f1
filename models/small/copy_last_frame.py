"""Copy-last-frame: a Normal around the last frame with one scale, the baseline.

The scale is that of the highest likelihood on training sequences, which has a closed form.
"""

from collections.abc import Iterable

from torch import Tensor

from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.transforms import LastFrame

NAME = "copy last frame"
BATCH_SIZE = 8
STEPS = 1  # which moves nothing


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has one parameter."""
    frame = LastFrame(len(frame_shape), learned_scale=True).requires_grad_(False)
    return Pair(FlowModel(TemporalAffine(frame), frame_shape, context_length=3), None)


def estimate(pair: Pair, batches: Iterable[Tensor]) -> None:
    r""":math:`\sigma^2 = E (x_t - x_{t-1})^2` over the scored frames of training sequences."""
    total, count = 0.0, 0
    for x in batches:
        change = x[:, 3:] - x[:, 2:-1]
        total, count = total + float(change.double().square().sum()), count + change.numel()
    scale = pair.model.flow.conditioner.log_scale
    scale.fill_((total / count) ** 0.5).log_()
