"""The sequential latent variable model, on frames or on the noise of a flow."""

import math
from typing import Any, NamedTuple, cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.distributions import across_time, log_prob_per_step, masked, standard_normal
from pyro_afslvm.models.base import (
    Simulated,
    Split,
    batch_size,
    check_context,
    check_flow,
    simulate,
    split,
)
from pyro_afslvm.models.checks import check_horizon, check_latents
from pyro_afslvm.models.param_store import register
from pyro_afslvm.networks.history_encoder import FrameMemory, MemoryState
from pyro_afslvm.transforms import TemporalTransform, check_size, compose


class SLVMState(NamedTuple):
    """Where sampling stands: what each part keeps of the past."""

    prior: Any
    flow: Any
    memory: MemoryState | None


class GivenFrames(NamedTuple):
    """What the parts of a model keep of frames that are given."""

    flow: Any
    memory: MemoryState | None
    past: Tensor | None  # the memory's summary before each of them


class StepLogProb(NamedTuple):
    """Log-probabilities of one step, in nats, each ``(*batch,)``."""

    y: Tensor  # log p(y_t | y_<t, z_<=t)
    z: Tensor  # log p(z_t | y_<t, z_<t)


class SLVM(nn.Module):
    r"""Sequential latent variable model, with or without a flow on the frames.

    .. math:: \log p(x, z) = \sum_t \log p(z_t \mid y_{<t}, z_{<t})
        + \log p(y_t \mid y_{<t}, z_t)
        - \log \left|\det \frac{\partial x_t}{\partial y_t}\right|

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
        memory: FrameMemory | None = None,
        decode_memory: bool = False,
    ) -> None:
        super().__init__()
        if decode_memory and memory is None:
            raise ValueError("expected a memory for the decoder to see, got none")
        if flow is not None:
            check_flow(flow, frame_shape)
        check_size(prior, latent_size, "the prior")
        self.frame_shape = tuple(frame_shape)
        self.latent_size = latent_size
        self.context_length = check_context(flow, context_length)
        self.prior = prior
        self.decoder = decoder
        self.flow = flow
        self.memory = memory
        self.decode_memory = decode_memory
        self.noise_size = latent_size + math.prod(frame_shape)  # of one step

    def forward(
        self, x: Tensor | None = None, *, horizon: int = 0, lengths: Tensor | None = None
    ) -> Tensor | None:
        """p(x, z), Eq. 16-17, and the frames that follow.

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
            z = None
            if x is not None:
                parts = self.split(x, lengths)
                z = pyro.sample("z", self.latents(parts))
                check_latents(z, parts.values.shape[1], self.latent_size)
                pyro.sample("x", self.frames(z, parts), obs=parts.values)
            if not horizon:
                return None
            if self.memory is not None:
                return self._simulate(x, z, horizon)
            z_future = pyro.sample("z_future", self._future_latents(z, horizon))
            future: Tensor = pyro.sample("x_future", self._decoded(z_future, history=x))
            return future

    def split(self, x: Tensor, lengths: Tensor | None = None) -> Split:
        """Check x and split off the frames that are given."""
        return split(
            x, frame_shape=self.frame_shape, context_length=self.context_length, lengths=lengths
        )

    def latents(self, parts: Split) -> dist.TorchDistribution:
        """p(z | y_<t): event ``(T, latent_size)``."""
        shape = (parts.values.shape[1], self.latent_size)
        base = standard_normal(shape, parts.values).expand([parts.batch])
        past = self._summary(parts)
        return across_time(base, self.prior.condition(context=past, mask=parts.mask))

    def frames(self, z: Tensor, parts: Split) -> dist.TorchDistribution:
        """p(x | z): the decoder's Normal over y, sent through the flow."""
        past = self._summary(parts) if self.decode_memory else None
        return self._decoded(z, history=parts.history, past=past, mask=parts.mask)

    def noise(self, parts: Split) -> Tensor:
        """y behind the scored frames, the input of a guide; without a flow these frames."""
        if self.flow is None:
            return parts.values
        y: Tensor = self.flow.condition(history=parts.history, mask=parts.mask).inv(parts.values)
        return y

    def log_prob(self, x: Tensor, z: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | x_<t, z_t) of each scored frame, in nats.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.
            lengths: ``(batch,)``.

        Returns:
            ``(*particles, batch, T - context_length)``; zero where a sequence has ended.
        """
        parts = self.split(x, lengths)
        return log_prob_per_step(self.frames(z, parts), parts.values)

    def predictive_mean(self, x: Tensor, z: Tensor) -> Tensor:
        r"""E[x_t | x_<t, z_t] :math:`= \mu(x_{<t}) + \sigma(x_{<t}) \odot E[y_t | z_t]`.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.

        Returns:
            ``(*particles, batch, T - context_length, *frame_shape)``.
        """
        parts = self.split(x)
        location: Tensor = self.decode(z, self._summary(parts))[0]
        if self.flow is None:
            return location
        transform = self.flow.condition(history=parts.history)
        shift, log_scale = compose(transform.intermediates(parts.values))
        return shift + log_scale.exp() * location

    # one step after the other -----------------------------------------------------------

    def given(self, x: Tensor) -> GivenFrames:
        """What the parts keep of frames ``(batch, T, *frame_shape)``, each looked at once."""
        flow = memory = past = None
        if self.memory is not None:
            past, memory = self.memory.absorb(self.noise(self.split(x)))
        if self.flow is not None:
            flow = self.flow.initial_state(x.shape[:1], history=x)
        return GivenFrames(flow, memory, past)

    def initial_state(
        self, batch_shape: torch.Size, *, given: GivenFrames | None = None, z: Tensor | None = None
    ) -> SLVMState:
        """The state from which :meth:`step` gives the next frame.

        Args:
            batch_shape: of the frames to come, ``(*particles, batch)``.
            given: what is kept of the frames before; ``None`` for the first frame of all.
            z: their latents, ``(*batch_shape, T - context_length, latent_size)``.
        """
        if given is None:
            flow = None if self.flow is None else self.flow.initial_state(batch_shape)
            memory = None if self.memory is None else self.memory.initial_state(batch_shape)
            given = GivenFrames(flow, memory, None)
        prior = self.prior.initial_state(batch_shape, history=z, context=given.past)
        return SLVMState(prior, given.flow, given.memory)

    def step(self, noise: Tensor, state: SLVMState) -> tuple[Simulated, SLVMState]:
        """Latents and frame of one step, from N(0, I) noise ``(*batch, noise_size)``."""
        of_z, of_y = noise.tensor_split((self.latent_size,), -1)
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
        noise, log_scale, prior = self.prior.inverse_step(z, prior, context=past)
        of_z = standard_normal(noise.shape[-1:], noise).log_prob(noise) - log_scale.sum(-1)
        emission = dist.Normal(*self.decode(z, past)).to_event(len(self.frame_shape))
        return StepLogProb(emission.log_prob(y), of_z), prior

    def _summary(self, parts: Split) -> Tensor | None:
        return None if self.memory is None else self.memory(self.noise(parts))

    def decode(self, z: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Location and scale of y given z, and what is kept of the frames before."""
        if past is not None and self.decode_memory:
            z = torch.cat([z, past.to(z).expand(*z.shape[:-1], -1)], -1)
        location, scale = (found.to(z.dtype) for found in self.decoder(z))
        if location.shape[-len(self.frame_shape) :] != self.frame_shape:
            raise ValueError(
                f"the decoder gave {tuple(location.shape)} for frames of {self.frame_shape}"
            )
        return location, scale

    def _decoded(
        self,
        z: Tensor,
        *,
        history: Tensor | None,
        past: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dist.TorchDistribution:
        event = 1 + len(self.frame_shape)
        y: dist.TorchDistribution = dist.Normal(*self.decode(z, past)).to_event(event)
        if self.flow is None:
            return masked(y, mask)
        return across_time(y, self.flow.condition(history=history, mask=mask))

    def _future_latents(self, z: Tensor | None, horizon: int) -> dist.TorchDistribution:
        like = next(self.parameters(), torch.empty(())) if z is None else z
        base = standard_normal((horizon, self.latent_size), like)
        return across_time(base, self.prior.condition(history=z))

    def _simulate(self, x: Tensor | None, z: Tensor | None, horizon: int) -> Tensor:
        """Latents and frames in turn, where the latents wait for the frames before."""
        like = next(self.parameters()) if z is None else z
        noise = pyro.sample("noise_future", standard_normal((horizon, self.noise_size), like))
        given = None if x is None else self.given(x)
        state = self.initial_state(noise.shape[:-2], given=given, z=z)
        future = simulate(self, noise, state)
        pyro.deterministic("z_future", cast(Tensor, future.z), event_dim=2)
        frames: Tensor = pyro.deterministic(
            "x_future", future.x, event_dim=1 + len(self.frame_shape)
        )
        return frames


def _known(memory: MemoryState | None) -> MemoryState:
    if memory is None:
        raise ValueError("expected a state with a memory: make it with initial_state")
    return memory
