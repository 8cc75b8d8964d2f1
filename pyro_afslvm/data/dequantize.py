"""Dequantization of 8-bit pixels: what makes them real numbers, and the units that follow."""

import abc
import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pyro_afslvm.data.standardization import Standardization

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DequantizationName = Literal["gaussian", "uniform", "none", "binary"]


class Dequantization(abc.ABC):
    """Turns stored frames into real numbers of which a density has a meaning.

    Attributes:
        name: Short name, as it appears in results.
        formula: What x is made of, with data v, in words.
        unit: Unit of a reported value.
        ceiling: Largest nats per dimension, see :meth:`to_nats`, that any model can reach
            in expectation: the negative entropy of what is added.
        spread: Standard deviation of its own log-density per value, in nats.
        log_levels: Nats per dimension between the units of the model and of the data:
            log 256 from [0, 1] to 8-bit units.
        data: What it is for, in words.
        whole_numbers: Whether that is 8-bit pixels.
    """

    name: ClassVar[DequantizationName]
    formula: ClassVar[str]
    unit: ClassVar[str]
    ceiling: ClassVar[float]
    spread: ClassVar[float]
    log_levels: ClassVar[float] = math.log(256)
    data: ClassVar[str] = "8-bit pixels"
    whole_numbers: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """Make real-valued frames in [0, 1] units, float32.

        Args:
            frames: Pixels 0..255, uint8, any shape.
            generator: Source of the random numbers, on the frames' device.

        Raises:
            ValueError: The frames are of another type.
        """

    def to_nats(self, log_prob_per_dim: float) -> float:
        """Convert nats per dimension from the model's units to the data's."""
        return log_prob_per_dim - self.log_levels

    def to_report(self, log_prob_per_dim: float) -> float:
        """Convert a log-density per dimension, nats in the model's units, to the reported value."""
        return self.to_nats(log_prob_per_dim)

    def restored(self, frames: "Tensor") -> "Tensor":
        """Give frames of the model in the data's units; 8-bit ones stay in [0, 1]."""
        return frames


class GaussianDequantization(Dequantization):
    r"""Gaussian noise, as the authors ran it, at test time too; reported in nats per dimension.

    .. math:: x = v / 255 + \epsilon, \qquad \epsilon \sim N(0, (1/256)^2), \qquad
        \text{value} = \log p(x) / D - \log 256 \le -\tfrac12 \log 2 \pi e

    Source: the first implementation of Marino, Chen, He, Mandt, *Improving Sequential Latent
    Variable Models with Autoregressive Flows*; the paper itself does not say.

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
        """Make real-valued frames; see :meth:`Dequantization.__call__`."""
        import torch

        _check_pixels(frames)
        eps = torch.randn(
            frames.shape, generator=generator, device=frames.device, dtype=torch.float32
        )
        return frames.to(torch.float32) / 255 + eps / 256


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
        """Make real-valued frames; see :meth:`Dequantization.__call__`."""
        import torch

        _check_pixels(frames)
        u = torch.rand(frames.shape, generator=generator, device=frames.device, dtype=torch.float32)
        # Shrunk by float32's step at 255, or v + u could round to v + 1.
        return (frames.to(torch.float32) + u * (1 - 2**-16)) / 256

    def floor_of_gaussian(self, frames: "Tensor") -> float:
        r"""Bits per dimension of the best model of Gaussian noise, for pixels it knows exactly.

        .. math:: \frac{1}{\log 2} \left[ \tfrac12 \log 2 \pi
            + \tfrac12 E_v \left( \tfrac13 - a + a^2 \right) \right], \qquad a = v / 255

        for :math:`256 \left( (v + u) / 256 - v / 255 \right) = u - a`: 1.57 for black pixels, 1.45
        if all grey levels are as frequent. A model trained on uniform noise reaches 0.

        Args:
            frames: pixels 0..255.

        Example:
            >>> import torch
            >>> round(UniformDequantization().floor_of_gaussian(torch.zeros(3)), 3)
            1.566
        """
        a = frames.double() / 255
        square = float((1 / 3 - a + a.square()).mean())
        return 0.5 * (math.log(2 * math.pi) + square) / math.log(2)

    def to_report(self, log_prob_per_dim: float) -> float:
        """Convert to bits per dimension, lower is better."""
        return -self.to_nats(log_prob_per_dim) / math.log(2)


class NoDequantization(Dequantization):
    r"""Real-valued data as they are; reported in nats per dimension of their units.

    .. math:: x = v, \qquad \text{value} = \log p(x) / D

    A density of real numbers has no ceiling, and grows without bound on data that repeat a
    value exactly; sources of real numbers refuse constant ones. Standardized data have
    x = (v - m) / s, and the value is still of v:

    .. math:: \text{value} = \left(\log p(x) - \sum\nolimits_i \log s_i\right) / D

    Args:
        standardization: What the frames were standardized by; ``None`` for frames as they are.
        of_data: Whether nats are of the data, or else of the standardized values, as they were
            in runs of releases before.

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

    def __init__(
        self, standardization: Standardization | None = None, *, of_data: bool = True
    ) -> None:
        self.standardization, self.of_data = standardization, of_data

    def to_nats(self, log_prob_per_dim: float) -> float:
        """Convert nats per dimension from standardized to the data's own units."""
        if self.standardization is None or not self.of_data:
            return log_prob_per_dim
        return log_prob_per_dim - self.standardization.log_scale

    def restored(self, frames: "Tensor") -> "Tensor":
        """Undo the standardization."""
        if self.standardization is None:
            return frames
        found: Tensor = self.standardization.restored(frames)
        return found

    def __call__(self, frames: "Tensor", *, generator: "torch.Generator | None" = None) -> "Tensor":
        """Return the frames as float32; 8-bit ones are refused."""
        import torch

        if not frames.is_floating_point():
            raise ValueError(
                f"frames must be floating point without dequantization, got {frames.dtype}"
            )
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
        """Return the frames as float32; 8-bit ones are refused."""
        return NoDequantization()(frames)


DEQUANTIZATIONS: dict[str, type[Dequantization]] = {
    kind.name: kind
    for kind in (GaussianDequantization, UniformDequantization, NoDequantization, BinaryPixels)
}


def dequantization(name: str) -> Dequantization:
    """Find a dequantization by its name: ``"gaussian"``, ``"uniform"``, ``"none"``, ``"binary"``.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> dequantization("gaussian").unit
        'nats/dim'
    """
    if name not in DEQUANTIZATIONS:
        known = ", ".join(map(repr, DEQUANTIZATIONS))
        raise ValueError(f"unknown dequantization {name!r}: expected one of {known}")
    return DEQUANTIZATIONS[name]()


def _check_pixels(frames: "Tensor") -> None:
    import torch

    if frames.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8 pixels 0..255, got {frames.dtype}")


# The names of the release before.
Noise = DequantizationName
NOISES = DEQUANTIZATIONS
