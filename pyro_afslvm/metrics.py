"""Numbers that describe sequences."""

from torch import Tensor


def temporal_correlation(x: Tensor) -> float:  # (N, T, *frame) ->
    r"""Correlation of neighbouring frames, Eq. 31.

    .. math:: \frac{1}{|I|} \sum_{i \in I}
        E\left[ (x_{t,i} - \mu_i) (x_{t+1,i} - \mu_i) \right] / \sigma_i^2

    with mean :math:`\mu_i` and variance :math:`\sigma_i^2` of pixel i over sequences and
    time. Pixels that never change have no correlation and are left out of I.

    Arguments:
        x: Sequences (N, T, \*frame) of any unit.

    Returns:
        The correlation; NaN if every pixel is constant.

    Raises:
        ValueError: There is no sequence of at least two frames.

    Source: Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with
    Autoregressive Flows*, Eq. 31.

    Example:
        >>> import torch
        >>> temporal_correlation(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        1.0
    """
    if x.ndim < 2 or len(x) < 1 or x.shape[1] < 2:
        raise ValueError(
            f"x must be sequences (N, T, *frame) of at least 2 frames, got {tuple(x.shape)}"
        )
    x = x.detach().double().flatten(2) if x.ndim > 2 else x.detach().double()[..., None]
    # Not by the variance: rounding of the mean makes it positive for constants too.
    x = x[..., x.amax((0, 1)) != x.amin((0, 1))]
    deviation = x - x.mean((0, 1))
    covariance = (deviation[:, :-1] * deviation[:, 1:]).mean((0, 1))
    return float((covariance / deviation.square().mean((0, 1))).mean())
