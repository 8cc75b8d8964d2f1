"""Scores of forecasts that come as samples."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_afslvm.metrics.images import BORDER, psnr, ssim
from pyro_afslvm.metrics.inputs import Array, forecasts, mean_over_pixels
from pyro_afslvm.utils.precision import widened, widest

if TYPE_CHECKING:
    import xarray as xr


def crps(samples: Array, truth: Array, *, lengths: Array | None = None) -> Tensor:
    r"""Continuous ranked probability score of each frame, averaged over its pixels.

    .. math:: E|X - y| - \tfrac{1}{2} E|X - X'|

    in its unbiased form, where X and X' are never the same sample, by sorting. Lower is
    better; in the units of the frames. Unbiased, it may come out below zero.

    Args:
        samples: futures (S, N, H, \*frame), at least two of each.
        truth: the true futures, (N, H, \*frame).
        lengths: (N,) whole numbers, 0 to H: how many frames of each future count.

    Returns:
        (N, H) in float64; NaN where a frame does not count.

    Raises:
        ValueError: shapes do not fit, there are fewer than two samples, a length is out of
            range, or a frame that counts holds NaN or Inf.

    Source: Gneiting, Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*,
    Eq. 21.

    >>> import torch
    >>> crps(torch.tensor([[[0.0]], [[1.0]]]), torch.tensor([[3.0]]))
    tensor([[2.]], dtype=torch.float64)
    """
    return mean_over_pixels(_crps, forecasts(samples, truth, lengths, at_least=2))


def coverage(
    samples: Array,
    truth: Array,
    *,
    level: float | Sequence[float] = 0.9,
    lengths: Array | None = None,
) -> Tensor:
    r"""Fraction of each frame's pixels inside the central interval of the samples.

    The interval lies between the quantiles :math:`(1 \mp level) / 2` of the samples,
    interpolated linearly, its ends included. Of a calibrated forecast it holds about
    ``level (S - 1) / (S + 1)`` of the pixels, and more where pixels do not vary.

    Args:
        samples: futures (S, N, H, \*frame), at least two of each.
        truth: the true futures, (N, H, \*frame).
        level: nominal probability of the interval, or several.
        lengths: (N,) whole numbers, 0 to H: how many frames of each future count.

    Returns:
        (N, H) in float64, or (levels, N, H) for several; NaN where a frame does not count.

    Raises:
        ValueError: as for :func:`crps`, or a level is not between 0 and 1.

    >>> import torch
    >>> samples = torch.arange(11.0).reshape(11, 1, 1)
    >>> coverage(samples, torch.tensor([[7.0]]), level=[0.3, 0.5]).flatten()
    tensor([0., 1.], dtype=torch.float64)
    """
    several = not isinstance(level, float)
    levels = torch.as_tensor(level, dtype=widest(torch.device("cpu"))).reshape(-1)
    if not len(levels) or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"expected levels between 0 and 1, got {level}")
    given = forecasts(samples, truth, lengths, at_least=2)
    device = given.samples.device
    tails = ((1 - levels) / 2).to(device, widest(device))

    def inside(samples: Tensor, truth: Tensor) -> Tensor:
        low, high = (samples.quantile(q, 0) for q in (tails, 1 - tails))
        return widened((low <= truth) & (truth <= high))

    found = mean_over_pixels(inside, given, kinds=(len(levels),))
    return found if several else found[0]


def squared_error(samples: Array, truth: Array, *, lengths: Array | None = None) -> Tensor:
    r"""Squared error of the samples' mean, summed over the entries of a frame.

    .. math:: \sum\nolimits_i \bigl(\tfrac{1}{S} \sum\nolimits_s x_{si} - y_i\bigr)^2

    Networks of video prediction are compared by it, of pixels in [0, 1]. Lower is better.

    Args:
        samples: futures (S, N, H, \*frame), one or more of each.
        truth: the true futures, (N, H, \*frame).
        lengths: (N,) whole numbers, 0 to H: how many frames of each future count.

    Returns:
        (N, H) in float64; NaN where a frame does not count.

    Raises:
        ValueError: as for :func:`crps`, but one sample will do.

    >>> import torch
    >>> squared_error(torch.tensor([[[0.0]], [[1.0]]]), torch.tensor([[3.0]]))
    tensor([[6.2500]], dtype=torch.float64)
    """
    given = forecasts(samples, truth, lengths, at_least=1)
    entries = math.prod(given.frame_shape)
    squares = mean_over_pixels(lambda x, y: (x.mean(0) - y).square(), given)
    return squares.mul_(entries)


def energy_score(samples: Array, truth: Array) -> Tensor:
    r"""Energy score of each future as a whole: CRPS of many numbers at once.

    .. math:: E\|X - y\| - \tfrac{1}{2} E\|X - X'\|

    in its unbiased form, with Euclidean norms over all times and entries, so that features of
    large units outweigh others. Lower is better.

    Args:
        samples: futures (S, N, H, \*frame), at least two of each.
        truth: the true futures, (N, H, \*frame).

    Returns:
        (N,) in float64.

    Raises:
        ValueError: as for :func:`crps`.

    Source: Gneiting, Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*,
    Eq. 22.

    >>> import torch
    >>> energy_score(torch.tensor([[[0.0]], [[1.0]]]), torch.tensor([[3.0]]))
    tensor([2.], dtype=torch.float64)
    """
    given = forecasts(samples, truth, None, at_least=2)
    size = len(given.samples)
    found = []
    for i, y in enumerate(widened(given.truth.flatten(1))):
        x = widened(given.samples[:, i].flatten(1))
        apart = torch.pdist(x).sum() / (size * (size - 1))
        found.append((x - y).norm(dim=1).mean() - apart)
    return torch.stack(found)


def forecast_scores(
    samples: Array,
    truth: Array,
    *,
    lengths: Array | None = None,
    levels: Sequence[float] = (0.5, 0.9),
) -> "xr.Dataset":
    r"""Compute all scores of forecasts, for each future frame.

    Args:
        samples: futures (S, N, H, \*frame), at least two of each.
        truth: the true futures, (N, H, \*frame).
        lengths: (N,) whole numbers, 0 to H: how many frames of each future count.
        levels: nominal probabilities of the central intervals.

    Returns:
        ``crps``, ``squared_error``, of video ``psnr`` and (of frames of at least 6 × 6 pixels)
        ``ssim`` of the best sample and ``ssim_of_mean`` of the samples' mean, with dims
        ``(sequence, time_future)``; ``coverage`` with
        ``(level, sequence, time_future)``. NaN where a frame does not count, so that
        ``scores.mean("sequence")`` is over those that do.

    Raises:
        ValueError: as for :func:`crps` and :func:`coverage`.

    >>> import torch
    >>> scores = forecast_scores(torch.rand(5, 2, 3, 1, 8, 8), torch.rand(2, 3, 1, 8, 8))
    >>> sorted(scores)
    ['coverage', 'crps', 'psnr', 'squared_error', 'ssim', 'ssim_of_mean']
    >>> dict(scores.sizes)
    {'sequence': 2, 'time_future': 3, 'level': 2}
    """
    import xarray as xr

    frame_shape = tuple(truth.shape[2:])
    scores = {score.__name__: score(samples, truth, lengths=lengths) for score in SCORES}
    if len(frame_shape) == 3:
        scores["psnr"] = psnr(samples, truth, lengths=lengths)
        if min(frame_shape[1:]) > BORDER:
            scores["ssim"] = ssim(samples, truth, lengths=lengths)
            mean = samples.mean(0, keepdims=True)
            scores["ssim_of_mean"] = ssim(mean, truth, lengths=lengths)
    dims = ("sequence", "time_future")
    inside = coverage(samples, truth, level=list(levels), lengths=lengths)
    return xr.Dataset(
        {name: (dims, score.cpu().numpy(), _ATTRIBUTES[name]) for name, score in scores.items()}
        | {"coverage": (("level", *dims), inside.cpu().numpy(), _ATTRIBUTES["coverage"])},
        coords={
            "sequence": range(truth.shape[0]),
            "time_future": ("time_future", range(1, truth.shape[1] + 1), {"units": "frame"}),
            "level": list(levels),
        },
        attrs={"num_samples": len(samples)},
    )


def _crps(samples: Tensor, truth: Tensor) -> Tensor:  # (S, F, P), (F, P) -> (F, P)
    size = len(samples)
    errors = (samples - truth).movedim(0, -1).sort(-1).values
    ranks = torch.arange(1 - size, size, 2, dtype=errors.dtype, device=errors.device)
    return errors.abs().mean(-1) - errors @ ranks / (size * (size - 1))


SCORES = (crps, squared_error)
_ATTRIBUTES = {
    "crps": {"long_name": "continuous ranked probability score", "units": "1"},
    "psnr": {"long_name": "peak signal-to-noise ratio of the best sample", "units": "dB"},
    "ssim": {"long_name": "structural similarity of the best sample", "units": "1"},
    "ssim_of_mean": {"long_name": "structural similarity of the samples' mean", "units": "1"},
    "squared_error": {
        "long_name": "squared error of the samples' mean, summed over a frame",
        "units": "1",
    },
    "coverage": {"long_name": "fraction inside the central interval", "units": "1"},
}
