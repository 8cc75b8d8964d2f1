"""Density and imputation of sequences with missing values, one frame after the other."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, StudentT, Transform, identity_transform

from pyro_afslvm.models.base import seen_by_flow
from pyro_afslvm.models.checks import check_shape
from pyro_afslvm.models.flow import FlowModel
from pyro_afslvm.models.inputs import as_context, as_frames
from pyro_afslvm.models.programs import evaluating
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.objectives.smc import systematic
from pyro_afslvm.transforms import Prediction
from pyro_afslvm.transforms.moments import Moments, moments
from pyro_afslvm.utils.precision import widened, widest
from pyro_afslvm.utils.trees import map_tensors

_TAILS = 4.0  # degrees of freedom of proposals, whose tails are heavier than most


class MissingUpdate(NamedTuple):
    """Estimates after a frame, some entries of which may be missing."""

    log_likelihood: Tensor  # of what is observed given what was before, (batch,), float64
    exact: Tensor  # (batch,), where that is no estimate
    frames: Tensor  # particles, missing entries filled, (num_particles, batch, *frame_shape)
    weights: Tensor  # of these, (num_particles, batch)


class Filled(NamedTuple):
    """Sequences with their missing values filled by samples, and the density of the others."""

    log_likelihood: Tensor  # of each scored frame's observed entries, (batch, T), float64
    exact: Tensor  # (batch, T), where that is no estimate
    samples: Tensor  # of whole sequences given all that is observed, (num_samples, batch, ...)


class MissingFilter:
    r"""Particle filter over missing values: density of what is observed, frame by frame.

    Entries that are missing are latents. Of a flow whose map is elementwise given the past they
    are drawn from :math:`p(x_{t,i} \mid x_{<t})`, and a particle's weight is

    .. math:: p(x_t^{\mathrm{obs}} \mid x_{<t}) = \prod_{i\,\mathrm{observed}} p(x_{t,i} \mid
        x_{<t}),

    the exact marginal given its past. It is exact in whole as long as no missing value is within
    the flow's reach: until the first gap and in the frame of that, and again when a short window
    has left the gap behind. After a gap, the mean over particles is an estimate, unbiased for the
    likelihood. Where the map mixes entries, the missing ones of a frame that is observed in part
    are importance-sampled, around their moments; of an SLVM latents are drawn from its prior, so
    that all of its likelihoods are estimates.

    Args:
        model: a flow or SLVM, run in evaluation mode.
        num_particles: of the filter.
        resample_below: part of the particles that must be effective.

    Raises:
        TypeError: for another model.
        ValueError: for no particles; from :meth:`update` for frames of another shape, or for
            missing values in the frames that the model must be given.

    >>> from pyro_afslvm import MLPConditioner, TemporalAffine
    >>> model = FlowModel(TemporalAffine(MLPConditioner(2, window=1)), (2,))
    >>> stream = MissingFilter(model, num_particles=8)
    >>> _ = stream.update(torch.zeros(5, 2))  # a frame is given
    >>> updates = [stream.update(frame) for frame in (torch.ones(5, 2), None, torch.ones(5, 2))]
    >>> [bool(update.exact.all()) for update in updates], updates[2].frames.shape
    ([True, True, False], torch.Size([8, 5, 2]))
    """

    def __init__(
        self, model: FlowModel | SLVM, *, num_particles: int = 100, resample_below: float = 0.5
    ) -> None:
        if not isinstance(model, FlowModel | SLVM):
            raise TypeError(f"expected a FlowModel or an SLVM, got {type(model).__name__}")
        if num_particles < 1:
            raise ValueError(f"expected at least 1 particle, got {num_particles}")
        self.model, self.size, self.resample_below = model, num_particles, resample_below
        self._given: list[Tensor] = []
        self._covariates: list[Tensor] = []
        self._state: _State | None = None
        self._gaps: list[Tensor] = []  # which of the last frames had any, (batch,)
        self._batch: int | None = None
        self.paths: list[Tensor] = []  # of the particles, each (num_particles, batch, *frame)

    @torch.no_grad()
    def update(self, frame: Tensor | None, context: Tensor | None = None) -> MissingUpdate:
        """Take in the next frame of every stream.

        Args:
            frame: ``(batch, *frame_shape)``, NaN where a value is missing; ``None`` for none.
            context: covariates of the frame, ``(batch, context_features)``.
        """
        frame = self._checked(frame)
        known = None if context is None else context.unsqueeze(-2)
        known = as_context(known, self.model, torch.empty(len(frame), 0), 1)
        with evaluating(self.model):
            return self._update(frame, None if known is None else known[:, 0])

    def resampled(self) -> Tensor:
        """Draw whole sequences given all that is observed: ``(num_particles, batch, T, ...)``."""
        if self._state is not None:
            self._resample(torch.ones_like(self._state.log_weights[0], dtype=torch.bool))
        return torch.stack(self.paths, 2)

    def _checked(self, frame: Tensor | None) -> Tensor:
        if frame is None:
            if self._batch is None:
                raise ValueError("expected a first frame before one that is missing")
            like = next(self.model.parameters(), torch.empty(()))
            frame = like.new_full((self._batch, *self.model.frame_shape), torch.nan)
        frame = as_frames(frame, self.model)
        check_shape(frame.unsqueeze(1), self.model.frame_shape)
        if frame.isinf().any():
            raise ValueError("expected finite values or NaN, got Inf")
        if self._batch not in (None, len(frame)):
            raise ValueError(f"expected frames of {self._batch} streams, got {len(frame)}")
        self._batch = len(frame)
        return frame

    def _update(self, frame: Tensor, context: Tensor | None) -> MissingUpdate:
        shape = (self.size, *frame.shape)
        if len(self._given) < self.model.context_length:
            if frame.isnan().any():
                raise ValueError(
                    f"the first {self.model.context_length} frames are given to the model, and "
                    "none of their values may be missing"
                )
            self._given.append(frame)
            self._covariates += [] if context is None else [context]
            self._gaps.append(torch.zeros(len(frame), dtype=torch.bool, device=frame.device))
            self.paths.append(frame.expand(shape))
            unknown = frame.new_full((len(frame),), torch.nan, dtype=widest(frame.device))
            even = unknown.new_full(shape[:2], 1 / self.size)
            return MissingUpdate(unknown, torch.zeros_like(unknown, dtype=torch.bool),
                                 frame.expand(shape), even)  # fmt: skip
        if self._state is None:
            self._state = self._start(frame)
        return self._step(frame, context)

    def _start(self, like: Tensor) -> "_State":
        model, batch = self.model, torch.Size((self.size, len(like)))
        history = torch.stack(self._given, 1).expand(self.size, -1, -1, *like.shape[1:]) if (
            self._given
        ) else None  # fmt: skip
        known = None
        if self._covariates:
            known = torch.stack(self._covariates, 1).expand(self.size, -1, -1, -1)
        flow = prior = memory = None
        if model.flow is not None:
            seen = seen_by_flow(model, known)
            flow = model.flow.initial_state(batch, history=history, context=seen)
        if isinstance(model, SLVM):
            if model.memory is not None:
                raise TypeError("missing values of a model with a memory are not filled yet")
            prior = model.prior.initial_state(batch)
        weights = torch.full(batch, -math.log(self.size), dtype=widest(like.device))
        return _State(weights.to(like.device), flow, prior, memory)

    def _noise(self, like: Tensor, context: Tensor | None) -> tuple[Distribution, Any]:
        """p(y_t) of every particle's frame, and the next state of the prior."""
        assert self._state is not None
        if isinstance(self.model, FlowModel):
            return self.model.noise_of(like), None
        eps = torch.randn(*like.shape[:2], self.model.latent_size).to(like)
        z, _, prior = self.model.prior.step(eps, self._state.prior, context=context)
        return self.model.noise_model(*self.model.decode(z, context)), prior

    def _step(self, frame: Tensor, context: Tensor | None) -> MissingUpdate:
        state, flow, dims = self._state, self.model.flow, len(self.model.frame_shape)
        assert state is not None
        missing = frame.isnan().expand(self.size, *frame.shape)
        like = frame.nan_to_num().expand(self.size, *frame.shape)
        known = None if context is None else context.expand(self.size, *context.shape)
        noise, prior = self._noise(like, known)
        predicted = Prediction(identity_transform, None)
        if flow is not None:
            seen = seen_by_flow(self.model, known)
            predicted = flow.predict(like, state.flow, context=seen)
        mixed = predicted.transform.codomain.event_dim > 0 or bool(noise.event_shape)
        some = (missing.flatten(2).any(-1) & ~missing.flatten(2).all(-1))[0]
        fill, log_q = _proposed(predicted.transform, noise, missing, some if mixed else None)
        x = torch.where(missing, fill, like)
        y, log_scale, after = x, torch.zeros_like(x), None
        if flow is not None:
            y, log_scale, after = flow.absorb(x, predicted)
        log_p = _of_entries(noise, y, dims) - log_scale.expand_as(x)
        seen_only = log_p.masked_fill(missing, 0.0).flatten(2).sum(-1)
        log_w = widened(seen_only)
        if mixed:  # then a frame that is there in part is weighed as a whole
            whole = log_p.flatten(2).sum(-1) - log_q
            log_w = torch.where(some, widened(whole), log_w)
        exact = self._is_exact(log_w[0]) & ~(some & mixed)
        self._gaps.append(missing[0].flatten(1).any(-1))
        return self._weighed(x, log_w, _State(state.log_weights, after, prior, None), exact)

    def _weighed(self, x: Tensor, log_w: Tensor, state: "_State", exact: Tensor) -> MissingUpdate:
        unnormalized = state.log_weights + log_w
        log_likelihood = unnormalized.logsumexp(0)
        log_weights = unnormalized - log_likelihood
        self.paths.append(x)
        self._state = state._replace(log_weights=log_weights)
        update = MissingUpdate(log_likelihood, exact, x, log_weights.exp())
        effective = (-(2 * log_weights).logsumexp(0)).exp()
        self._resample(effective < self.resample_below * self.size)
        return update

    def _is_exact(self, like: Tensor) -> Tensor:
        """Whether no filled value is in the past that this frame depends on."""
        if isinstance(self.model, SLVM):
            return torch.zeros_like(like, dtype=torch.bool)
        reach = self.model.flow.reach
        seen = self._gaps if reach is None else self._gaps[len(self._gaps) - reach :]
        return ~torch.stack([torch.zeros_like(like, dtype=torch.bool), *seen]).any(0)

    def _resample(self, few: Tensor) -> None:
        state = self._state
        assert state is not None
        if self.size == 1 or not few.any():
            return
        itself = torch.arange(self.size, device=few.device)[:, None]
        chosen = torch.where(few, systematic(state.log_weights), itself)
        sequence = torch.arange(len(few), device=few.device)

        def inherit(leaf: Tensor) -> Tensor:
            return leaf[chosen, sequence] if leaf.shape[:2] == chosen.shape else leaf

        even = torch.full_like(state.log_weights, -math.log(self.size))
        kept = torch.where(few, even, state.log_weights)
        self._state = _State(kept, *map_tensors(inherit, tuple(state[1:])))
        self.paths = [inherit(frames) for frames in self.paths]


class _State(NamedTuple):
    """Log-weights of particles, and the states of flow, prior and memory."""

    log_weights: Tensor  # (num_particles, batch)
    flow: Any
    prior: Any
    memory: Any


def fill(
    model: FlowModel | SLVM,
    x: Tensor,
    *,
    context: Tensor | None = None,
    num_samples: int = 100,
) -> Filled:
    """Fill missing values by samples, and find the density of what is observed.

    Args:
        model: a flow or SLVM.
        x: ``(batch, T, *frame_shape)``, NaN where a value is missing.
        context: covariates, ``(batch, T, context_features)``.
        num_samples: particles of the filter, see :class:`MissingFilter`.

    Returns:
        log-likelihoods of the scored frames, where they are exact, and samples of all frames.

    Raises:
        TypeError, ValueError: as the filter does.

    >>> from pyro_afslvm import MLPConditioner, TemporalAffine
    >>> model = FlowModel(TemporalAffine(MLPConditioner(1, window=1)), (1,))
    >>> x = torch.tensor([[[0.0], [1.0], [torch.nan], [2.0], [1.0]]])
    >>> fill(model, x).exact.tolist()  # the window is one frame
    [[True, True, False, True]]
    """
    x = as_frames(x, model)
    check_shape(x, model.frame_shape)
    stream = MissingFilter(model, num_particles=num_samples)
    updates = [
        stream.update(frame, None if context is None else context[:, t])
        for t, frame in enumerate(x.unbind(1))
    ][model.context_length :]
    return Filled(
        torch.stack([update.log_likelihood for update in updates], 1),
        torch.stack([update.exact for update in updates], 1),
        stream.resampled(),
    )


def _of_entries(noise: Distribution, y: Tensor, dims: int) -> Tensor:
    """Log-density of each entry; of a whole frame in its first entry, where that has one."""
    found = noise.log_prob(y)
    if found.ndim == y.ndim:
        return found
    spread = torch.zeros_like(y).flatten(-dims)
    spread[..., 0] = found
    return spread.reshape(y.shape)


def _proposed(
    transform: Transform, noise: Distribution, missing: Tensor, some: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Draw missing entries, and log q of those that do not come from the model itself."""
    drawn = transform(noise.sample())
    log_q = torch.zeros(missing.shape[:2], device=missing.device, dtype=drawn.dtype)
    if some is None or not some.any():
        return drawn, log_q
    mean, scale = (part.expand(missing.shape) for part in Moments(*moments(transform, noise)))
    proposal = StudentT(_TAILS, mean, scale)
    guess = proposal.sample()
    log_q = proposal.log_prob(guess).masked_fill(~missing, 0.0).flatten(2).sum(-1)
    apart = some.reshape(1, -1, *[1] * (missing.ndim - 2))
    return torch.where(apart, guess, drawn), log_q
