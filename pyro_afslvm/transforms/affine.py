"""The affine transform across time: the one idea of this library."""

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from pyro_afslvm.moved import old_names
from pyro_afslvm.transforms.autoregressive import TemporalAutoregressive
from pyro_afslvm.transforms.conditioners import (
    AffineParameters,
    Conditioner,
    LastFrame,
    as_parameters,
)
from pyro_afslvm.transforms.univariate import AffineMap


class TemporalAffine(TemporalAutoregressive):
    r"""Affine transform across time.

    .. math:: x_t = \mu(x_{<t}) + \sigma(x_{<t}) \odot y_t, \qquad
              \log\left|\det \frac{\partial x}{\partial y}\right| = \sum_t \sum_i \log
              \sigma_i(x_{<t})

    Where the conditioner is residual :math:`\mu = x_{t-1} + \sigma m`, with the same
    :math:`\sigma`, clamped.

    Args:
        conditioner: gives :math:`\mu`, or m, and :math:`\log \sigma` from the past.
        initial: ``"learned"`` gives the first ``window`` frames of a sequence a shift and a
            log-scale of their own, so that the density covers every frame and a sequence
            can be sampled from nothing. ``None``: those frames must be given as history.
        min_log_scale: lower clamp of :math:`\log \sigma`.
        max_log_scale: upper clamp; the paper's is :math:`\log 10`.

    Source: Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with
    Autoregressive Flows*, Eq. 5, 6, 8.

    >>> import torch
    >>> from pyro_afslvm import MLPConditioner, TemporalAffine
    >>> flow = TemporalAffine(MLPConditioner(2, window=1), initial="learned")
    >>> x = torch.randn(5, 10, 2)  # 5 sequences of 10 two-dimensional frames
    >>> y = flow.inv(x)  # one pass over all frames
    >>> flow.log_abs_det_jacobian(y, x).shape
    torch.Size([5])
    """

    is_affine = True

    def __init__(
        self,
        conditioner: Conditioner,
        *,
        initial: Literal["learned"] | None = None,
        min_log_scale: float = -10.0,
        max_log_scale: float = math.log(10.0),
    ) -> None:
        univariate = AffineMap(min_log_scale=min_log_scale, max_log_scale=max_log_scale)
        super().__init__(conditioner, univariate, initial=initial)

    def _make_initial(self, shape: tuple[int, ...] | None) -> None:
        self.initial_shift: nn.Parameter | None = None
        self.initial_log_scale: nn.Parameter | None = None
        if shape is not None:
            self.initial_shift = nn.Parameter(torch.zeros(shape))
            self.initial_log_scale = nn.Parameter(torch.zeros(shape))

    def _initial_map(self, frames: slice | int, recent: Tensor | None, like: Tensor) -> Transform:
        if self.initial_shift is None or self.initial_log_scale is None:
            raise self._without_history()
        parameters = AffineParameters(self.initial_shift[frames], self.initial_log_scale[frames])
        return self._map(as_parameters(parameters, like), None)

    @property
    def _lags(self) -> int:
        return int(self.conditioner.residual)

    @property
    def min_log_scale(self) -> float:
        r"""Lower clamp of :math:`\log \sigma`; may be changed."""
        return self._affine.min_log_scale

    @min_log_scale.setter
    def min_log_scale(self, value: float) -> None:
        self._affine.min_log_scale = value

    @property
    def max_log_scale(self) -> float:
        r"""Upper clamp of :math:`\log \sigma`; may be changed."""
        return self._affine.max_log_scale

    @max_log_scale.setter
    def max_log_scale(self, value: float) -> None:
        self._affine.max_log_scale = value

    @property
    def _affine(self) -> AffineMap:
        return cast(AffineMap, self.univariate)


class TemporalDifference(TemporalAffine):
    r"""Affine transform with the last frame as shift and scale one: its noise is the change.

    .. math:: y_t = x_t - x_{t-1}, \qquad x_0 = 0

    Its inverse turns positions into velocities, a chain of two into accelerations: the
    motivating example of the paper (§3.1, Fig. 2). It has no parameters.

    Args:
        frame_dims: dimensions of a frame: 1 for vectors, 3 for ``(C, H, W)``.

    >>> import torch
    >>> TemporalDifference().inv(torch.tensor([[1.0], [3.0], [6.0]])).flatten().tolist()
    [1.0, 2.0, 3.0]
    """

    def __init__(self, *, frame_dims: int = 1) -> None:
        super().__init__(LastFrame(frame_dims))


__getattr__ = old_names(__name__)
