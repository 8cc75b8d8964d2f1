"""The affine map: the univariate map of the paper."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import ComposeTransform, Transform, constraints

from pyro_afslvm.transforms.univariate.base import Univariate


class Affine(Transform):
    r"""Affine map of every entry: :math:`x = \mu + e^{\log \sigma} \odot y`.

    Args:
        shift: of each entry.
        log_scale: of each entry, of the same shape.
    """

    domain = codomain = constraints.real
    bijective = True
    sign = +1

    def __init__(self, shift: Tensor, log_scale: Tensor) -> None:
        super().__init__()
        self.shift, self.log_scale = shift, log_scale

    def _call(self, y: Tensor) -> Tensor:
        return self.shift + self.log_scale.exp() * y

    def _inverse(self, x: Tensor) -> Tensor:
        return (x - self.shift) * torch.exp(-self.log_scale)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_scale


class AffineMap(Univariate):
    r"""Affine map with shift and log-scale from the past.

    .. math:: x_t = \mu + \sigma \odot y_t, \qquad \mu = m \text{ or } x_{t-1} + \sigma m

    Args:
        residual: whether the first parameter is the change m from the last frame in units of
            the scale, rather than the shift.
        min_log_scale: lower clamp of :math:`\log \sigma`.
        max_log_scale: upper clamp; the paper's is :math:`\log 10`.

    Source: Marino et al., Eq. 5, 6.

    >>> AffineMap()(torch.tensor([[2.0, 0.0], [3.0, 0.0]]))(torch.ones(2)).tolist()
    [3.0, 4.0]
    """

    is_affine = True

    def __init__(
        self,
        *,
        residual: bool = False,
        min_log_scale: float = -10.0,
        max_log_scale: float = math.log(10.0),
    ) -> None:
        super().__init__(2, lags=int(residual))
        self.min_log_scale = min_log_scale
        self.max_log_scale = max_log_scale

    def forward(self, parameters: Tensor, recent: Tensor | None = None) -> Affine:
        shift, log_scale = parameters.unbind(-1)
        log_scale = log_scale.clamp(self.min_log_scale, self.max_log_scale)
        if recent is None:
            return Affine(shift, log_scale)
        return Affine(recent[..., -1] + log_scale.exp() * shift, log_scale)


def composed(transforms: Sequence[Transform]) -> Transform:
    r"""Compose maps, the one nearest to the noise first; affine ones to an affine one.

    .. math:: x = \mu_M + \sigma_M (\mu_{M-1} + \sigma_{M-1} (\dots y))
    """
    last, *before = reversed(transforms)
    for transform in before:
        if not (isinstance(last, Affine) and isinstance(transform, Affine)):
            return ComposeTransform(list(transforms))
        shift = last.shift + last.log_scale.exp() * transform.shift
        last = Affine(shift, last.log_scale + transform.log_scale)
    return last
