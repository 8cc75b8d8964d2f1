"""Temporal correlation."""

import torch

from pyro_afslvm.metrics.inputs import Array, counted


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

    Source: Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with
    Autoregressive Flows*, Eq. 31.

    >>> import torch
    >>> temporal_correlation(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    1.0
    >>> padded = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 7.0]])
    >>> temporal_correlation(padded, lengths=torch.tensor([3, 2])) > 0.9
    True
    """
    x = torch.as_tensor(x).detach()
    if x.ndim < 2 or len(x) < 1 or x.shape[1] < 2:
        raise _too_short(f"{tuple(x.shape)}")
    x = x.double().flatten(2) if x.ndim > 2 else x.double()[..., None]
    counts = counted(lengths, *x.shape[:2], shortest=1, device=x.device)
    pairs = counts[:, :-1] & counts[:, 1:]
    if not pairs.any():
        raise _too_short("lengths of at most 1")
    frames = x[counts]
    # Not by the variance: rounding of the mean makes it positive for constants too.
    moving = frames.amax(0) != frames.amin(0)
    frames, x = frames[:, moving], x[..., moving]
    mean = frames.mean(0)
    covariance = ((x[:, :-1] - mean)[pairs] * (x[:, 1:] - mean)[pairs]).mean(0)
    return float((covariance / (frames - mean).square().mean(0)).mean())


def _too_short(found: str) -> ValueError:
    return ValueError(f"expected x of sequences (N, T, *frame) of at least 2 frames, got {found}")
