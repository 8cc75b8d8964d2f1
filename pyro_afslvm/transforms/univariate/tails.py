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


def log_ndtr(y: Tensor) -> Tensor:
    r"""Give :math:`\log \Phi(y)`, with derivatives that are right however far the tail.

    >>> y = torch.tensor(-1e5, requires_grad=True)
    >>> log_ndtr(y).backward()
    >>> y.grad.item()  # torch's is infinite
    100000.0
    """
    found: Tensor = _LogNdtr.apply(y)  # type: ignore[no-untyped-call]
    return found


def hazard(y: Tensor) -> Tensor:
    r"""Give :math:`\phi(y) / \Phi(y)`, the derivative of :math:`\log \Phi`.

    Beyond ten standard deviations by its series, for there both logarithms are large.
    """
    near = y.clamp(min=-10.0)
    t = y.clamp(max=-10.0).neg()
    s = t.square().reciprocal()
    series = t * (1 + s * (1 - s * (2 - 10 * s)))
    return torch.where(y < -10.0, series, (log_normal(near) - torch.special.log_ndtr(near)).exp())


def log_normal(y: Tensor) -> Tensor:
    """Log-density of the standard normal distribution."""
    return -0.5 * y.square() - LOG_SQRT_2PI


class _LogNdtr(torch.autograd.Function):
    """Torch's logarithm forward, the hazard backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        value: Tensor = torch.special.log_ndtr(y)
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradients[0] * hazard(y)


class _LogNdtri(torch.autograd.Function):
    """Newton's iterations forward, the implicit derivative backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        y = _start(log_p)
        for _ in range(1 if log_p.dtype == torch.float32 else 2):
            y = y - (torch.special.log_ndtr(y) - log_p) / hazard(y)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradients[0] / hazard(y)


def _start(log_p: Tensor) -> Tensor:
    """First guess: the inverse CDF where p is a number, the series of the tail beyond."""
    near = torch.special.ndtri(log_p.clamp(min=-10.0).exp())
    level = -2 * log_p.clamp(max=-5.0) - 2 * LOG_SQRT_2PI
    square = level - level.log()
    for _ in range(2):  # log Phi(y) = log phi(y) - log |y| + log(1 - 1/y^2 + 3/y^4 - ...)
        square = level - square.log() + 2 * torch.log1p(-1 / square + 2.5 / square.square())
    return torch.where(log_p < -10.0, -square.sqrt(), near)
