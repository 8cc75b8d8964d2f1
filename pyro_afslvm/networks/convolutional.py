"""Encoders and decoders of single frames, for any number of leading batch dimensions."""

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from pyro_afslvm.networks.layers import (
    Norm,
    PixelProjection,
    block,
    halving_4x4,
    in_full_precision,
    on_frames,
    positive_scale,
)


def pyramid(frame_shape: tuple[int, ...], width: int) -> tuple[list[int], tuple[int, int]]:
    """Channels after each halving of a frame, and the size that is left.

    Raises:
        ValueError: if the frame is not ``(C, H, W)``, smaller than 8, or cannot be halved.

    >>> pyramid((1, 64, 64), 64)
    ([64, 128, 256, 512], (4, 4))
    """
    if len(frame_shape) != 3 or min(frame_shape[1:]) < 8:
        raise ValueError(f"expected frames (C, H, W) of at least 8 x 8, got {frame_shape}")
    _, height, breadth = frame_shape
    halvings = int(math.log2(min(height, breadth) / 4))
    if height % 2**halvings or breadth % 2**halvings:
        raise ValueError(
            f"frames of {height} x {breadth} cannot be halved {halvings} times; resize or crop "
            "them to multiples of a power of two such as 32, 64 or 128"
        )
    channels = [width * 2 ** min(i, 3) for i in range(halvings)]
    return channels, (height >> halvings, breadth >> halvings)


class ConvEncoder(nn.Module):
    """Encoder of frames to features, by strided convolutions (DCGAN).

    Args:
        frame_shape: ``(C, H, W)``, multiples of a power of two; 16, 32, 64 and 128 do.
        features: size of the result; the paper's is 128.
        width: channels after the first halving; they double up to eightfold.
        norm: ``"batch"`` (the paper's recipes), ``"batch_per_step"``, ``"group"`` or ``None``.

    Source: Marino et al., Appendix B.

    >>> import torch
    >>> ConvEncoder((1, 32, 32), features=10, width=8)(torch.rand(2, 5, 1, 32, 32)).shape
    torch.Size([2, 5, 10])
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        *,
        features: int = 128,
        width: int = 64,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        channels, rest = pyramid(frame_shape, width)
        self.features = features
        self.frame_dims = 3
        sizes = [frame_shape[0], *channels]
        layers = [block(halving_4x4(a, b), b, norm) for a, b in pairwise(sizes)]
        # on a single pixel group norm would leave little of the features
        last_norm = None if norm == "group" else norm
        last = block(nn.Conv2d(channels[-1], features, rest), features, last_norm)
        self.network = nn.Sequential(*layers, last, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:  # (*batch, C, H, W) -> (*batch, features)
        return on_frames(self.network, x, 3)


class ConvDecoder(nn.Module):
    """Decoder of latents to location and scale of a frame, by transposed convolutions (DCGAN).

    Args:
        latent_size: size of a latent vector.
        frame_shape: ``(C, H, W)`` as in :class:`ConvEncoder`.
        width: channels before the last doubling.
        norm: as in :class:`ConvEncoder`.
        location: ``"sigmoid"`` keeps the location in [0, 1], for frames without a flow.

    Source: Marino et al., Appendix B; the sigmoid and the clamp of the log-scale to [-15, 5] are
    those of the authors' first implementation.

    >>> import torch
    >>> location, scale = ConvDecoder(6, (1, 32, 32), width=8)(torch.randn(2, 5, 6))
    >>> location.shape
    torch.Size([2, 5, 1, 32, 32])
    """

    def __init__(
        self,
        latent_size: int,
        frame_shape: tuple[int, ...],
        *,
        width: int = 64,
        norm: Norm = "group",
        location: Literal["sigmoid", "linear"] = "linear",
    ) -> None:
        super().__init__()
        if location not in ("sigmoid", "linear"):
            raise ValueError(f"location must be 'sigmoid' or 'linear', got {location!r}")
        channels, rest = pyramid(frame_shape, width)
        sizes = channels[::-1]
        first = block(PixelProjection(latent_size, sizes[0], rest), sizes[0], norm)
        layers = [
            block(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), b, norm)
            for a, b in pairwise(sizes)
        ]
        self.network = nn.Sequential(nn.Unflatten(-1, (latent_size, 1, 1)), first, *layers)
        # location and log-scale
        self.heads = nn.ConvTranspose2d(sizes[-1], 2 * frame_shape[0], 4, stride=2, padding=1)
        self.squash = location == "sigmoid"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, Z) -> 2 x (*batch, C, H, W)
        features = on_frames(self.network, z, 1)
        location, log_scale = in_full_precision(self.heads, features, 3).chunk(2, -3)
        if self.squash:
            location = location.sigmoid()
        return location, positive_scale(log_scale)
