"""Layers of networks of single frames, and their application to any number of frames."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint

from pyro_afslvm.utils.tracing import is_wrapped

Norm = Literal["batch", "batch_per_step", "group"] | None
FEW_CHANNELS = 4

_steps_apart: ContextVar[bool] = ContextVar("steps_apart", default=True)


def on_frames(network: nn.Module, x: Tensor, frame_dims: int) -> Tensor:
    """Apply a network of single frames to ``(*batch, *frame)`` as one flat batch.

    In training a network with :class:`StepBatchNorm` is applied to one time step after the other,
    where ``x`` has more batch dimensions than one: time is then the last of them.
    """
    if _has_steps(network, x, frame_dims):
        time = x.ndim - frame_dims - 1
        return torch.stack(
            [_as_one_batch(network, step, frame_dims) for step in x.unbind(time)], time
        )
    return _as_one_batch(network, x, frame_dims)


def _as_one_batch(network: nn.Module, x: Tensor, frame_dims: int) -> Tensor:
    batch = x.shape[: x.ndim - frame_dims]
    flat = x.reshape(-1, *x.shape[x.ndim - frame_dims :])
    if frame_dims == 3 and not is_wrapped(flat):
        flat = flat.contiguous(memory_format=torch.channels_last)
    y = _recomputed(network, flat) if _recomputes(network) else network(flat)
    return y.reshape(*batch, *y.shape[1:])


def in_full_precision(network: nn.Module, x: Tensor, frame_dims: int) -> Tensor:
    """Apply a network as :func:`on_frames` does, in the precision of its parameters, not autocast.

    For the last layer before a distribution: a location rounded to bfloat16 can be off by as
    much as a small scale.
    """
    dtype = next((p.dtype for p in network.parameters()), x.dtype)
    with without_autocast(x.device):
        return on_frames(network, x.to(dtype), frame_dims)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Context in which layers compute in the precision of what they are given."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def side_by_side(frames: Sequence[Tensor], frame_dims: int) -> Tensor:
    """Put several ``(*batch, C, ...)`` into one, on their channels, which are last in memory."""
    moved = [frame.movedim(-frame_dims, -1) for frame in torch.broadcast_tensors(*frames)]
    return torch.cat(moved, -1).movedim(-1, -frame_dims)


def _recomputes(network: nn.Module) -> bool:
    return torch.is_grad_enabled() and bool(getattr(network, "recompute", False))


def _recomputed(network: nn.Module, x: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(network)

    # an accelerator is waited for where its random state is kept: only for what needs it
    kept = x.device.type == "cpu" or any(isinstance(m, _DropoutNd) for m in network.modules())
    y: Tensor = checkpoint(
        network, x, use_reentrant=False, preserve_rng_state=kept, context_fn=contexts
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


class GroupNorm(nn.GroupNorm):
    """torch's group norm, under ``vmap`` too, for which torch's own has no rule."""

    def forward(self, input: Tensor) -> Tensor:
        if not is_wrapped(input):
            return super().forward(input)
        groups = input.reshape(len(input), self.num_groups, -1)
        centred = groups - groups.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        normed = (centred * scale).reshape(input.shape)
        shape = (-1, *[1] * (input.ndim - 2))
        return normed * self.weight.reshape(shape) + self.bias.reshape(shape)


class StepBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics, in training, are those of each time step by itself.

    With time folded into the batch, as :class:`~torch.nn.BatchNorm2d` has it here, what comes of a
    frame depends in training on all frames of the batch, the later ones too; this one couples the
    sequences of a batch only, as does a network that is run frame by frame. The running statistics
    move once for each step. In evaluation both are the same, and causal.

    Raises:
        ValueError: for a single sequence in training.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            raise ValueError(
                "batch norm with statistics of each step needs at least 2 sequences in training"
            )
        return super().forward(x)


@contextmanager
def single_steps() -> Iterator[None]:
    """Context in which networks are given frames of one time step, and no dimension is time."""
    token = _steps_apart.set(False)
    try:
        yield
    finally:
        _steps_apart.reset(token)


def _has_steps(network: nn.Module, x: Tensor, frame_dims: int) -> bool:
    return (
        getattr(network, "training", False)
        and x.ndim - frame_dims > 1
        and _steps_apart.get()
        and any(isinstance(module, StepBatchNorm) for module in network.modules())
    )


def normalization(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, with or without steps apart, group norm in at most 8 groups, or nothing.

    A group has at least 4 channels.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "batch_per_step":
        return StepBatchNorm(channels)
    if norm == "group":
        return GroupNorm(math.gcd(8, max(1, channels // 4), channels), channels)
    if norm is None:
        return nn.Identity()
    raise ValueError(f"norm must be 'batch', 'batch_per_step', 'group' or None, got {norm!r}")


class Rectifier(nn.Module):
    """ReLU, leaky with a slope; in place where that is faster.

    Args:
        slope: below zero.
        in_place: whether its input may be overwritten: it is not if it is another module's.
    """

    def __init__(self, slope: float = 0.0, *, in_place: bool = True) -> None:
        super().__init__()
        self.slope, self.in_place = slope, in_place

    def forward(self, x: Tensor) -> Tensor:
        # in bfloat16 processors take twice as long to write where they have just read
        in_place = self.in_place and x.dtype != torch.bfloat16
        if not self.slope:
            return functional.relu(x, inplace=in_place)
        return functional.leaky_relu(x, self.slope, inplace=in_place)


class PatchConvolution(nn.Conv2d):
    """Convolution of frames with few channels, as a product of their patches and one matrix.

    A kernel over one or three channels leaves a processor's vector units idle; its patches are
    channels enough. The result is that of :class:`~torch.nn.Conv2d` with zeros around the frame,
    channels last in memory.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(inputs, outputs, size, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H', W')
        if x.device.type != "cpu":
            y = super().forward(x)
            # one channel is last and first: accelerators would go on with channels first
            return y if is_wrapped(y) else y.contiguous(memory_format=torch.channels_last)
        (height, breadth), (down, right) = self.kernel_size, self.stride
        above, left = cast(tuple[int, int], self.padding)
        padded = functional.pad(x, (left, left, above, above))
        patches = padded.unfold(2, height, down).unfold(3, breadth, right)  # (N, C, H', W', k, k)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).permute(0, 3, 1, 2)
        return functional.conv2d(patches, self.weight.flatten(1)[..., None, None], self.bias)


class PixelProjection(nn.ConvTranspose2d):
    """Transposed convolution of single pixels, as a product with one matrix.

    The result is that of :class:`~torch.nn.ConvTranspose2d`, channels last in memory, as the
    layers after it want it.

    Args:
        inputs: channels of the pixels, the size of a vector.
        outputs: channels of the result.
        size: ``(H, W)`` of the result.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, outputs, size)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        size = cast(tuple[int, int], self.kernel_size)
        bias = cast(Tensor, self.bias).repeat_interleave(math.prod(size))
        y = functional.linear(x.flatten(1), self.weight.flatten(1).T, bias)  # (N, C' H W)
        y = y.view(len(x), self.out_channels, *size)
        return y if is_wrapped(y) else y.contiguous(memory_format=torch.channels_last)


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
    layer = _kind(inputs)(inputs, outputs, 3, padding=1)
    return nn.Sequential(layer, *activated(norm, outputs))


def activated(norm: Norm, channels: int) -> tuple[nn.Module, nn.Module]:
    """Norm and ReLU, as they follow a convolution."""
    return normalization(norm, channels), Rectifier(in_place=norm is not None)


def halving_4x4(inputs: int, outputs: int) -> nn.Conv2d:
    """4×4 convolution to half the height and width."""
    return _kind(inputs)(inputs, outputs, 4, stride=2, padding=1)


def _kind(inputs: int) -> type[nn.Conv2d]:
    return PatchConvolution if inputs < FEW_CHANNELS else nn.Conv2d


def block(layer: nn.Module, channels: int, norm: Norm) -> nn.Sequential:
    """A layer, norm, leaky ReLU in a row."""
    return nn.Sequential(layer, normalization(norm, channels), Rectifier(0.2))


def positive_scale(log_scale: Tensor) -> Tensor:
    """Scale of a log-scale that is clamped to [-15, 5]."""
    return log_scale.clamp(-15.0, 5.0).exp()
