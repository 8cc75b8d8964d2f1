"""Encoders and decoders of single frames, for any number of leading batch dimensions."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

Norm = Literal["batch", "group"] | None
FEW_CHANNELS = 4


def on_frames(network: nn.Module, x: Tensor, frame_dims: int) -> Tensor:
    """Apply a network of single frames to ``(*batch, *frame)`` as one flat batch."""
    batch = x.shape[: x.ndim - frame_dims]
    flat = x.reshape(-1, *x.shape[x.ndim - frame_dims :])
    if frame_dims == 3:
        flat = flat.contiguous(memory_format=torch.channels_last)
    y = _recomputed(network, flat) if _recomputes(network) else network(flat)
    return y.reshape(*batch, *y.shape[1:])


def side_by_side(frames: Sequence[Tensor], frame_dims: int) -> Tensor:
    """Several ``(*batch, C, ...)`` in one, on their channels, which are last in memory."""
    moved = [frame.movedim(-frame_dims, -1) for frame in torch.broadcast_tensors(*frames)]
    return torch.cat(moved, -1).movedim(-1, -frame_dims)


def _recomputes(network: nn.Module) -> bool:
    return torch.is_grad_enabled() and bool(getattr(network, "recompute", False))


def _recomputed(network: nn.Module, x: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(network)

    y: Tensor = checkpoint(
        network, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )
    return y


@contextmanager
def _still_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norm counts what it sees once, however often it is computed."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def normalization(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, group norm in at most 8 groups of at least 4 channels, or nothing."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, max(1, channels // 4), channels), channels)
    if norm is None:
        return nn.Identity()
    raise ValueError(f"norm must be 'batch', 'group' or None, got {norm!r}")


class Rectifier(nn.Module):
    """ReLU, leaky with a slope; in place where that is the faster way.

    Args:
        slope: below zero.
    """

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        in_place = x.dtype != torch.bfloat16  # which processors write twice as fast elsewhere
        if not self.slope:
            return functional.relu(x, inplace=in_place)
        return functional.leaky_relu(x, self.slope, inplace=in_place)


class PatchConvolution(nn.Conv2d):
    """Convolution of frames with few channels, as a product of their patches and one matrix.

    A kernel over one or three channels leaves a processor's vector units idle; its patches are
    channels enough. The result is that of :class:`~torch.nn.Conv2d`, channels last in memory.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H', W')
        (height, breadth), (down, right) = self.kernel_size, self.stride
        above, left = cast(tuple[int, int], self.padding)
        padded = functional.pad(x, (left, left, above, above))
        patches = padded.unfold(2, height, down).unfold(3, breadth, right)  # (N, C, H', W', k, k)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).permute(0, 3, 1, 2)
        return functional.conv2d(patches, self.weight.flatten(1)[..., None, None], self.bias)


class WindowConvolution(nn.Conv2d):
    """Convolution of a window of frames, side by side on their channels.

    Args:
        window: frames of a window.
        inputs: channels of each.
        outputs: channels of the result.

    >>> network = WindowConvolution(3, 8, 16)
    >>> network(torch.rand(2, 24, 5, 5)).shape  # two windows of three frames
    torch.Size([2, 16, 5, 5])
    >>> network.over_time(torch.rand(2, 12, 8, 5, 5)).shape  # every window of two sequences
    torch.Size([2, 10, 16, 5, 5])
    """

    def __init__(self, window: int, inputs: int, outputs: int) -> None:
        super().__init__(window * inputs, outputs, 3, padding=1)
        self.window = window

    def over_time(self, x: Tensor) -> Tensor:  # (N, T, C, H, W) -> (N, T - window + 1, C', H, W)
        """All windows of sequences, without copies of the frames that they share."""
        weight = self.weight.unflatten(1, (self.window, -1)).transpose(1, 2)  # (C', C, W, 3, 3)
        return functional.conv3d(
            x.transpose(1, 2), weight, self.bias, padding=(0, *self.padding)
        ).transpose(1, 2)


def convolution(inputs: int, outputs: int, *, norm: Norm) -> nn.Sequential:
    """3×3 convolution, norm, ReLU; the size of the frame stays."""
    kind = PatchConvolution if inputs < FEW_CHANNELS else nn.Conv2d
    layer = kind(inputs, outputs, 3, padding=1)
    return nn.Sequential(layer, *activated(norm, outputs))


def activated(norm: Norm, channels: int) -> tuple[nn.Module, nn.Module]:
    """What follows a convolution: norm, ReLU."""
    return normalization(norm, channels), Rectifier()


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers, each followed by a ReLU.

    >>> mlp(3, 16, 8)(torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """
    pairs = pairwise(sizes)
    return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))


def pyramid(frame_shape: tuple[int, ...], width: int) -> tuple[list[int], tuple[int, int]]:
    """Channels of the halvings of a frame, and the size that is left.

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
    """Frames to features by strided convolutions (DCGAN).

    Args:
        frame_shape: ``(C, H, W)``, multiples of a power of two; 16, 32, 64 and 128 do.
        features: size of the result; the paper's is 128.
        width: channels after the first halving; they double up to eightfold.
        norm: ``"batch"`` (the paper's recipes), ``"group"`` or ``None``.

    Source: Marino et al., Appendix B.2.

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
        layers = [_block(_halving(a, b), b, norm) for a, b in pairwise(sizes)]
        # on a single pixel group norm would leave little of the features
        last_norm = None if norm == "group" else norm
        last = _block(nn.Conv2d(channels[-1], features, rest), features, last_norm)
        self.network = nn.Sequential(*layers, last, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:  # (*batch, C, H, W) -> (*batch, features)
        return on_frames(self.network, x, 3)


class ConvDecoder(nn.Module):
    """Latents to location and log-scale of a frame by transposed convolutions (DCGAN).

    Args:
        latent_size: size of a latent vector.
        frame_shape: ``(C, H, W)`` as in :class:`ConvEncoder`.
        width: channels before the last doubling.
        norm: as in :class:`ConvEncoder`.
        location: ``"sigmoid"`` keeps the location in [0, 1], for frames without a flow.

    Source: Marino et al., Appendix B.2; the log-scale is clamped to [-15, 5].

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
        first = _block(nn.ConvTranspose2d(latent_size, sizes[0], rest), sizes[0], norm)
        layers = [
            _block(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), b, norm)
            for a, b in pairwise(sizes)
        ]
        self.network = nn.Sequential(nn.Unflatten(-1, (latent_size, 1, 1)), first, *layers)
        # location and log-scale
        self.heads = nn.ConvTranspose2d(sizes[-1], 2 * frame_shape[0], 4, stride=2, padding=1)
        self.squash = location == "sigmoid"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, Z) -> 2 x (*batch, C, H, W)
        features = on_frames(self.network, z, 1)
        location, log_scale = _precise(on_frames(self.heads, features, 3)).chunk(2, -3)
        if self.squash:
            location = location.sigmoid()
        return location, _scale(log_scale)


class MLPEncoder(nn.Module):
    """Vectors to features.

    Args:
        size: size of a vector.
        features: size of the result.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, size: int, *, features: int = 64, hidden: tuple[int, ...] = (64,)) -> None:
        super().__init__()
        self.features = features
        self.frame_dims = 1
        self.network = mlp(size, *hidden, features)

    def forward(self, x: Tensor) -> Tensor:  # (*batch, D) -> (*batch, features)
        features: Tensor = self.network(x)
        return features


class MLPDecoder(nn.Module):
    """Latents to location and scale of a vector.

    Args:
        latent_size: size of a latent vector.
        size: size of the vector.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, latent_size: int, size: int, *, hidden: tuple[int, ...] = (64,)) -> None:
        super().__init__()
        self.network = mlp(latent_size, *hidden)
        self.heads = nn.Linear(hidden[-1], 2 * size)  # location and log-scale

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, Z) -> 2 x (*batch, D)
        location, log_scale = _precise(self.heads(self.network(z))).chunk(2, -1)
        return location, _scale(log_scale)


def _halving(inputs: int, outputs: int) -> nn.Conv2d:
    kind = PatchConvolution if inputs < FEW_CHANNELS else nn.Conv2d
    return kind(inputs, outputs, 4, stride=2, padding=1)


def _block(layer: nn.Module, channels: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(layer, normalization(norm, channels), Rectifier(0.2))


def _scale(log_scale: Tensor) -> Tensor:
    return log_scale.clamp(-15.0, 5.0).exp()


def _precise(x: Tensor) -> Tensor:
    """Distributions are in single precision or better, whatever the networks ran in."""
    return x if x.dtype == torch.float64 else x.float()
