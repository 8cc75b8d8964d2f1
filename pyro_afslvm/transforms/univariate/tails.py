"""The inverse of the normal log-CDF, whose tail does not end where single precision does."""

import math
from typing import Any

import torch
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def log_ndtri(log_p: Tensor) -> Tensor:
    r"""Give y with :math:`\log \Phi(y) = \log p`, for p up to 1/2 and as small as one likes.

    .. math:: \frac{\partial y}{\partial \log p} = \frac{\Phi(y)}{\phi(y)}

    Args:
        log_p: logarithms of probabilities, at most about :math:`\log 0.9`; nearer to 1 the
            logarithm has lost the digits, and the other tail should be taken.

    Source: Newton's method as in SciPy's ``ndtri_exp``, from the asymptotic series of the tail.

    >>> y = torch.tensor([-300.0, -3.0, 0.0])
    >>> (log_ndtri(torch.special.log_ndtr(y)) - y).abs().max().item() < 1e-4
    True
    """
    found: Tensor = _LogNdtri.apply(log_p)  # type: ignore[no-untyped-call]
    return found


def log_normal(y: Tensor) -> Tensor:
    """Log-density of the standard normal distribution."""
    return -0.5 * y.square() - LOG_SQRT_2PI


class _LogNdtri(torch.autograd.Function):
    """Newton's iterations forward, the implicit derivative backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        y = _start(log_p)
        for _ in range(1 if log_p.dtype == torch.float32 else 2):
            log_cdf = torch.special.log_ndtr(y)
            y = y - (log_cdf - log_p) * (log_cdf - log_normal(y)).exp()
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output, *inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        y, log_p = ctx.saved_tensors
        slope: Tensor = (log_p - log_normal(y)).exp()
        return gradients[0] * slope


def _start(log_p: Tensor) -> Tensor:
    """First guess: the inverse CDF where p is a number, the series of the tail beyond."""
    near = torch.special.ndtri(log_p.clamp(min=-10.0).exp())
    level = -2 * log_p.clamp(max=-5.0) - 2 * LOG_SQRT_2PI
    square = level - level.log()
    for _ in range(2):  # log Phi(y) = log phi(y) - log |y| + log(1 - 1/y^2 + 3/y^4 - ...)
        square = level - square.log() + 2 * torch.log1p(-1 / square + 2.5 / square.square())
    return torch.where(log_p < -10.0, -square.sqrt(), near)
