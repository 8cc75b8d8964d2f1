"""The spline map: any monotone map of the noise, between linear tails."""

import math
from typing import Any

import torch
from pyro.distributions.transforms.spline import ConditionedSpline
from torch import Tensor
from torch.distributions import Transform
from torch.nn.functional import softplus

from pyro_afslvm.transforms.univariate.affine import AffineMap, composed
from pyro_afslvm.transforms.univariate.base import Univariate

LEAST_SLOPE = 1e-3  # which Pyro's spline adds to every derivative
UNIT = math.log(math.expm1(1.0 - LEAST_SLOPE))  # softplus of it makes a slope of one


class Spline(ConditionedSpline):
    """Pyro's rational-quadratic spline, of noise with more batch dimensions too.

    Args:
        widths: of the bins, which add to one, ``(*batch, *frame, K)``.
        heights: likewise.
        slopes: at the knots between them, ``(*batch, *frame, K - 1)``.
        bound: the spline is the identity beyond.
    """

    def __init__(self, widths: Tensor, heights: Tensor, slopes: Tensor, *, bound: float) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            (widths, heights, slopes, None), bound=bound, order="quadratic"
        )

    def spline_op(self, x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        *bins, _ = self._params
        shape = torch.broadcast_shapes(x.shape, bins[0].shape[:-1])
        if x.is_meta:  # Pyro's sorts values by their bins
            return x.new_empty(shape), x.new_empty(shape)
        params = (*(p.expand(*shape, p.shape[-1]) for p in bins), None)
        full = ConditionedSpline(params, bound=self.bound, order=self.order)
        found: tuple[Tensor, Tensor] = full.spline_op(x.expand(shape), **options)
        return found


class SplineMap(Univariate):
    r"""Rational-quadratic spline of the noise, then an affine map.

    .. math:: x_t = \mu + \sigma \, s(y_t; w, h, d), \qquad s(y) = y \text{ for } |y| > B

    Parameters of an entry are shift and log-scale, as of :class:`AffineMap`, then widths,
    heights and slopes of the spline; where these are zero it is the identity.

    Args:
        bins: of the spline, K.
        bound: B, in standard deviations of the noise; beyond are linear tails.
        residual: whether the first parameter is the change from the last frame in units of the
            scale, rather than the shift.

    Raises:
        ValueError: for fewer than two bins, or a bound that is not positive.

    Source: Durkan, Bekasov, Murray, Papamakarios, *Neural Spline Flows*, arXiv:1906.04032; the
    spline is Pyro's.

    >>> SplineMap(bins=4)(torch.zeros(13))(torch.tensor([0.5, 7.0])).round(decimals=4).tolist()
    [0.5, 7.0]
    """

    def __init__(self, *, bins: int = 8, bound: float = 4.0, residual: bool = False) -> None:
        if bins < 2 or not bound > 0:
            raise ValueError(f"expected bins > 1 and bound > 0, got {bins} and {bound}")
        super().__init__(3 * bins + 1, lags=int(residual))
        self.bins, self.bound = bins, bound
        self.affine = AffineMap(residual=residual)

    def forward(self, parameters: Tensor, recent: Tensor | None = None) -> Transform:
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        sizes = [2, self.bins, self.bins, self.bins - 1]
        affine, widths, heights, slopes = parameters.split(sizes, -1)
        spline = Spline(
            widths.softmax(-1), heights.softmax(-1), softplus(slopes + UNIT), bound=self.bound
        )
        return composed([spline, self.affine(affine, recent)])
