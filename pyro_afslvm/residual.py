"""Residual convolutional networks of single images, and masked convolutions."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, elu

from pyro_afslvm.layers import on_frames

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
    """A convolution whose output is small at the start."""
    with torch.no_grad():
        layer.weight.mul_(BRANCH)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def halving(inputs: int, outputs: int) -> nn.Conv2d:
    """Convolution to half the height and width."""
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


def doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Transposed convolution to twice the height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def check_image(image_shape: tuple[int, ...]) -> None:
    """Refuse what is no shape of an image.

    Raises:
        ValueError: if it is not ``(C, H, W)``.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"expected images (C, H, W), got {tuple(image_shape)}")


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
    """Images to features: at each size a strided convolution and residual blocks, then linear.

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
            layers += [halving(a, b), *(ResidualBlock(b) for _ in range(blocks))]
        flat = channels[-1] * math.prod(rest)
        last = [nn.ELU(), nn.Flatten(), nn.Linear(flat, features), nn.ELU()]
        self.network = nn.Sequential(*layers, *last)

    def forward(self, x: Tensor) -> Tensor:  # (*batch, C, H, W) -> (*batch, features)
        return on_frames(self.network, x, 3)


class ResidualDecoder(nn.Module):
    """Latent vectors to one number for every pixel: the encoder's layers backwards.

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


class MaskedConv2d(nn.Conv2d):
    r"""Convolution that at a pixel sees the pixels before it in raster order.

    Of the pixel itself it sees the channels of which ``degrees`` says so: output channel o sees
    input channel i if :math:`d_i \le d_o`, or :math:`d_i < d_o` with ``strict``.

    Args:
        degrees: of the input channels, and of the output channels.
        kernel: height and width, odd.
        strict: whether equal degrees are hidden.
        backward: from the last pixel to the first, and from the highest degree to the lowest.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, *Pixel Recurrent Neural Networks*,
    arXiv:1601.06759.
    """

    mask: Tensor

    def __init__(
        self,
        degrees: tuple[Tensor, Tensor],
        *,
        kernel: int = 3,
        strict: bool = False,
        backward: bool = False,
    ) -> None:
        inputs, outputs = degrees
        super().__init__(len(inputs), len(outputs), kernel, padding=kernel // 2)
        if backward:
            inputs, outputs = -inputs, -outputs
        seen = inputs < outputs[:, None] if strict else inputs <= outputs[:, None]
        mask = torch.zeros(len(outputs), len(inputs), kernel * kernel)
        centre = kernel * kernel // 2
        before = slice(centre + 1, None) if backward else slice(centre)
        mask[:, :, before] = 1.0
        mask[:, :, centre] = seen.float()
        self.register_buffer("mask", mask.reshape(self.weight.shape))

    def forward(self, x: Tensor) -> Tensor:  # (N, inputs, H, W) -> (N, outputs, H, W)
        return conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedImageNetwork(nn.Module):
    """Masked convolutions from an image and its context to m and s of every entry.

    Args:
        channels: of the image.
        context_channels: of the context; 0 for none.
        hidden: channels of the hidden layers.
        kernel: height and width of the convolutions, odd.
        backward: whether the order of the entries is reversed.
        initial_bias: of s.
    """

    reverse: Tensor

    def __init__(
        self,
        channels: int,
        context_channels: int,
        hidden: Sequence[int],
        *,
        kernel: int,
        backward: bool,
        initial_bias: float,
    ) -> None:
        super().__init__()
        # entries have degrees 1 to C; of its own pixel a hidden channel sees those up to its
        # degree (from it on, backward), so one of 0 (C + 1) sees earlier pixels only
        entries = torch.arange(channels) + 1
        shift = 2 if backward else 0
        degrees = [entries, *(torch.arange(width) % channels + shift for width in hidden)]
        self.layers = nn.ModuleList(
            MaskedConv2d(pair, kernel=kernel, backward=backward) for pair in pairwise(degrees)
        )
        self.context = nn.Conv2d(context_channels, hidden[0], 1) if context_channels else None
        both = (degrees[-1], entries.repeat(2))
        last = MaskedConv2d(both, kernel=kernel, strict=True, backward=backward)
        self.last = near_zero(last)
        with torch.no_grad():
            cast(Tensor, last.bias)[channels:] = initial_bias
        self.register_buffer("reverse", torch.tensor(backward))
        self.channels = channels

    def forward(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """m and s of ``(*batch, C, H, W)``, in its precision whatever the network runs in."""
        dtype = self.last.weight.dtype
        features = on_frames(self.layers[0], z.to(dtype), 3)
        if self.context is not None and context is not None:
            features = features + on_frames(self.context, context.to(dtype), 3)
        for layer in self.layers[1:]:
            features = on_frames(layer, elu(features), 3)
        m, s = on_frames(self.last, elu(features), 3).to(z).chunk(2, -3)
        return m, s

    def order(self, height: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Channel, row and column of every entry, first to last."""
        places = [
            (c, i, j) for i in range(height) for j in range(width) for c in range(self.channels)
        ]
        return iter(places[::-1] if bool(self.reverse) else places)
