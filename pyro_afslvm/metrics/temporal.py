"""Temporal correlation."""

import math
from typing import NamedTuple

from torch import Tensor

from pyro_afslvm.metrics.inputs import Array, counted
from pyro_afslvm.utils.arrays import as_tensor
from pyro_afslvm.utils.precision import widened


def temporal_correlation(x: Array, lengths: Array | None = None) -> float:  # (N, T, *frame) ->
    r"""Correlation of neighbouring frames, Eq. 31.

    .. math:: \frac{1}{|I|} \sum_{i \in I}
        E\left[ (x_{t,i} - \mu_i) (x_{t+1,i} - \mu_i) \right] / \sigma_i^2

    with mean :math:`\mu_i` and variance :math:`\sigma_i^2` of pixel i over sequences and
    time. Pixels that never change have no correlation and are left out of I. With lengths
    the means are over the frames, and over the neighbouring pairs of frames, that count.

    Args:
        x: sequences (N, T, \*frame) of any unit.
        lengths: (N,) whole numbers, 1 to T: how many frames of each sequence count.

    Returns:
        The correlation; NaN if every pixel is constant.

    Raises:
        ValueError: there is no sequence of at least two frames, or a length is out of range.

    It is a mean of signed numbers: zero may be that of large ones of either sign, and where most
    pixels show nothing but noise it speaks of that noise. :func:`temporal_correlations` has what
    else it takes to call a sequence white.

    Source: Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with
    Autoregressive Flows*, Eq. 31.

    >>> import torch
    >>> temporal_correlation(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    1.0
    >>> padded = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 7.0]])
    >>> temporal_correlation(padded, lengths=torch.tensor([3, 2])) > 0.9
    True
    """
    return temporal_correlations(x, lengths).signed


class TemporalCorrelation(NamedTuple):
    """Correlations of neighbouring frames; NaN where nothing changes."""

    signed: float  # Eq. 31: the mean over pixels
    absolute: float  # the mean over pixels of their correlations' absolute values
    moving: float  # of the entries that change from one frame to the next, pooled
    num_pairs: int  # neighbouring frames that count, of all sequences

    @property
    def absolute_of_noise(self) -> float:
        r""":math:`\sqrt{2 / \pi n}`, the absolute correlation of n pairs of white noise."""
        return math.sqrt(2 / (math.pi * self.num_pairs))


def temporal_correlations(
    x: Array, lengths: Array | None = None, *, moving: Array | None = None
) -> TemporalCorrelation:
    r"""Compute the correlation of neighbouring frames as Eq. 31 has it, and what that hides.

    .. math:: \rho_i = E\left[ (x_{t,i} - \mu_i) (x_{t+1,i} - \mu_i) \right] / \sigma_i^2, \quad
        \frac{1}{|I|} \sum_i \rho_i, \quad \frac{1}{|I|} \sum_i |\rho_i|, \quad
        \frac{\sum_M (x_{t,i} - \mu_i) (x_{t+1,i} - \mu_i)}{\sqrt{\sum_M (x_{t,i} - \mu_i)^2
        \sum_M (x_{t+1,i} - \mu_i)^2}}

    M are the entries (sequence, t, i) that change between t and t + 1. Of white noise the
    second is not zero but :math:`\sqrt{2 / \pi n}` for n pairs of frames. A difference from the
    mean of the last W frames of white noise has :math:`-1 / (W^2 + W)`: a flow that
    takes it where nothing moves leaves that much.

    Args:
        x: sequences (N, T, \*frame) of any unit.
        lengths: (N,) whole numbers, 1 to T: how many frames of each sequence count.
        moving: (N, T - 1, \*frame), true where an entry changes; by default where those of
            ``x`` differ. For noisy frames, or the noise behind them, give that of the pixels.

    Raises:
        ValueError: as for :func:`temporal_correlation`; ``moving`` does not fit.

    Source: Marino et al., Eq. 31, for the first.

    >>> import torch
    >>> y = torch.randn(500, 20, 3)
    >>> found = temporal_correlations(y[:, 1:] - y[:, :-1])  # W = 1
    >>> round(found.signed, 1), round(found.absolute, 1)
    (-0.5, 0.5)
    """
    x = as_tensor(x).detach()
    if x.ndim < 2 or len(x) < 1 or x.shape[1] < 2:
        raise _too_short(f"{tuple(x.shape)}")
    changes = _changes(x, moving)
    x = widened(x).flatten(2) if x.ndim > 2 else widened(x)[..., None]
    counts = counted(lengths, *x.shape[:2], shortest=1, device=x.device)
    pairs = counts[:, :-1] & counts[:, 1:]
    if not pairs.any():
        raise _too_short("lengths of at most 1")
    frames = x[counts]
    # Not by the variance: rounding of the mean makes it positive for constants too.
    used = frames.amax(0) != frames.amin(0)
    frames, x, changes = frames[:, used], x[..., used], changes[pairs][:, used]
    mean = frames.mean(0)
    earlier, later = (x[:, :-1] - mean)[pairs], (x[:, 1:] - mean)[pairs]
    correlation = (earlier * later).mean(0) / (frames - mean).square().mean(0)
    return TemporalCorrelation(
        signed=float(correlation.mean()),
        absolute=float(correlation.abs().mean()),
        moving=_pooled(earlier[changes], later[changes]),
        num_pairs=int(pairs.sum()),
    )


def _changes(x: Tensor, moving: Array | None) -> Tensor:  # (N, T - 1, pixels)
    changes = x[:, 1:] != x[:, :-1] if moving is None else as_tensor(moving, device=x.device)
    if changes.shape != x[:, 1:].shape:
        raise ValueError(
            f"expected moving of shape {tuple(x[:, 1:].shape)}, got {tuple(changes.shape)}"
        )
    return changes.flatten(2) if x.ndim > 2 else changes[..., None]


def _pooled(earlier: Tensor, later: Tensor) -> float:
    both = earlier.square().sum() * later.square().sum()
    return float((earlier * later).sum() / both.sqrt())  # NaN without any


def _too_short(found: str) -> ValueError:
    return ValueError(f"expected x of sequences (N, T, *frame) of at least 2 frames, got {found}")
