"""Standalone autoregressive flows across time (1-AF, 2-AF, ...)."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_afslvm.distributions import across_time, log_prob_per_step, standard_normal
from pyro_afslvm.models.base import SequenceBatch, SequenceModel, Simulated
from pyro_afslvm.models.param_store import restore
from pyro_afslvm.transforms import TemporalTransform, compose


class FlowModel(SequenceModel):
    r"""Autoregressive flow over sequences of frames, as a Pyro program.

    .. math:: \log p(x_{1:T}) = \sum_t \log \mathcal{N}(y_t; 0, I) - \sum_t \sum_i \log
        \sigma_i(x_{<t}), \qquad y_t = \frac{x_t - \mu(x_{<t})}{\sigma(x_{<t})}

    The first ``context_length`` frames of ``x`` are given and not scored.

    Args:
        flow: a transform across time, or a chain of them.
        frame_shape: ``(C, H, W)`` or ``(D,)``.
        context_length: frames that are given; by default as many as the flow cannot score.

    Sites: ``x`` with event ``(T - context_length, *frame_shape)``; ``x_future`` with event
    ``(horizon, *frame_shape)``.

    Source: Marino et al., Eq. 5-9.

    >>> import torch
    >>> from pyro_afslvm import MLPConditioner, TemporalAffine
    >>> model = FlowModel(TemporalAffine(MLPConditioner(2, window=3)), (2,))
    >>> model.log_prob(torch.randn(5, 13, 2)).shape  # 3 frames given, 10 scored
    torch.Size([5, 10])
    """

    flow: TemporalTransform

    def __init__(
        self,
        flow: TemporalTransform,
        frame_shape: tuple[int, ...],
        *,
        context_length: int | None = None,
    ) -> None:
        super().__init__(frame_shape, flow=flow, context_length=context_length)
        self.eps_size = math.prod(frame_shape)

    def joint(self, batch: SequenceBatch) -> None:
        """p(x), Eq. 5-8."""
        pyro.sample("x", self.emission_distribution(batch), obs=batch.targets)

    def emission_distribution(self, batch: SequenceBatch) -> dist.TorchDistribution:
        """p(x after the context | the context): N(0, I) over y, sent through the flow."""
        base = standard_normal(tuple(batch.targets.shape[1:]), batch.targets)
        flow = self.flow.condition(history=batch.history, mask=batch.mask)
        return across_time(base.expand([batch.size]), flow)

    def future(self, x: Tensor | None, z: Tensor | None, horizon: int) -> Tensor:
        """p(x_future | x), from the same N(0, I)."""
        like = next(self.parameters(), torch.empty(())) if x is None else x
        base = standard_normal((horizon, *self.frame_shape), like)
        frames: Tensor = pyro.sample("x_future", across_time(base, self.flow.condition(history=x)))
        return frames

    def distribution(self, x: Tensor, *, lengths: Tensor | None = None) -> dist.TorchDistribution:
        """p(x after the context | the context): a ``TransformedDistribution``."""
        return self.emission_distribution(self.batch(x, lengths))

    def log_prob(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Exact log-likelihood of each scored frame, in nats.

        Args:
            x: ``(batch, T, *frame_shape)``.
            lengths: ``(batch,)``.

        Returns:
            ``(batch, T - context_length)``; zero where a sequence has ended.
        """
        batch = self.batch(x, lengths)
        return log_prob_per_step(self.emission_distribution(batch), batch.targets)

    def predictive_mean(self, x: Tensor) -> Tensor:
        """E[x_t | x_<t] of each scored frame: ``(batch, T - context_length, *frame_shape)``."""
        batch = self.batch(x)
        return compose(self.flow.condition(history=batch.history).intermediates(batch.targets))[0]

    # one step after the other -----------------------------------------------------------

    def given(self, x: Tensor) -> Any:
        restore(self)
        return self.flow.initial_state(x.shape[:1], history=x)

    def initial_state(
        self, batch_shape: torch.Size, *, given: Any = None, z: Tensor | None = None
    ) -> Any:
        restore(self)
        return self.flow.initial_state(batch_shape) if given is None else given

    def step(self, eps: Tensor, state: Any) -> tuple[Simulated, Any]:
        frame, _, state = self.flow.step(eps.unflatten(-1, self.frame_shape), state)
        return Simulated(frame, None), state
