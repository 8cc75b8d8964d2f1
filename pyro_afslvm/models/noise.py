"""The noise at the bottom of a model: Gaussian, or with heavier tails."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_afslvm.transforms.univariate.mixture import Mixture
from pyro_afslvm.utils.tracing import is_traced

LEAST_DF = 2.0  # above it there is a variance


class Noise(nn.Module):
    """Distribution of single entries around a location; that of N(0, I) draws, sent to it.

    A subclass defines :meth:`forward` and :meth:`from_normal`; or, where a decoder gives it
    other parameters than a location and a scale, :meth:`draw`.

    Attributes:
        eps_per_entry: N(0, 1) draws that an entry takes.
        parameter_dims: dimensions of a parameter beyond those of a frame.
    """

    eps_per_entry: int = 1
    parameter_dims: int = 0

    def forward(self, location: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """Distribution of each entry, ``(*batch, *frame_shape)``."""
        raise NotImplementedError

    def draw(self, eps: Tensor, *parameters: Tensor) -> Tensor:
        """Send N(0, 1) draws ``(eps_per_entry, *batch, *frame_shape)`` to draws of the entries."""
        location, scale = parameters
        return location + scale * self.from_normal(eps)

    def from_normal(self, eps: Tensor) -> Tensor:
        """Send N(0, 1) draws ``(eps_per_entry, *shape)`` to draws ``shape`` at location 0, scale 1.

        Zero goes to zero, the middle of the distribution.
        """
        raise NotImplementedError


class GaussianNoise(Noise):
    """N(location, scale): the paper's."""

    def forward(self, location: Tensor, scale: Tensor) -> dist.TorchDistribution:
        normal: dist.TorchDistribution = dist.Normal(location, scale, validate_args=_validates())
        return normal

    def from_normal(self, eps: Tensor) -> Tensor:
        return eps[0]


class LaplaceNoise(Noise):
    """Laplace noise: sharper at its middle, and with tails that fall off exponentially.

    >>> LaplaceNoise().from_normal(torch.zeros(1, 2)).tolist()
    [0.0, 0.0]
    """

    def forward(self, location: Tensor, scale: Tensor) -> dist.TorchDistribution:
        laplace: dist.TorchDistribution = dist.Laplace(location, scale, validate_args=_validates())
        return laplace

    def from_normal(self, eps: Tensor) -> Tensor:
        tail = math.log(2.0) + torch.special.log_ndtr(-eps[0].abs())  # of twice the tail
        size: Tensor = tail.clamp(max=0.0).abs()
        return size * eps[0].sign()


class StudentTNoise(Noise):
    r"""Student's t with learned degrees of freedom: outliers cost a logarithm, not a square.

    .. math:: \nu = 2 + e^{\eta}

    Args:
        shape: of the degrees of freedom, which broadcasts to a frame: ``(D,)`` for one of each
            entry of a vector, ``()`` for one for all.
        df: where they start, above two.

    Raises:
        ValueError: for fewer degrees of freedom, of which there is no variance.

    Source: draws are Bailey's, *Polar Generation of Random Variates with the t-Distribution*,
    Mathematics of Computation 62 (1994).

    >>> StudentTNoise(df=5.0).df.item()
    5.0
    """

    eps_per_entry = 2

    def __init__(self, shape: tuple[int, ...] = (), *, df: float = 8.0) -> None:
        if not df > LEAST_DF:
            raise ValueError(f"expected more than 2 degrees of freedom, got {df:g}")
        super().__init__()
        self.log_df = nn.Parameter(torch.full(shape, math.log(df - LEAST_DF)))

    @property
    def df(self) -> Tensor:
        """Degrees of freedom."""
        return LEAST_DF + self.log_df.exp()

    def forward(self, location: Tensor, scale: Tensor) -> dist.TorchDistribution:
        student: dist.TorchDistribution = dist.StudentT(
            self.df.to(location), location, scale, validate_args=_validates()
        )
        return student

    def from_normal(self, eps: Tensor) -> Tensor:
        df = self.df.to(eps)
        square = df * torch.expm1(-2 / df * torch.special.log_ndtr(eps[0]))
        return square.sqrt() * torch.sin(math.pi * (2 * torch.special.ndtr(eps[1]) - 1))


class MixtureNoise(Noise):
    r"""Mixture of Gaussians of each entry, of which the decoder gives all parameters.

    .. math:: p(y) = \sum_k \pi_k N(y; \mu_k, \sigma_k^2)

    The decoder gives log-weights, which add to one, locations and log-scales, each
    ``(*batch, *frame_shape, K)``.

    >>> even = torch.full((2,), 0.5).log()
    >>> noise = MixtureNoise()(even, torch.tensor([-1.0, 1.0]), torch.zeros(2))
    >>> noise.mean.item(), round(noise.stddev.item(), 4)
    (0.0, 1.4142)
    """

    parameter_dims = 1

    def forward(  # type: ignore[override]
        self, log_weights: Tensor, locations: Tensor, log_scales: Tensor
    ) -> dist.TorchDistribution:
        return NormalMixture(log_weights, locations, log_scales)

    def draw(self, eps: Tensor, *parameters: Tensor) -> Tensor:
        log_weights, locations, log_scales = parameters
        drawn: Tensor = Mixture(log_weights, locations, log_scales)(eps[0])
        return drawn


class NormalMixture(dist.TransformedDistribution):  # type: ignore[misc]
    """Mixture of Gaussians of single entries; its draws have gradients.

    Args:
        log_weights: of the components, ``(*shape, K)``, which add to one.
        locations: of the same shape.
        log_scales: of the same shape.
    """

    def __init__(self, log_weights: Tensor, locations: Tensor, log_scales: Tensor) -> None:
        self.mixture = Mixture(log_weights, locations, log_scales)
        zero = torch.zeros_like(self.mixture.locations[..., 0])
        base = dist.Normal(zero, torch.ones_like(zero), validate_args=False)
        super().__init__(base, [self.mixture], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NormalMixture":
        mixture = self.mixture
        parameters = (mixture.log_weights, mixture.locations, mixture.log_scales)
        return NormalMixture(*(p.expand(*batch_shape, p.shape[-1]) for p in parameters))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.mixture.log_density(value)

    @property
    def mean(self) -> Tensor:
        return self._moments[0]

    @property
    def variance(self) -> Tensor:
        return self._moments[1].square()

    @property
    def _moments(self) -> tuple[Tensor, Tensor]:
        found = self.mixture.moments(self.base_dist)
        assert found is not None
        return found


def _validates() -> bool | None:
    """Not under a tracer, which has no values; else as Pyro is set."""
    return False if is_traced() else None


class FrameNoise(nn.Module):
    """Noise of whole frames by any Pyro distribution whose event is a frame.

    Args:
        make: the distribution, or what makes it when it is called; a module's parameters are
            learned.
        frame_shape: ``(C, H, W)`` or ``(D,)``.

    Raises:
        ValueError: for a distribution of other events.
    """

    def __init__(self, make: Any, frame_shape: tuple[int, ...]) -> None:
        super().__init__()
        # distributions can be called, too: then they sample
        self.make: Any = make
        self.is_fixed = isinstance(make, Distribution)
        found = tuple(self().event_shape)
        if found != tuple(frame_shape):
            raise ValueError(
                f"expected a base whose event is a frame {tuple(frame_shape)}, got one of {found}: "
                "`to_event` makes entries an event"
            )

    def forward(self) -> dist.TorchDistribution:
        distribution: dist.TorchDistribution = self.make if self.is_fixed else self.make()
        return distribution


class JointStudentT(nn.Module):
    r"""Multivariate t of the entries of a vector, with learned degrees of freedom, for a base.

    .. math:: \nu = 2 + e^{\eta}

    Its entries are uncorrelated but large together. As a base of
    :class:`~pyro_afslvm.models.flow.FlowModel` it makes a frame of the past and of one draw.

    Args:
        features: size of a vector.
        df: where the degrees of freedom start, above two.

    Raises:
        ValueError: for fewer degrees of freedom, of which there is no variance.

    >>> JointStudentT(3, df=5.0)().event_shape
    torch.Size([3])
    """

    def __init__(self, features: int, *, df: float = 8.0) -> None:
        if not df > LEAST_DF:
            raise ValueError(f"expected more than 2 degrees of freedom, got {df:g}")
        super().__init__()
        self.features = features
        self.log_df = nn.Parameter(torch.tensor(math.log(df - LEAST_DF)))

    @property
    def df(self) -> Tensor:
        """Degrees of freedom."""
        return LEAST_DF + self.log_df.exp()

    @torch.no_grad()
    def set_df(self, df: float) -> None:
        """Set the degrees of freedom, above two."""
        self.log_df.fill_(math.log(df - LEAST_DF))

    def forward(self) -> dist.TorchDistribution:
        zeros = self.log_df.new_zeros(self.features)
        tril = torch.eye(self.features).to(zeros)
        student: dist.TorchDistribution = dist.MultivariateStudentT(
            self.df, zeros, tril, validate_args=_validates()
        )
        return student
