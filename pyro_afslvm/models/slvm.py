"""The sequential latent variable model, on frames or on the noise of a flow."""

import math
from typing import Any, NamedTuple, cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.distributions import across_time, log_prob_per_step, masked, standard_normal
from pyro_afslvm.models.base import SequenceBatch, SequenceModel, Simulated, simulate
from pyro_afslvm.models.checks import check_latents
from pyro_afslvm.models.param_store import restore
from pyro_afslvm.networks.history_encoder import HistoryEncoder, HistoryState
from pyro_afslvm.transforms import TemporalTransform, check_size, compose
from pyro_afslvm.utils.renamed import Renamed


class SLVMState(NamedTuple):
    """The state of sampling: what each part keeps of the past."""

    prior: Any
    flow: Any
    memory: HistoryState | None


class GivenFrames(NamedTuple):
    """The state of each part after frames that are given."""

    flow: Any
    memory: HistoryState | None
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
        memory: summary of the scored frames' y before each; the prior takes it as context.
        decode_memory: whether the decoder sees it too, after z_t in the same vector.

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
        memory: HistoryEncoder | None = None,
        decode_memory: bool = False,
    ) -> None:
        super().__init__(frame_shape, flow=flow, context_length=context_length)
        if decode_memory and memory is None:
            raise ValueError("expected a memory for the decoder to see, got none")
        check_size(prior, latent_size, "the prior")
        self.latent_size = latent_size
        self.prior = prior
        self.decoder = decoder
        # behind the decoder's: stored optimizers know parameters by their order
        self.flow = self._modules.pop("flow", None)  # type: ignore[assignment]
        self.memory = memory
        self.decode_memory = decode_memory
        self.eps_size = latent_size + math.prod(frame_shape)

    @property
    def sites(self) -> tuple[str, ...]:
        return ("z",)

    # the model ----------------------------------------------------------------------------

    def joint(self, batch: SequenceBatch) -> Tensor:
        """p(x, z), Eq. 16-17."""
        z: Tensor = pyro.sample("z", self.transition_distribution(batch))
        check_latents(z, batch.targets.shape[1], self.latent_size)
        pyro.sample("x", self.emission_distribution(z, batch), obs=batch.targets)
        return z

    def transition_distribution(self, batch: SequenceBatch) -> dist.TorchDistribution:
        r""":math:`\prod_t p(z_t \mid y_{<t}, z_{<t})`, Eq. 17: event ``(T, latent_size)``."""
        base = standard_normal((batch.targets.shape[1], self.latent_size), batch.targets)
        prior = self.prior.condition(context=self._past(batch), mask=batch.mask)
        return across_time(base.expand([batch.size]), prior)

    def emission_distribution(self, z: Tensor, batch: SequenceBatch) -> dist.TorchDistribution:
        r""":math:`\prod_t p(y_t \mid y_{<t}, z_t)`, Eq. 17, sent through the flow, Eq. 16."""
        past = self._past(batch) if self.decode_memory else None
        return self._through_flow(self._decoded(z, past), batch.history, batch.mask)

    def to_noise(self, batch: SequenceBatch) -> Tensor:
        """y behind the scored frames, Eq. 6, the input of a guide; without a flow these frames."""
        if self.flow is None:
            return batch.targets
        y: Tensor = self.flow.condition(history=batch.history, mask=batch.mask).inv(batch.targets)
        return y

    def future(self, x: Tensor | None, z: Tensor | None, horizon: int) -> Tensor:
        """p(x_future, z_future | x, z)."""
        like = next(self.parameters(), torch.empty(())) if z is None else z
        if self.memory is not None:
            return self._in_turn(x, z, horizon, like)
        base = standard_normal((horizon, self.latent_size), like)
        prior = self.prior.condition(history=z)
        z_future: Tensor = pyro.sample("z_future", across_time(base, prior))
        emission = self._through_flow(self._decoded(z_future), x)
        frames: Tensor = pyro.sample("x_future", emission)
        return frames

    def log_prob(self, x: Tensor, z: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | x_<t, z_t) of each scored frame, in nats.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.
            lengths: ``(batch,)``.

        Returns:
            ``(*particles, batch, T - context_length)``; zero where a sequence has ended.
        """
        batch = self.batch(x, lengths)
        return log_prob_per_step(self.emission_distribution(z, batch), batch.targets)

    def predictive_mean(self, x: Tensor, z: Tensor) -> Tensor:
        r"""E[x_t | x_<t, z_t] :math:`= \mu(x_{<t}) + \sigma(x_{<t}) \odot E[y_t | z_t]`.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.

        Returns:
            ``(*particles, batch, T - context_length, *frame_shape)``.
        """
        batch = self.batch(x)
        location: Tensor = self.decode(z, self._past(batch))[0]
        if self.flow is None:
            return location
        transform = self.flow.condition(history=batch.history)
        shift, log_scale = compose(transform.intermediates(batch.targets))
        return shift + log_scale.exp() * location

    def decode(self, z: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Location and scale of y given z, and the memory's summary of the frames before."""
        if past is not None and self.decode_memory:
            z = torch.cat([z, past.to(z).expand(*z.shape[:-1], -1)], -1)
        location, scale = (found.to(z.dtype) for found in self.decoder(z))
        if location.shape[-len(self.frame_shape) :] != self.frame_shape:
            raise ValueError(
                f"expected a decoder of frames {self.frame_shape}, got {tuple(location.shape)}"
            )
        return location, scale

    # one step after the other -----------------------------------------------------------

    def given(self, x: Tensor) -> GivenFrames:
        restore(self)
        flow = memory = past = None
        if self.memory is not None:
            past, memory = self.memory.absorb(self.to_noise(self.batch(x)))
        if self.flow is not None:
            flow = self.flow.initial_state(x.shape[:1], history=x)
        return GivenFrames(flow, memory, past)

    def initial_state(
        self, batch_shape: torch.Size, *, given: GivenFrames | None = None, z: Tensor | None = None
    ) -> SLVMState:
        restore(self)
        if given is None:
            flow = None if self.flow is None else self.flow.initial_state(batch_shape)
            memory = None if self.memory is None else self.memory.initial_state(batch_shape)
            given = GivenFrames(flow, memory, None)
        prior = self.prior.initial_state(batch_shape, history=z, context=given.past)
        return SLVMState(prior, given.flow, given.memory)

    def step(self, eps: Tensor, state: SLVMState) -> tuple[Simulated, SLVMState]:
        of_z, of_y = eps.tensor_split((self.latent_size,), -1)
        past = None if state.memory is None else state.memory.summary
        z, _, prior = self.prior.step(of_z, state.prior, context=past)
        location, scale = self.decode(z, past)
        x = y = location + scale * of_y.unflatten(-1, self.frame_shape)
        flow = state.flow
        if self.flow is not None:
            x, _, flow = self.flow.step(y, flow)
        memory = None if self.memory is None else self.memory.step(y, _known(state.memory))
        return Simulated(x, z), SLVMState(prior, flow, memory)

    def log_prob_step(
        self, y: Tensor, z: Tensor, prior: Any, past: Tensor | None
    ) -> tuple[StepLogProb, Any]:
        """log p(y_t, z_t | past) from the state of the prior, and its next state."""
        eps, log_scale, prior = self.prior.inverse_step(z, prior, context=past)
        of_z = standard_normal(eps.shape[-1:], eps).log_prob(eps) - log_scale.sum(-1)
        return StepLogProb(self._decoded(z, past, event=0).log_prob(y), of_z), prior

    # parts --------------------------------------------------------------------------------

    def _past(self, batch: SequenceBatch) -> Tensor | None:
        """The memory's summary of y before each scored frame."""
        return None if self.memory is None else self.memory(self.to_noise(batch))

    def _decoded(
        self, z: Tensor, past: Tensor | None = None, *, event: int = 1
    ) -> dist.TorchDistribution:
        normal = dist.Normal(*self.decode(z, past))
        y: dist.TorchDistribution = normal.to_event(event + len(self.frame_shape))
        return y

    def _through_flow(
        self, y: dist.TorchDistribution, history: Tensor | None, mask: Tensor | None = None
    ) -> dist.TorchDistribution:
        if self.flow is None:
            return masked(y, mask)
        return across_time(y, self.flow.condition(history=history, mask=mask))

    def _in_turn(self, x: Tensor | None, z: Tensor | None, horizon: int, like: Tensor) -> Tensor:
        """Latents and frames in turn, where the latents wait for the frames before."""
        eps = pyro.sample("noise_future", standard_normal((horizon, self.eps_size), like))
        given = None if x is None else self.given(x)
        state = self.initial_state(eps.shape[:-2], given=given, z=z)
        future = simulate(self, eps, state)
        pyro.deterministic("z_future", cast(Tensor, future.z), event_dim=2)
        frames: Tensor = pyro.deterministic(
            "x_future", future.x, event_dim=1 + len(self.frame_shape)
        )
        return frames

    latents = Renamed("transition_distribution")
    frames = Renamed("emission_distribution")
    noise = Renamed("to_noise")


def _known(memory: HistoryState | None) -> HistoryState:
    if memory is None:
        raise ValueError("expected a state with a memory: make it with initial_state")
    return memory
