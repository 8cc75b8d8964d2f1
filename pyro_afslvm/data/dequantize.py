"""Noise that turns 8-bit pixels into real numbers, if any, and the units that go with it."""

import abc
import math
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pyro_afslvm.data.source import SequenceSource
    from pyro_afslvm.data.splits import Noise


class Dequantization(abc.ABC):
    """Noise added to data, so that a density of them has a meaning.

    Attributes:
        name: Short name, as it appears in results.
        formula: What x is made of, with data v, in words.
        unit: Unit of a reported value.
        ceiling: Largest nats per dimension, see :meth:`to_nats`, that any model can reach
            in expectation: the negative entropy of the noise.
        spread: Standard deviation of the noise's own log-density per value, in nats.
        log_levels: Nats per dimension between the units of the model and of the data:
            log 256 from [0, 1] to 8-bit units.
        data: What it is for, in words.
        whole_numbers: Whether that is 8-bit pixels.
    """

    name: ClassVar["Noise"]
    formula: ClassVar[str]
    unit: ClassVar[str]
    ceiling: ClassVar[float]
    spread: ClassVar[float]
    log_levels: ClassVar[float] = math.log(256)
    data: ClassVar[str] = "8-bit pixels"
    whole_numbers: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """Real-valued frames in [0, 1] units, float32.

        Arguments:
            frames: Pixels 0..255, uint8, any shape.
            generator: Source of the noise, on the frames' device.

        Raises:
            ValueError: The frames are of another type.
        """

    def to_nats(self, log_prob_per_dim: float) -> float:
        """Nats per dimension in the data's units, from those of the model's units."""
        return log_prob_per_dim - self.log_levels

    def to_report(self, log_prob_per_dim: float) -> float:
        """The reported value of a log-density per dimension, nats, units of the model."""
        return self.to_nats(log_prob_per_dim)


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
    formula = "v/255 + N(0, (1/256)²)"
    unit = "nats/dim"
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
    formula = "(v + U[0, 1))/256"
    unit = "bits/dim"
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
        return -self.to_nats(log_prob_per_dim) / math.log(2)


class NoDequantization(Dequantization):
    r"""Real-valued data as they are; reported in nats per dimension of their units.

    .. math:: x = v, \qquad \text{value} = \log p(x) / D

    A density of real numbers has no ceiling, and grows without bound on data that repeat a
    value exactly; sources of real numbers refuse constant ones.

    Example:
        >>> import torch
        >>> NoDequantization()(torch.tensor([0.5, -3.0]))
        tensor([ 0.5000, -3.0000])
    """

    name = "none"
    formula = "v"
    unit = "nats/dim, data units"
    ceiling = math.inf
    spread = 0.0
    log_levels = 0.0
    data = "real numbers"
    whole_numbers = False

    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """The frames, float32; 8-bit ones are refused."""
        import torch

        if not frames.is_floating_point():
            raise ValueError(f"frames must be floating point without noise, got {frames.dtype}")
        return frames.to(torch.float32)


class BinaryPixels(Dequantization):
    r"""Pixels 0 and 1 as they are: their probability, reported in nats per image.

    .. math:: x = v, \qquad \text{value} = \log p(x) \le 0
    """

    name = "binary"
    formula = "v, 0 or 1"
    unit = "nats/dim, binary pixels"
    ceiling = 0.0
    spread = 0.0
    log_levels = 0.0
    data = "binary pixels"
    whole_numbers = False

    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """The frames, float32; 8-bit ones are refused."""
        return NoDequantization()(frames)


NOISES: dict[str, type[Dequantization]] = {
    noise.name: noise
    for noise in (GaussianDequantization, UniformDequantization, NoDequantization, BinaryPixels)
}


def dequantization(name: str) -> Dequantization:
    """The dequantization of that name: ``"gaussian"``, ``"uniform"``, ``"none"``, ``"binary"``.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> dequantization("gaussian").unit
        'nats/dim'
    """
    if name not in NOISES:
        known = ", ".join(map(repr, NOISES))
        raise ValueError(f"unknown noise {name!r}: expected one of {known}")
    return NOISES[name]()


def choose_noise(asked: str | None, source: "SequenceSource") -> Dequantization:
    """The noise that was asked for, or else the one that the source's data need.

    Raises:
        ValueError: It is of no use for these data, or there is none of that name.

    Example:
        >>> from pyro_afslvm.data import MovingDigits
        >>> choose_noise("none", MovingDigits())
        Traceback (most recent call last):
        ValueError: noise 'none' is for real numbers, but moving_digits holds 8-bit ...
    """
    needed = dequantization(source.noise)
    chosen = needed if asked is None else dequantization(asked)
    if chosen.data != needed.data:
        raise ValueError(
            f"noise {chosen.name!r} is for {chosen.data}, but {source.name} holds {needed.data}: "
            f"take {needed.name!r}"
        )
    return chosen


def _check_pixels(frames: "Tensor") -> None:
    import torch

    if frames.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8 pixels 0..255, got {frames.dtype}")
