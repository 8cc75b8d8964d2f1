"""A running average of parameters, which a noisy optimizer moves less than themselves."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def running_average(module: nn.Module, decay: float) -> AveragedModel:
    r"""Copy a module whose parameters become an exponential moving average of its own.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n, \qquad
        d_n = \min\left(d, \frac{n - 1}{n + 8}\right)

    so that the first values are soon forgotten. Statistics of batch norm are copied as they are.

    Args:
        module: with the parameters :math:`\theta`, where they are to stay.
        decay: :math:`d`, at least 0 and below 1.

    Source: Polyak, Juditsky, *Acceleration of Stochastic Approximation by Averaging* (SIAM J.
    Control Optim. 1992).

    >>> theta = nn.Linear(1, 1, bias=False)
    >>> average = running_average(theta, 0.9)
    >>> for value in (1.0, 2.0):
    ...     _ = nn.init.constant_(theta.weight, value)
    ...     average.update_parameters(theta)
    >>> round(average.module.weight.item(), 2)
    1.9
    """

    def update(averages: list[Tensor], values: list[Tensor], _: Tensor | int) -> None:
        n = int(average.n_averaged)  # in main memory, wherever the module is
        torch._foreach_lerp_(averages, values, 1 - min(decay, n / (n + 9)))

    average = AveragedModel(module, multi_avg_fn=update)  # type: ignore[arg-type]
    return average.requires_grad_(False)
