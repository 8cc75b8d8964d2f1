"""Standalone autoregressive flows across time (1-AF, 2-AF, ...)."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.distributions import across_time, log_prob_per_step, standard_normal
from pyro_afslvm.models.base import Simulated, batch_size, check_context, check_flow, split
from pyro_afslvm.models.checks import check_horizon
from pyro_afslvm.models.param_store import register
from pyro_afslvm.transforms import TemporalTransform, compose


class FlowModel(nn.Module):
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

    guide = None

    def __init__(
        self,
        flow: TemporalTransform,
        frame_shape: tuple[int, ...],
        *,
        context_length: int | None = None,
    ) -> None:
        super().__init__()
        check_flow(flow, frame_shape)
        self.flow = flow
        self.frame_shape = tuple(frame_shape)
        self.context_length = check_context(flow, context_length)
        self.noise_size = math.prod(frame_shape)  # of one step

    def forward(
        self, x: Tensor | None = None, *, horizon: int = 0, lengths: Tensor | None = None
    ) -> Tensor | None:
        """p(x), Eq. 5-8, and the frames that follow.

        Args:
            x: ``(batch, T, *frame_shape)``; ``None`` to sample from nothing.
            horizon: frames to sample after ``x``.
            lengths: ``(batch,)`` whole numbers: frames of each sequence that count.

        Returns:
            the future frames ``(*batch, horizon, *frame_shape)``, ``None`` without horizon.

        Raises:
            ValueError: as :func:`~pyro_afslvm.models.base.split` does; for no ``x`` and no horizon.
        """
        register(self)
        check_horizon(x, horizon, lengths)
        with pyro.plate("sequence", batch_size(x, self.frame_shape), dim=-1):
            if x is not None:
                pyro.sample("x", self.distribution(x, lengths=lengths), obs=self._scored(x))
            if not horizon:
                return None
            future: Tensor = pyro.sample("x_future", self._future(x, horizon))
            return future

    def distribution(self, x: Tensor, *, lengths: Tensor | None = None) -> dist.TorchDistribution:
        """p(x after the context | the context): a ``TransformedDistribution``."""
        parts = split(
            x, frame_shape=self.frame_shape, context_length=self.context_length, lengths=lengths
        )
        base = standard_normal(tuple(parts.values.shape[1:]), x).expand([parts.batch])
        return across_time(base, self.flow.condition(history=parts.history, mask=parts.mask))

    def log_prob(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Exact log-likelihood of each scored frame, in nats.

        Args:
            x: ``(batch, T, *frame_shape)``.
            lengths: ``(batch,)``.

        Returns:
            ``(batch, T - context_length)``; zero where a sequence has ended.
        """
        return log_prob_per_step(self.distribution(x, lengths=lengths), self._scored(x))

    def predictive_mean(self, x: Tensor) -> Tensor:
        """E[x_t | x_<t] of each scored frame: ``(batch, T - context_length, *frame_shape)``."""
        parts = split(
            x, frame_shape=self.frame_shape, context_length=self.context_length, lengths=None
        )
        return compose(self.flow.condition(history=parts.history).intermediates(parts.values))[0]

    def given(self, x: Tensor) -> Any:
        """What the flow keeps of frames ``(batch, T, *frame_shape)``, each looked at once."""
        return self.flow.initial_state(x.shape[:1], history=x)

    def initial_state(
        self, batch_shape: torch.Size, *, given: Any = None, z: Tensor | None = None
    ) -> Any:
        """The state from which :meth:`step` gives the next frame.

        Args:
            batch_shape: of the frames to come.
            given: what is kept of the frames before; ``None`` for the first frame of all.
            z: the model has no latents.
        """
        return self.flow.initial_state(batch_shape) if given is None else given

    def step(self, noise: Tensor, state: Any) -> tuple[Simulated, Any]:
        """One frame, from N(0, I) noise ``(*batch, noise_size)``."""
        frame, _, state = self.flow.step(noise.unflatten(-1, self.frame_shape), state)
        return Simulated(frame, None), state

    def _scored(self, x: Tensor) -> Tensor:
        return x[:, self.context_length :]

    def _future(self, x: Tensor | None, horizon: int) -> dist.TorchDistribution:
        like = next(self.parameters(), torch.empty(())) if x is None else x
        base = standard_normal((horizon, *self.frame_shape), like)
        return across_time(base, self.flow.condition(history=x))
