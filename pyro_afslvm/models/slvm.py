"""The sequential latent variable model, on frames or on the noise of a flow."""

import math
from typing import Any, NamedTuple, cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.distributions import across_time, log_prob_per_step, masked, standard_normal
from pyro_afslvm.models.base import SequenceBatch, SequenceModel, Simulated, seen_by_flow, simulate
from pyro_afslvm.models.checks import check_latents
from pyro_afslvm.models.inputs import as_context, as_frames
from pyro_afslvm.models.noise import GaussianNoise, Noise
from pyro_afslvm.models.param_store import restore
from pyro_afslvm.models.random_weights import has_random_weights, with_weights_of_now
from pyro_afslvm.networks.history_encoder import HistoryEncoder, HistoryState
from pyro_afslvm.networks.window_memory import WindowMemory, WindowState
from pyro_afslvm.transforms import TemporalTransform, check_size
from pyro_afslvm.transforms.cache import Cache, random_state
from pyro_afslvm.transforms.moments import moments
from pyro_afslvm.utils.renamed import Renamed

Memory = HistoryEncoder | WindowMemory
MemoryState = HistoryState | WindowState


class SLVMState(NamedTuple):
    """The state of sampling: what each part keeps of the past."""

    prior: Any
    flow: Any
    memory: MemoryState | None


class GivenFrames(NamedTuple):
    """The state of each part after frames that are given."""

    flow: Any
    memory: MemoryState | None
    past: Tensor | None  # the memory's summary before each of them


class StepLogProb(NamedTuple):
    """Log-probabilities of one step, in nats, each ``(*batch,)``."""

    y: Tensor  # log p(y_t | y_<t, z_<=t)
    z: Tensor  # log p(z_t | y_<t, z_<t)


class SLVM(SequenceModel):
    r"""Sequential latent variable model, with or without a flow on the frames.

    .. math:: \log p(x, z) &= \log p(y, z)
        - \log \left|\det \frac{\partial x}{\partial y}\right| \\
        p(y, z) &= \prod_t p(y_t \mid y_{<t}, z_t) \, p(z_t \mid y_{<t}, z_{<t})

    The prior is itself an affine transform across time, of N(0, I); the frames are the flow's
    transform of the decoder's Normal over y. Without a flow y is x. Prior and decoder see
    :math:`y_{<t}` only through a ``memory``; the paper's models have none.

    Args:
        frame_shape: ``(C, H, W)`` or ``(D,)``.
        latent_size: size of a latent vector z_t.
        prior: a transform across time of latent vectors.
        decoder: maps ``(*batch, latent_size)`` to location and scale ``(*batch, *frame_shape)``.
        flow: a transform across time of frames, or a chain of them.
        context_length: frames that are given; by default as many as the flow cannot score.
        memory: summary of the scored frames' y before each, or of the last frames themselves;
            the prior takes it as context.
        decode_memory: whether the decoder sees it too, after z_t in the same vector.
        noise: distribution of y around the decoder's location, in place of a Normal.
        context_features: size of covariates that are known of every frame in advance. They are
            part of the summary, after the memory's: the prior sees them, the decoder with
            ``decode_memory``, and the flow where it takes as many context features.

    Sites: ``z`` with event ``(T - context_length, latent_size)``, ``x``, and with a horizon
    ``z_future`` and ``x_future``. Any guide with a site ``z`` of that event fits. With a memory
    both follow from a site ``noise_future``, for latents and frames then take turns.

    Source: Marino et al., Eq. 16-18.
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        latent_size: int,
        *,
        prior: TemporalTransform,
        decoder: nn.Module,
        flow: TemporalTransform | None = None,
        context_length: int | None = None,
        memory: Memory | None = None,
        decode_memory: bool = False,
        noise: Noise | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__(
            frame_shape,
            flow=flow,
            context_length=context_length,
            context_features=context_features,
        )
        if decode_memory and memory is None and not context_features:
            raise ValueError("expected a memory for the decoder to see, got none")
        check_size(prior, latent_size, "the prior")
        self.latent_size = latent_size
        self.prior = prior
        self.decoder = decoder
        # behind the decoder's: stored optimizers know parameters by their order
        self.flow = self._modules.pop("flow", None)  # type: ignore[assignment]
        self.memory = memory
        self.decode_memory = decode_memory
        self._summaries: Cache[tuple[Tensor]] = Cache()
        self.noise_model = GaussianNoise() if noise is None else noise
        self.eps_size = latent_size + self.noise_model.eps_per_entry * math.prod(frame_shape)

    @property
    def sites(self) -> tuple[str, ...]:
        return ("z",)

    # the model ----------------------------------------------------------------------------

    def joint(self, batch: SequenceBatch) -> Tensor:
        """p(x, z), Eq. 16-17."""
        prior = self.transition_distribution(batch)
        z: Tensor = pyro.sample("z", prior)
        check_latents(z, batch.targets.shape[1], self.latent_size)
        if has_random_weights(self):
            with_weights_of_now(prior, z)
        self.observe(self.emission_distribution(z, batch), batch.targets)
        return z

    def transition_distribution(self, batch: SequenceBatch) -> dist.TorchDistribution:
        r""":math:`\prod_t p(z_t \mid y_{<t}, z_{<t})`, Eq. 17: event ``(T, latent_size)``."""
        base = standard_normal((batch.targets.shape[1], self.latent_size), batch.targets)
        prior = self.prior.condition(context=self.past(batch), mask=batch.mask)
        return across_time(base.expand([batch.size]), prior)

    def emission_distribution(self, z: Tensor, batch: SequenceBatch) -> dist.TorchDistribution:
        r""":math:`\prod_t p(y_t \mid y_{<t}, z_t)`, Eq. 17, sent through the flow, Eq. 16."""
        past = self.past(batch) if self.decode_memory else None
        return self._through_flow(self._decoded(z, past), batch.history, batch.mask, batch.context)

    def to_noise(self, batch: SequenceBatch) -> Tensor:
        """y behind the scored frames, Eq. 6, the input of a guide; without a flow these frames."""
        if self.flow is None:
            return batch.targets
        flow = self.flow.condition(
            history=batch.history, context=self.of_flow(batch.context), mask=batch.mask
        )
        y: Tensor = flow.inv(batch.targets)
        return y

    def past(self, batch: SequenceBatch) -> Tensor | None:
        """The summary before each scored frame: the memory's, then its covariates.

        ``(batch, T, features)``; ``None`` without either.
        """
        known = None
        if batch.context is not None:
            known = batch.context[:, batch.context.shape[1] - batch.targets.shape[1] :]
        return side_by_side_features(self._remembered(batch), known)

    @property
    def past_features(self) -> int:
        """Size of the summary before a frame: the memory's and the covariates'."""
        return (0 if self.memory is None else self.memory.features) + self.context_features

    def _remembered(self, batch: SequenceBatch) -> Tensor | None:
        if self.memory is None:
            return None
        given = self._memorable(batch)
        # guide, prior and decoder ask for it
        if (found := self._summaries.find([self.memory], given)) is None:
            drawn = random_state(batch.targets)
            found = (self.memory(*given),)
            self._summaries.keep([self.memory], given, found, drawn=drawn)
        return found[0]

    def future(
        self, x: Tensor | None, z: Tensor | None, horizon: int, context: Tensor | None = None
    ) -> Tensor:
        """p(x_future, z_future | x, z)."""
        like = next(self.parameters(), torch.empty(())) if z is None else z
        if self.memory is not None or context is not None:
            return self._in_turn(x, z, horizon, like, context)
        base = standard_normal((horizon, self.latent_size), like)
        prior = self.prior.condition(history=z)
        z_future: Tensor = pyro.sample("z_future", across_time(base, prior))
        emission = self._through_flow(self._decoded(z_future), x)
        frames: Tensor = pyro.sample("x_future", emission)
        return frames

    def log_prob(
        self,
        x: Tensor,
        z: Tensor,
        *,
        lengths: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """log p(x_t | x_<t, z_t) of each scored frame, in nats.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.
            lengths: ``(batch,)``.

        Returns:
            ``(*particles, batch, T - context_length)``; zero where a sequence has ended.
        """
        batch = self.batch(x, lengths, context)
        return log_prob_per_step(self.emission_distribution(z, batch), batch.targets)

    def predictive_mean(self, x: Tensor, z: Tensor, *, context: Tensor | None = None) -> Tensor:
        r"""E[x_t | x_<t, z_t], of an affine flow :math:`\mu(x_{<t}) + \sigma(x_{<t}) E[y_t | z_t]`.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.

        Returns:
            ``(*particles, batch, T - context_length, *frame_shape)``.
        """
        batch = self.batch(x, context=context)
        noise = self.noise_model(*self.decode(z, self.past(batch)))
        if self.flow is None:
            mean: Tensor = noise.mean
            return mean
        transform = self.flow.given_past(
            batch.targets, history=batch.history, context=self.of_flow(batch.context)
        )
        return moments(transform, noise).mean

    def decode(self, z: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
        """Parameters of y given z, location and scale, and the memory's summary before."""
        if past is not None and self.decode_memory:
            z = torch.cat([z, past.to(z).expand(*z.shape[:-1], -1)], -1)
        parameters = tuple(found.to(z.dtype) for found in self.decoder(z))
        shape = parameters[0].shape
        end = len(shape) - self.noise_model.parameter_dims
        if shape[max(0, end - len(self.frame_shape)) : end] != self.frame_shape:
            raise ValueError(f"expected a decoder of frames {self.frame_shape}, got {tuple(shape)}")
        return parameters

    # one step after the other -----------------------------------------------------------

    def given(self, x: Tensor, context: Tensor | None = None) -> GivenFrames:
        restore(self)
        x = as_frames(x, self)
        flow = past = known = None
        memory: MemoryState | None = None
        if x.shape[1] == self.context_length:  # nothing is scored: no latents go with them
            known = as_context(context, self, x)
            memory = self.start_memory(x.shape[:1], history=x)
        elif self.memory is not None or self.context_features:
            batch = self.batch(x, context=context)
            known = batch.context
            past = None if known is None else known[:, self.context_length :]
        if self.memory is not None and memory is None:
            summary, memory = self.memory.absorb(*self._memorable(batch))
            past = side_by_side_features(summary, past)
        if self.flow is not None:
            seen = self.of_flow(known)
            flow = self.flow.initial_state(x.shape[:1], history=x, context=seen)
        return GivenFrames(flow, memory, past)

    def initial_state(
        self, batch_shape: torch.Size, *, given: GivenFrames | None = None, z: Tensor | None = None
    ) -> SLVMState:
        restore(self)
        if given is None:
            flow = None if self.flow is None else self.flow.initial_state(batch_shape)
            given = GivenFrames(flow, self.start_memory(batch_shape), None)
        prior = self.prior.initial_state(batch_shape, history=z, context=given.past)
        return SLVMState(prior, given.flow, given.memory)

    def step(
        self, eps: Tensor, state: SLVMState, context: Tensor | None = None
    ) -> tuple[Simulated, SLVMState]:
        of_z, of_y = eps.tensor_split((self.latent_size,), -1)
        past = self.summary(state.memory, context)
        z, _, prior = self.prior.step(of_z, state.prior, context=past)
        draws = of_y.unflatten(-1, (self.noise_model.eps_per_entry, *self.frame_shape))
        draws = draws.movedim(-1 - len(self.frame_shape), 0)
        x = y = self.noise_model.draw(draws, *self.decode(z, past))
        flow = state.flow
        if self.flow is not None:
            x, _, flow = self.flow.step(y, flow, context=self.of_flow(context))
        memory = self.remember(x, y, state.memory)
        return Simulated(x, z), SLVMState(prior, flow, memory)

    def summary(self, memory: MemoryState | None, context: Tensor | None) -> Tensor | None:
        """Give the summary before a frame from the memory's state and the frame's covariates."""
        return side_by_side_features(None if memory is None else memory.summary, context)

    def start_memory(
        self, batch_shape: torch.Size, history: Tensor | None = None
    ) -> MemoryState | None:
        """Give the state of the memory before the first scored frame."""
        if self.memory is None:
            return None
        return self.memory.initial_state(batch_shape, history=history)

    def remember(self, x: Tensor, y: Tensor, memory: MemoryState | None) -> MemoryState | None:
        """Give the state of the memory after one more frame, and the noise y behind it."""
        if self.memory is None:
            return None
        if memory is None:
            raise ValueError("expected a state with a memory: make it with initial_state")
        state: MemoryState = self.memory.step(
            x if self.memory.sees_frames else y, cast(Any, memory)
        )
        return state

    def log_prob_step(
        self, y: Tensor, z: Tensor, prior: Any, past: Tensor | None
    ) -> tuple[StepLogProb, Any]:
        """log p(y_t, z_t | past) from the state of the prior, and its next state."""
        eps, log_scale, prior = self.prior.inverse_step(z, prior, context=past)
        of_z = standard_normal(eps.shape[-1:], eps).log_prob(eps) - log_scale.sum(-1)
        return StepLogProb(self._decoded(z, past, event=0).log_prob(y), of_z), prior

    # parts --------------------------------------------------------------------------------

    def _decoded(
        self, z: Tensor, past: Tensor | None = None, *, event: int = 1
    ) -> dist.TorchDistribution:
        entries = self.noise_model(*self.decode(z, past))
        y: dist.TorchDistribution = entries.to_event(event + len(self.frame_shape))
        return y

    def _through_flow(
        self,
        y: dist.TorchDistribution,
        history: Tensor | None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
    ) -> dist.TorchDistribution:
        if self.flow is None:
            return masked(y, mask)
        seen = self.of_flow(context)
        return across_time(y, self.flow.condition(history=history, context=seen, mask=mask))

    def of_flow(self, context: Tensor | None) -> Tensor | None:
        """Give the covariates to a flow that takes any, else ``None``."""
        return seen_by_flow(self, context)

    def _in_turn(
        self,
        x: Tensor | None,
        z: Tensor | None,
        horizon: int,
        like: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Latents and frames in turn, where the latents wait for the frames before."""
        eps = pyro.sample("noise_future", standard_normal((horizon, self.eps_size), like))
        before = None if x is None or context is None else context[:, : x.shape[1]]
        after = None if context is None else context[:, context.shape[1] - horizon :]
        given = None if x is None else self.given(x, before)
        state = self.initial_state(eps.shape[:-2], given=given, z=z)
        future = simulate(self, eps, state, after)
        pyro.deterministic("z_future", cast(Tensor, future.z), event_dim=2)
        frames: Tensor = pyro.deterministic(
            "x_future", future.x, event_dim=1 + len(self.frame_shape)
        )
        return frames

    def _memorable(self, batch: SequenceBatch) -> tuple[Tensor, Tensor | None]:
        """Give what the memory sees: frames, or the noise behind them, and those before."""
        if self.memory is not None and self.memory.sees_frames:
            return batch.targets, batch.history
        return self.to_noise(batch), None

    latents = Renamed("transition_distribution")
    frames = Renamed("emission_distribution")
    noise = Renamed("to_noise")


def side_by_side_features(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Put features ``(*batch, F)`` after others, whose batch dimensions broadcast to theirs."""
    if first is None or second is None:
        return second if first is None else first
    batch = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    parts = [part.expand(*batch, part.shape[-1]) for part in (first, second.to(first))]
    return torch.cat(parts, -1)
