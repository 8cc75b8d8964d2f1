"""A running average of parameters, which a noisy optimizer moves less than themselves."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RunningAverage:
    r"""Exponential moving average of parameters.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n, \qquad
        d_n = \min\left(d, \frac{n - 1}{n + 8}\right)

    so that the first values are soon forgotten. Statistics of batch norm are not averaged.

    Args:
        parameters: :math:`\theta`, which the optimizer changes.
        decay: :math:`d`, at least 0 and below 1; with 0 there is no average, and everything
            here leaves the parameters alone.

    Source: Polyak, Juditsky, *Acceleration of Stochastic Approximation by Averaging* (SIAM J.
    Control Optim. 1992).

    >>> theta = nn.Parameter(torch.zeros(1))
    >>> average = RunningAverage([theta], 0.9)
    >>> for step in (1, 2):
    ...     _ = theta.data.fill_(step)
    ...     average.update(step)
    >>> with average.applied():
    ...     print(f"{theta.item():.2f}")
    1.90
    >>> theta.item()
    2.0
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = [*parameters]
        self.decay = decay
        self._average: list[Tensor] = []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step of the optimizer, the first of which is 1."""
        if not self.decay:
            return
        if not self._average:
            self._average = [torch.zeros_like(p) for p in self.parameters]
        decay = min(self.decay, (step - 1) / (step + 8))
        values = [p.detach() for p in self.parameters]
        kept = [a.to(p) for a, p in zip(self._average, values, strict=True)]  # they may have moved
        torch._foreach_lerp_(kept, values, 1 - decay)
        self._average = kept

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the parameters are their average; afterwards they are themselves again."""
        if not self._average:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        self._copy(self._average)
        try:
            yield
        finally:
            self._copy(own)

    def trained(self) -> list[Tensor] | None:
        """The parameters themselves, beside which a checkpoint holds their average."""
        return [p.detach().cpu().clone() for p in self.parameters] if self._average else None

    def restore(self, trained: Sequence[Tensor] | None) -> None:
        """Go on from a checkpoint: the parameters are the average now, and were these."""
        if trained is None:
            return
        self._average = [p.detach().clone() for p in self.parameters]
        self._copy(trained)

    @torch.no_grad()
    def _copy(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)
