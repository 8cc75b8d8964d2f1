"""Image quality of the best of several forecasts."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_afslvm.metrics.inputs import BUDGET, Array, Forecasts, check_finite, forecasts
from pyro_afslvm.utils.precision import widened, widest

BORDER = 5  # pixels on each side that the Gaussian window of SSIM reaches


def psnr(samples: Array, truth: Array, *, lengths: Array | None = None) -> Tensor:
    r"""Peak signal-to-noise ratio of the best sample of each future, frame by frame.

    .. math:: -10 \log_{10} \frac{1}{D} \sum_i (\hat x_i - x_i)^2

    Best is the sample with the highest mean over the frames that count, one for the whole
    future: the convention of stochastic video prediction. Frames are in [0, 1]; values
    beyond are not clipped. Infinite where a frame is met exactly.

    Args:
        samples: futures (S, N, H, channels, height, width).
        truth: the true futures, (N, H, channels, height, width).
        lengths: (N,) whole numbers, 0 to H: how many frames of each future count.

    Returns:
        (N, H) in float64, dB; NaN where a frame does not count.

    Raises:
        ValueError: shapes do not fit, there are no samples, a length is out of range, or a
            frame that counts holds NaN or Inf.

    Source: Denton, Fergus, *Stochastic Video Generation with a Learned Prior*,
    arXiv:1802.07687, for the convention.

    >>> import torch
    >>> samples = torch.tensor([0.5, 0.1]).reshape(2, 1, 1, 1, 1, 1).expand(2, 1, 1, 1, 4, 4)
    >>> round(psnr(samples, torch.zeros(1, 1, 1, 4, 4)).item(), 3)
    20.0
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    def score(predictions: Tensor, images: Tensor) -> Tensor:
        return peak_signal_noise_ratio(
            predictions, images, data_range=1.0, reduction="none", dim=(1, 2, 3)
        )

    return _best(score, _video(samples, truth, lengths))


def ssim(samples: Array, truth: Array, *, lengths: Array | None = None) -> Tensor:
    r"""Structural similarity of the best sample of each future, frame by frame.

    With a Gaussian window of 11 × 11 pixels and deviation 1.5, averaged over channels. Best
    is the sample with the highest mean over the frames that count, as in :func:`psnr`, by
    this score.

    Args:
        samples: futures (S, N, H, channels, height, width), at least 6 × 6 pixels.
        truth: the true futures, (N, H, channels, height, width).
        lengths: (N,) whole numbers, 0 to H: how many frames of each future count.

    Returns:
        (N, H) in float64, at most 1; NaN where a frame does not count.

    Raises:
        ValueError: as for :func:`psnr`, or frames are smaller than the window allows.

    Source: Wang, Bovik, Sheikh, Simoncelli, *Image Quality Assessment: From Error Visibility
    to Structural Similarity*.

    >>> import torch
    >>> truth = torch.rand(1, 2, 1, 16, 16)
    >>> ssim(torch.stack([1 - truth, truth]), truth)
    tensor([[1., 1.]], dtype=torch.float64)
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    given = _video(samples, truth, lengths)
    if min(given.frame_shape[1:]) <= BORDER:
        raise ValueError(
            f"expected frames of at least {BORDER + 1} x {BORDER + 1} pixels for SSIM, got "
            f"{given.frame_shape[1]} x {given.frame_shape[2]}"
        )

    def score(predictions: Tensor, images: Tensor) -> Tensor:
        # Convolutions of float64 are 30 times slower, and no better than to 1e-7.
        found = structural_similarity_index_measure(
            predictions.float(), images.float(), data_range=1.0, reduction="none"
        )
        assert isinstance(found, Tensor)
        return found

    return _best(score, given)


def _video(samples: Array, truth: Array, lengths: Array | None) -> Forecasts:
    given = forecasts(samples, truth, lengths)
    if len(given.frame_shape) != 3:
        raise ValueError(
            "expected video of frames (channels, height, width), got frames of shape "
            f"{given.frame_shape}"
        )
    return given


def _best(score: Callable[[Tensor, Tensor], Tensor], given: Forecasts) -> Tensor:
    """Scores (N, H) of the sample with the highest mean over frames that count."""
    best = torch.full(given.counts.shape, torch.nan, dtype=widest(torch.device("cpu")))
    for n, counts in enumerate(given.counts):
        if counts.any():
            scores = _images(score, given.samples[:, n], given.truth[n], counts)
            best[n, counts.cpu()] = scores[scores.mean(1).argmax()]
    return best.to(given.samples.device, widest(given.samples.device))


def _images(
    score: Callable[[Tensor, Tensor], Tensor], samples: Tensor, truth: Tensor, counts: Tensor
) -> Tensor:  # (S, H, C, H, W), (H, C, H, W), (H,) -> (S, frames that count)
    truth = widened(truth[counts])
    size = max(1, BUDGET // (16 * truth.numel()))  # SSIM holds about so many copies
    scores = []
    for start in range(0, len(samples), size):
        some = widened(samples[start : start + size][:, counts])
        check_finite(some, truth)
        images = truth.expand_as(some).flatten(0, 1)
        found = score(some.flatten(0, 1), images).reshape(some.shape[:2])
        scores.append(widened(found.cpu()))
    return torch.cat(scores)
