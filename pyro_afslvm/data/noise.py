"""Noise that turns 8-bit pixels into real numbers, and the units that go with it."""

import abc
import math
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Dequantization(abc.ABC):
    """Noise added to 8-bit pixels, so that a density of them has a meaning.

    Attributes:
        name: Short name, as it appears in results.
        unit: Unit of a reported value.
        higher_is_better: Direction of a reported value.
        ceiling: Largest nats per dimension, 8-bit units, that any model can reach in
            expectation: the negative entropy of the noise.
        spread: Standard deviation of the noise's own log-density per value, in nats.
        log_levels: Nats per dimension between [0, 1] units and 8-bit units, log 256.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    ceiling: ClassVar[float]
    spread: ClassVar[float]
    log_levels: ClassVar[float] = math.log(256)

    @abc.abstractmethod
    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """Real-valued frames in [0, 1] units, float32.

        Arguments:
            frames: Pixels 0..255, uint8, any shape.
            generator: Source of the noise, on the frames' device.

        Raises:
            ValueError: The frames are not uint8.
        """

    @abc.abstractmethod
    def to_report(self, log_prob_per_dim: float) -> float:
        """The reported value of a log-density per dimension, nats, [0, 1] units."""


class GaussianDequantization(Dequantization):
    r"""The paper's noise, at test time too; reported in nats per dimension.

    .. math:: x = v / 255 + \epsilon, \qquad \epsilon \sim N(0, (1/256)^2), \qquad
        \text{value} = \log p(x) / D - \log 256 \le -\tfrac12 \log 2 \pi e

    Source: Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with
    Autoregressive Flows*, Appendix B.

    Example:
        >>> round(GaussianDequantization().ceiling, 4)
        -1.4189
    """

    name = "gaussian"
    unit = "nats/dim"
    higher_is_better = True
    ceiling = -0.5 * math.log(2 * math.pi * math.e)
    spread = math.sqrt(0.5)

    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """Real-valued frames; see :meth:`Dequantization.__call__`."""
        import torch

        _check_pixels(frames)
        noise = torch.randn(
            frames.shape, generator=generator, device=frames.device, dtype=torch.float32
        )
        return frames.to(torch.float32) / 255 + noise / 256

    def to_report(self, log_prob_per_dim: float) -> float:
        """Nats per dimension in 8-bit units, higher is better."""
        return log_prob_per_dim - self.log_levels


class UniformDequantization(Dequantization):
    r"""Uniform noise: a bound on the likelihood of the discrete pixels, in bits per dimension.

    .. math:: x = (v + u) / 256, \qquad u \sim U[0, 1), \qquad
        \text{value} = -(\log p(x) / D - \log 256) / \log 2 \ge 0

    Source: Theis, van den Oord, Bethge, *A note on the evaluation of generative models*,
    arXiv:1511.01844.

    Example:
        >>> import torch
        >>> pixels = torch.arange(256, dtype=torch.uint8)
        >>> torch.equal((256 * UniformDequantization()(pixels)).floor(), pixels.float())
        True
    """

    name = "uniform"
    unit = "bits/dim"
    higher_is_better = False
    ceiling = 0.0
    spread = 0.0

    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """Real-valued frames; see :meth:`Dequantization.__call__`."""
        import torch

        _check_pixels(frames)
        noise = torch.rand(
            frames.shape, generator=generator, device=frames.device, dtype=torch.float32
        )
        # Shrunk by float32's step at 255, or v + u could round to v + 1.
        return (frames.to(torch.float32) + noise * (1 - 2**-16)) / 256

    def to_report(self, log_prob_per_dim: float) -> float:
        """Bits per dimension, lower is better."""
        return (self.log_levels - log_prob_per_dim) / math.log(2)


_NOISES: tuple[type[Dequantization], ...] = (GaussianDequantization, UniformDequantization)


def dequantization(name: str) -> Dequantization:
    """The dequantization of that name, ``"gaussian"`` or ``"uniform"``.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> dequantization("gaussian").unit
        'nats/dim'
    """
    for noise in _NOISES:
        if noise.name == name:
            return noise()
    known = ", ".join(repr(noise.name) for noise in _NOISES)
    raise ValueError(f"unknown noise {name!r}: expected one of {known}")


def _check_pixels(frames: "Tensor") -> None:
    import torch

    if frames.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8 pixels 0..255, got {frames.dtype}")
