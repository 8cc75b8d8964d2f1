"""Forecasts and the true futures: their shapes, and the frames of them that count."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from pyro_afslvm.utils.arrays import as_tensor
from pyro_afslvm.utils.precision import at_most, widened, widest

Array: TypeAlias = Any  # a tensor, an array, or an xarray.DataArray

BUDGET = 1 << 21  # values that are worked on at a time, 16 MB each time they are copied


class Forecasts(NamedTuple):
    """Samples of futures, the true ones, and which frames of them count."""

    samples: Tensor  # (S, N, H, *frame)
    truth: Tensor  # (N, H, *frame)
    counts: Tensor  # (N, H)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return tuple(self.truth.shape[2:])


def forecasts(
    samples: Array, truth: Array, lengths: Array | None, *, at_least: int = 1
) -> Forecasts:
    """Check that samples, true futures and lengths fit each other.

    Raises:
        ValueError: shapes do not fit each other, there are too few samples, or a length is
            out of range.
    """
    samples, truth = as_tensor(samples).detach(), as_tensor(truth).detach()
    if truth.ndim < 2 or samples.shape[1:] != truth.shape or not truth.numel():
        raise ValueError(
            "expected samples (S, N, H, *frame) of truth (N, H, *frame), got "
            f"{tuple(samples.shape)} and {tuple(truth.shape)}"
        )
    if len(samples) < at_least:
        raise ValueError(f"expected at least {at_least} samples of each future, got {len(samples)}")
    counts = counted(lengths, *truth.shape[:2], shortest=0, device=truth.device)
    truth = truth.to(samples.device, at_most(truth.dtype, samples.device))
    return Forecasts(samples, truth, counts.to(samples.device))


def counted(
    lengths: Array | None, batch: int, total: int, *, shortest: int, device: torch.device
) -> Tensor:
    """Mask of the frames that count, (batch, total).

    Raises:
        ValueError: lengths are not one whole number in range for every sequence.
    """
    if lengths is None:
        return torch.ones(batch, total, dtype=torch.bool, device=device)
    lengths = as_tensor(lengths, device=device)
    kind = lengths.dtype
    if lengths.shape != (batch,) or kind.is_floating_point or kind == torch.bool:
        raise ValueError(f"expected {batch} whole lengths, got {tuple(lengths.shape)} of {kind}")
    low, high = int(lengths.min()), int(lengths.max())
    if low < shortest or high > total:
        raise ValueError(f"lengths must lie in {shortest}..{total}, got {low}..{high}")
    return torch.arange(total, device=device) < lengths[:, None]


def mean_over_pixels(
    score: Callable[[Tensor, Tensor], Tensor], given: Forecasts, *, kinds: tuple[int, ...] = ()
) -> Tensor:
    """Average a score of pixels over each frame, a few of them at a time.

    Args:
        score: maps samples (S, F, P) and truth (F, P) in float64 to scores (\\*kinds, F, P).
        given: the forecasts.
        kinds: leading shape of the scores.

    Returns:
        (\\*kinds, N, H); NaN where a frame does not count.
    """
    device = given.samples.device
    means = torch.full(
        (*kinds, *given.counts.shape), torch.nan, dtype=widest(device), device=device
    )
    for n, h in _blocks(given):
        samples, truth = _frames(given.samples, n, h), given.truth[n, h].reshape(len(n), -1)
        total = torch.zeros(*kinds, len(n), dtype=means.dtype, device=device)
        width = max(1, BUDGET // (len(samples) * len(n)))
        for start in range(0, truth.shape[1], width):
            pixels = slice(start, start + width)
            pair = widened(samples[..., pixels]), widened(truth[:, pixels])
            check_finite(*pair)
            total += score(*pair).sum(-1)
        means[..., n, h] = total / truth.shape[1]
    return means


def check_finite(samples: Tensor, truth: Tensor) -> None:
    """Refuse values that cannot be scored.

    Raises:
        ValueError: A frame that counts holds NaN or Inf.
    """
    for name, values in (("samples", samples), ("truth", truth)):
        if not values.isfinite().all():
            raise ValueError(f"{name} holds NaN or Inf in a frame that counts")


def _blocks(given: Forecasts) -> Iterator[tuple[Tensor, Tensor]]:
    """Places (n, h) of the frames that count, as many as fit the budget."""
    n, h = given.counts.nonzero(as_tuple=True)
    size = max(1, BUDGET * len(given.truth) * given.truth.shape[1] // given.samples.numel())
    for start in range(0, len(n), size):
        yield n[start : start + size], h[start : start + size]


def _frames(samples: Tensor, n: Tensor, h: Tensor) -> Tensor:  # (S, F, P)
    # A large frame comes alone: a view of it, no copy.
    chosen = samples[:, int(n), int(h)] if len(n) == 1 else samples[:, n, h]
    return chosen.reshape(len(samples), len(n), -1)
