"""Bijections of single frames that mix their entries."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from pyro_afslvm.networks.layers import in_full_precision, without_autocast


class Fresh(Transform):
    """A transform without the memory that Pyro's have, which outlives a change of parameters."""

    bijective = True

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.codomain

    def _call(self, x: Tensor) -> Tensor:
        found: Tensor = self._forgotten()(x)
        return found

    def _inverse(self, y: Tensor) -> Tensor:
        transform = self._forgotten()
        own = type(transform)._inverse is not Transform._inverse
        found: Tensor = transform._inv_call(y) if own else transform.inv(y)
        return found

    def _forgotten(self) -> Any:
        if self.transform._cache_size and self.transform._cached_x_y[0] is not None:
            self.transform._cached_x_y = None, None
        return self.transform

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log-determinants ``(*batch,)``; Pyro gives some as one number for all."""
        found: Tensor = self._forgotten().log_abs_det_jacobian(x, y)
        event = self.domain.event_dim
        return found.expand(x.shape[: x.ndim - event])


class TriangularMixing(TransformModule):
    r"""Unit lower triangular map of vectors: each entry adds some of those before it.

    .. math:: x = L y, \qquad L_{ii} = 1, \qquad \log|\det L| = 0

    Args:
        features: size of a vector.
    """

    domain = codomain = constraints.independent(constraints.real, 1)
    bijective = True

    def __init__(self, features: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.below = nn.Parameter(torch.zeros(features, features))

    @property
    def matrix(self) -> Tensor:
        """L, ``(features, features)``."""
        return self.below.tril(-1) + torch.eye(len(self.below)).to(self.below)

    def _call(self, x: Tensor) -> Tensor:
        with without_autocast(x.device):
            return x @ self.matrix.T.to(x)

    def _inverse(self, y: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(
            self.matrix.T.to(y), y, upper=True, left=False, unitriangular=True
        )
        return solved

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


class Squeeze(Transform):
    """Frames ``(C, H, W)`` to ``(4C, H/2, W/2)``: each 2×2 block of pixels to channels.

    Source: Dinh, Sohl-Dickstein, Bengio, *Density estimation using Real NVP*,
    arXiv:1605.08803, §3.6.
    """

    domain = codomain = constraints.independent(constraints.real, 3)
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return pixel_unshuffle(x, 2)

    def _inverse(self, y: Tensor) -> Tensor:
        return pixel_shuffle(y, 2)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-3])

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        *batch, channels, height, width = shape
        return torch.Size((*batch, 4 * channels, height // 2, width // 2))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        *batch, channels, height, width = shape
        return torch.Size((*batch, channels // 4, 2 * height, 2 * width))


class Coupling(Transform):
    r"""Affine coupling of the channels of a frame: one half given the other, and features.

    .. math:: x_a = y_a, \qquad x_b = \mu(y_a, h) + \sigma(y_a, h) \odot y_b, \qquad
        |\log \sigma| < 2

    Args:
        network: of frames, from half of the channels and those of h to twice as many as the
            other half.
        features: h, ``(*batch, F, H, W)``.

    Source: Dinh, Sohl-Dickstein, Bengio, *Density estimation using Real NVP*, arXiv:1605.08803.
    """

    domain = codomain = constraints.independent(constraints.real, 3)
    bijective = True

    def __init__(self, network: nn.Module, features: Tensor) -> None:
        super().__init__()
        self.network, self.features = network, features

    def _parameters(self, half: Tensor) -> tuple[Tensor, Tensor]:
        batch = torch.broadcast_shapes(half.shape[:-3], self.features.shape[:-3])
        seen = [p.expand(*batch, *p.shape[-3:]) for p in (half, self.features.to(half))]
        shift, log_scale = in_full_precision(self.network, torch.cat(seen, -3), 3).chunk(2, -3)
        return shift.to(half), 2 * torch.tanh(log_scale / 2).to(half)

    def _call(self, x: Tensor) -> Tensor:
        given, rest = x.chunk(2, -3)
        shift, log_scale = self._parameters(given)
        made = shift + log_scale.exp() * rest
        return torch.cat([given.expand(*made.shape[:-3], *given.shape[-3:]), made], -3)

    def _inverse(self, y: Tensor) -> Tensor:
        given, rest = y.chunk(2, -3)
        shift, log_scale = self._parameters(given)
        found = (rest - shift) * torch.exp(-log_scale)
        return torch.cat([given.expand(*found.shape[:-3], *given.shape[-3:]), found], -3)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._parameters(x.chunk(2, -3)[0])[1].flatten(-3).sum(-1)
