"""The time axis of sequences ``(*batch, T, *frame_shape)``."""

import torch
from torch import Tensor


def time_length(x: Tensor, frame_dims: int) -> int:
    """Length of the time axis of ``(*batch, T, *frame_shape)``.

    Raises:
        ValueError: if x has fewer dimensions.
    """
    if x.ndim < 1 + frame_dims:
        raise ValueError(
            f"expected a sequence of shape (*batch, T, *frame_shape) with {frame_dims} frame "
            f"dimensions, got {tuple(x.shape)}"
        )
    return x.shape[-1 - frame_dims]


def join(history: Tensor | None, x: Tensor, frame_dims: int) -> Tensor:
    """History and frames in one sequence; their batch dimensions are broadcast."""
    if history is None:
        return x
    event = 1 + frame_dims
    batch = torch.broadcast_shapes(history.shape[:-event], x.shape[:-event])
    both = [part.expand(*batch, *part.shape[-event:]) for part in (history, x)]
    return torch.cat(both, -event)


def previous_frames(values: Tensor, history: Tensor | None, frame_dims: int) -> Tensor:
    """The frame before each of ``values``; zero before the first of all."""
    dim, length = -1 - frame_dims, time_length(values, frame_dims)
    if history is None:
        history = torch.zeros_like(values.narrow(dim, 0, 1))
    last = history.narrow(dim, history.shape[dim] - 1, 1)
    return join(last, values, frame_dims).narrow(dim, 0, length)  # the present is never visible


def last_frames(
    values: Tensor, history: Tensor | None, lags: int, frame_dims: int
) -> Tensor | None:
    """The last frames before each of ``values``: ``(*batch, T, *frame_shape, lags)``.

    The latest is at the end; before the first of all they are zero. ``None`` for no lags.
    """
    if not lags:
        return None
    dim, length = -1 - frame_dims, time_length(values, frame_dims)
    full = join(history, values, frame_dims)
    zeros = torch.zeros_like(full.narrow(dim, 0, 1))
    padded = torch.cat([*[zeros] * lags, full], dim)
    first = padded.shape[dim] - length - lags  # the present is never visible
    return torch.stack([padded.narrow(dim, first + lag, length) for lag in range(lags)], -1)
