"""Residual convolutional networks of single images."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from pyro_afslvm.networks.layers import on_frames
from pyro_afslvm.utils.checks import check_image

BRANCH = 0.1  # initial weights of a block's last layer, so that it starts near the identity


class ResidualBlock(nn.Module):
    r"""Two 3×3 convolutions beside the identity; no norm, so that images do not mix.

    .. math:: x + W_2 * \operatorname{elu}(W_1 * \operatorname{elu}(x))

    Args:
        channels: of input and output.

    Source: He, Zhang, Ren, Sun, *Identity Mappings in Deep Residual Networks*, arXiv:1603.05027.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = near_zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:  # (N, channels, H, W) -> the same
        branch: Tensor = self.second(elu(self.first(elu(x))))
        return x + branch


def near_zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Make the output of a convolution small at the start."""
    with torch.no_grad():
        layer.weight.mul_(BRANCH)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def halving_3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """3×3 convolution to half the height and width."""
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


def doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Transposed 4×4 convolution to twice the height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def halved(image_shape: tuple[int, ...], times: int) -> tuple[int, int]:
    """Height and width of an image after so many halvings.

    Raises:
        ValueError: if it is no image, or cannot be halved so often.

    >>> halved((1, 28, 28), 2)
    (7, 7)
    """
    check_image(image_shape)
    _, height, width = image_shape
    if height % 2**times or width % 2**times:
        raise ValueError(f"images of {height} x {width} cannot be halved {times} times")
    return height >> times, width >> times


class ResidualEncoder(nn.Module):
    """Encoder of images to features: strided convolutions and residual blocks, then linear.

    Args:
        image_shape: ``(C, H, W)``, to be halved once for each of ``channels``.
        features: size of the result.
        channels: after each halving.
        blocks: residual blocks at each size.

    Raises:
        ValueError: if a size is out of range or the image cannot be halved so often.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, whose MNIST models have this form.

    >>> ResidualEncoder((1, 28, 28), features=10)(torch.rand(2, 5, 1, 28, 28)).shape
    torch.Size([2, 5, 10])
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        *,
        features: int = 256,
        channels: tuple[int, ...] = (16, 32),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        _check_widths(channels, features)
        rest = halved(image_shape, len(channels))
        self.features = features
        layers: list[nn.Module] = []
        for a, b in pairwise((image_shape[0], *channels)):
            layers += [halving_3x3(a, b), *(ResidualBlock(b) for _ in range(blocks))]
        flat = channels[-1] * math.prod(rest)
        last = [nn.ELU(), nn.Flatten(), nn.Linear(flat, features), nn.ELU()]
        self.network = nn.Sequential(*layers, *last)

    def forward(self, x: Tensor) -> Tensor:  # (*batch, C, H, W) -> (*batch, features)
        return on_frames(self.network, x, 3)


class ResidualDecoder(nn.Module):
    """Decoder of latents to one number for every pixel: the encoder's layers backwards.

    Args:
        latent_size: size of a latent vector.
        image_shape: ``(C, H, W)`` as in :class:`ResidualEncoder`.
        features: size of the hidden layer.
        channels: before each doubling, in the encoder's order.
        blocks: residual blocks at each size.

    >>> ResidualDecoder(6, (1, 28, 28))(torch.randn(2, 5, 6)).shape
    torch.Size([2, 5, 1, 28, 28])
    """

    def __init__(
        self,
        latent_size: int,
        image_shape: tuple[int, ...],
        *,
        features: int = 256,
        channels: tuple[int, ...] = (16, 32),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        _check_widths(channels, latent_size, features)
        rest = halved(image_shape, len(channels))
        first = (channels[-1], *rest)
        layers: list[nn.Module] = [
            *(nn.Linear(latent_size, features), nn.ELU()),
            *(nn.Linear(features, math.prod(first)), nn.Unflatten(-1, first)),
        ]
        for a, b in pairwise((*channels[::-1], image_shape[0])):
            layers += [*(ResidualBlock(a) for _ in range(blocks)), nn.ELU(), doubling(a, b)]
        self.network = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:  # (*batch, latent_size) -> (*batch, C, H, W)
        return on_frames(self.network, z, 1)


def _check_widths(channels: tuple[int, ...], *sizes: int) -> None:
    if not channels or min(*sizes, *channels) < 1:
        raise ValueError(
            f"expected at least one size of channels, and none below 1, got {(*sizes, channels)}"
        )
