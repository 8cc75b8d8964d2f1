"""The inverse of a transform across time, step by step, and the composition of affine steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Transform

from pyro_afslvm.utils.renamed import renamed_keyword


class Inverse(NamedTuple):
    """The noise behind a sequence, and the log-scale of every entry, of one shape."""

    noise: Tensor
    log_scale: Tensor


class AffineStep(NamedTuple):
    r"""One affine transform of a chain, inverted: :math:`x = \mu + \sigma \odot y`.

    Each of shape ``(*batch, T, *frame_shape)``; :math:`\mu` and :math:`\sigma` come from the past.
    """

    shift: Tensor
    log_scale: Tensor
    noise: Tensor


class Prediction(NamedTuple):
    """What is known of a frame before it is there: the map that will make it of its noise."""

    transform: Transform  # from noise to frame, (*batch, *frame_shape)
    pending: Any  # what the transform across time needs to absorb the frame


def sum_log_scales(steps: Sequence[AffineStep | Inverse]) -> Tensor:
    """Log-scales of a whole chain, which add (Eq. 15); the shape of the frames."""
    total = steps[0].log_scale
    for step in steps[1:]:
        total = total + step.log_scale
    return total


@renamed_keyword("levels", "steps")
def compose(steps: Sequence[AffineStep | Inverse]) -> tuple[Tensor, Tensor]:
    r"""Shift and log-scale of a whole chain of affine transforms.

    .. math:: x = \mu_M + \sigma_M (\mu_{M-1} + \sigma_{M-1} (\dots y))

    Args:
        steps: the one nearest to the frames first, as
            :meth:`~pyro_afslvm.transforms.ConditionedTemporalTransform.intermediates` has them.

    Raises:
        TypeError: if a step is not affine, so that there is no shift.
    """
    affine = [step for step in steps if isinstance(step, AffineStep)]
    if len(affine) < len(steps):
        raise TypeError("expected steps of affine transforms, got one that has no shift")
    shift, log_scale = affine[0].shift, affine[0].log_scale
    for step in affine[1:]:
        shift = shift + log_scale.exp() * step.shift
        log_scale = log_scale + step.log_scale
    return shift, log_scale


def check_affine(transform: Any, what: str) -> None:
    """Refuse a transform across time that has no shift and scale.

    Raises:
        TypeError: if it is not affine.
    """
    if not transform.is_affine:
        name = type(getattr(transform, "transform", transform)).__name__
        raise TypeError(
            f"no {what}: {name} is not affine in its noise given the past, or does not say so by "
            "`is_affine`"
        )
