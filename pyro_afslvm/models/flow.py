"""Standalone autoregressive flows across time (1-AF, 2-AF, ...)."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_afslvm.distributions import across_time, log_prob_per_step
from pyro_afslvm.models.base import SequenceBatch, SequenceModel, Simulated, takes_context
from pyro_afslvm.models.inputs import as_context, as_frames
from pyro_afslvm.models.noise import FrameNoise, GaussianNoise, Noise
from pyro_afslvm.models.param_store import restore
from pyro_afslvm.transforms import TemporalTransform
from pyro_afslvm.transforms.moments import moments


class FlowModel(SequenceModel):
    r"""Autoregressive flow over sequences of frames, as a Pyro program.

    .. math:: \log p(x_{1:T}) = \sum_t \log \mathcal{N}(y_t; 0, I) - \sum_t \sum_i \log
        \sigma_i(x_{<t}), \qquad y_t = \frac{x_t - \mu(x_{<t})}{\sigma(x_{<t})}

    The first ``context_length`` frames of ``x`` are given and not scored.

    Args:
        flow: a transform across time, or a chain of them.
        frame_shape: ``(C, H, W)`` or ``(D,)``.
        base: distribution of the noise y_t in place of N(0, I): a
            :class:`~pyro_afslvm.models.noise.Noise`, or any Pyro distribution whose event is a
            frame, or a module that makes one when it is called.
        context_length: frames that are given; by default as many as the flow cannot score.
        context_features: size of covariates that are known of every frame in advance, which the
            flow takes as its context.

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
        base: Any = None,
        context_length: int | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__(
            frame_shape,
            flow=flow,
            context_length=context_length,
            context_features=context_features,
        )
        if context_features and not takes_context(flow):
            raise ValueError(
                f"expected a flow that takes {context_features} covariates, got one whose "
                "conditioners take none: make one with context_features"
            )
        if base is None:
            base = GaussianNoise()
        self.base = base if isinstance(base, Noise) else FrameNoise(base, self.frame_shape)
        if isinstance(self.base, Noise):  # of another there is no map from N(0, I)
            self.eps_size = self.base.eps_per_entry * math.prod(frame_shape)

    def joint(self, batch: SequenceBatch) -> None:
        """p(x), Eq. 5-8."""
        self.observe(self.emission_distribution(batch), batch.targets)

    def emission_distribution(self, batch: SequenceBatch) -> dist.TorchDistribution:
        """p(x after the context | the context): the noise y, sent through the flow."""
        base = self.noise_distribution(batch.targets.shape[1], like=batch.targets)
        flow = self.flow.condition(history=batch.history, context=batch.context, mask=batch.mask)
        return across_time(base.expand([batch.size]), flow)

    def noise_distribution(self, length: int, *, like: Tensor) -> dist.TorchDistribution:
        """p(y) of so many frames: event ``(length, *frame_shape)``."""
        if isinstance(self.base, FrameNoise):
            frames: dist.TorchDistribution = self.base().expand([length]).to_event(1)
            return frames
        zeros = like.new_zeros(()).expand(length, *self.frame_shape)
        entries: dist.TorchDistribution = self.base(zeros, torch.ones_like(zeros))
        sequence: dist.TorchDistribution = entries.to_event(zeros.ndim)
        return sequence

    def future(
        self, x: Tensor | None, z: Tensor | None, horizon: int, context: Tensor | None = None
    ) -> Tensor:
        """p(x_future | x), from the same noise."""
        like = next(self.parameters(), torch.empty(())) if x is None else x
        base = self.noise_distribution(horizon, like=like)
        flow = self.flow.condition(history=x, context=context)
        frames: Tensor = pyro.sample("x_future", across_time(base, flow))
        return frames

    def distribution(
        self, x: Tensor, *, lengths: Tensor | None = None, context: Tensor | None = None
    ) -> dist.TorchDistribution:
        """p(x after the context | the context): a ``TransformedDistribution``."""
        return self.emission_distribution(self.batch(x, lengths, context))

    def log_prob(
        self, x: Tensor, *, lengths: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Exact log-likelihood of each scored frame, in nats.

        Args:
            x: ``(batch, T, *frame_shape)``.
            lengths: ``(batch,)``.
            context: covariates, ``(batch, T, context_features)``.

        Returns:
            ``(batch, T - context_length)``; zero where a sequence has ended.
        """
        batch = self.batch(x, lengths, context)
        return log_prob_per_step(self.emission_distribution(batch), batch.targets)

    def predictive_mean(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """E[x_t | x_<t] of each scored frame: ``(batch, T - context_length, *frame_shape)``."""
        batch = self.batch(x, context=context)
        transform = self.flow.given_past(
            batch.targets, history=batch.history, context=batch.context
        )
        return moments(transform, self.noise_of(batch.targets)).mean

    def noise_of(self, frames: Tensor) -> Distribution:
        """p(y_t) of each of these frames, whatever they are: ``(*batch, *frame_shape)``."""
        if isinstance(self.base, FrameNoise):
            batch = frames.shape[: frames.ndim - len(self.frame_shape)]
            expanded: Distribution = self.base().expand(batch)
            return expanded
        zeros = torch.zeros_like(frames)
        entries: Distribution = self.base(zeros, torch.ones_like(zeros))
        return entries

    # one step after the other -----------------------------------------------------------

    def given(self, x: Tensor, context: Tensor | None = None) -> Any:
        restore(self)
        return self.flow.initial_state(
            x.shape[:1], history=as_frames(x, self), context=as_context(context, self, x)
        )

    def initial_state(
        self, batch_shape: torch.Size, *, given: Any = None, z: Tensor | None = None
    ) -> Any:
        restore(self)
        return self.flow.initial_state(batch_shape) if given is None else given

    def step(self, eps: Tensor, state: Any, context: Tensor | None = None) -> tuple[Simulated, Any]:
        if not isinstance(self.base, Noise):
            raise TypeError("expected a base of N(0, I) draws; of this one there are only samples")
        draws = eps.unflatten(-1, (self.base.eps_per_entry, *self.frame_shape))
        noise = self.base.from_normal(draws.movedim(-1 - len(self.frame_shape), 0))
        frame, _, state = self.flow.step(noise, state, context=context)
        return Simulated(frame, None), state
