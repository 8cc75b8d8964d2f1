"""Filtering a stream, one frame after the other, at a constant cost."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, identity_transform

from pyro_afslvm.guides import ForwardGuide
from pyro_afslvm.models.base import seen_by_flow, takes_context
from pyro_afslvm.models.checks import check_shape, check_values
from pyro_afslvm.models.flow import FlowModel
from pyro_afslvm.models.inputs import as_context, as_frames
from pyro_afslvm.models.programs import evaluating
from pyro_afslvm.models.slvm import SLVM, MemoryState
from pyro_afslvm.objectives.smc import Particles, advance, check_filter, draw, resample, start
from pyro_afslvm.transforms import Prediction
from pyro_afslvm.transforms.moments import Moments, moments
from pyro_afslvm.utils.precision import widened, widest

Forecast = Moments  # of every pixel of the next frame, (batch, *frame_shape)


class FilterUpdate(NamedTuple):
    """Estimates after a frame; while the context fills, the forecast at most."""

    log_likelihood: Tensor  # log p(x_t | x_<t) in nats, (batch,), float64; NaN for the context
    z: Tensor | None  # particles of the latents, (num_particles, batch, latent_size)
    weights: Tensor | None  # of these, (num_particles, batch)
    forecast: Forecast | None  # of the next frame, once the context is there


class StreamingFilter:
    r"""Likelihood, latents and forecast of frames as they come.

    :math:`-\log p(x_t \mid x_{<t})` is an anomaly score: exact for a flow, estimated by a
    particle filter for an SLVM. Time and memory per frame are constant, no frame is encoded
    twice, and the numbers are those of the batch computations, ``log_prob`` and
    :func:`~pyro_afslvm.objectives.smc`.

    Args:
        model: a flow or SLVM; model and guide are run in evaluation mode.
        guide: a filtering guide for it, ``None`` for a flow.
        num_particles: of the filter; 1 gives the terms of the bound.
        resample_below: as in :func:`~pyro_afslvm.objectives.smc`.
        generator: of the filter's N(0, I) draws. Forecasts, and the updates of an iterative
            guide, draw from torch's own.

    Raises:
        TypeError: for a guide that needs later frames, or a model it cannot filter.
        ValueError: for no particles; from :meth:`update`, for frames of another shape or
            number of streams than before.

    >>> from pyro_afslvm import FlowModel, MLPConditioner, TemporalAffine
    >>> model = FlowModel(TemporalAffine(MLPConditioner(2, window=1)), (2,))
    >>> stream = StreamingFilter(model)
    >>> for frame in torch.randn(3, 5, 2):  # 3 frames of 5 streams
    ...     update = stream.update(frame)
    >>> update.log_likelihood.shape, update.forecast.mean.shape
    (torch.Size([5]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        model: FlowModel | SLVM,
        guide: ForwardGuide | None = None,
        *,
        num_particles: int = 16,
        resample_below: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(model, FlowModel):
            check_filter(model, guide, num_particles, resample_below)
            if guide is not None and type(guide).frame_context is ForwardGuide.frame_context:
                raise TypeError(
                    f"expected a filtering guide, got {type(guide).__name__}, which sees later "
                    "frames: a stream has none yet"
                )
        elif guide is not None:
            raise TypeError("expected no guide, for a flow has no latents; got one")
        self.model, self.guide = model, guide
        self.num_particles, self.resample_below = num_particles, resample_below
        self.generator = generator
        self._context: list[Tensor] = []
        self._covariates: list[Tensor] = []
        self._frames: _Frames | None = None
        self._latents: _Latents | None = None

    @torch.no_grad()
    def update(self, frame: Tensor, context: Tensor | None = None) -> FilterUpdate:
        """Take in the next frame of every stream.

        Args:
            frame: ``(batch, *frame_shape)``.
            context: covariates of the frame, ``(batch, context_features)``, for a model that has
                any. The forecast of the next frame needs those of that: see :meth:`forecast`.
        """
        frame = None if frame is None else as_frames(frame, self.model)
        if frame is None or bool(frame.isnan().any()):
            raise ValueError(
                "expected a frame without NaN or Inf: MissingFilter takes missing values"
            )
        check_shape(frame.unsqueeze(1), self.model.frame_shape)
        check_values(frame.unsqueeze(1), self.model.frame_shape)
        with evaluating(self.model, self.guide):
            return self._update(frame, self._known(context, len(frame)))

    @torch.no_grad()
    def forecast(self, context: Tensor | None = None) -> Forecast:
        """Find the moments of the next frame, given its covariates where the model has any.

        Args:
            context: ``(batch, context_features)``.

        Raises:
            ValueError: while frames are missing that the model must be given.
        """
        if self._frames is None:
            raise ValueError(
                f"expected {self.model.context_length} frames before the first forecast, got "
                f"{len(self._context)}"
            )
        with evaluating(self.model, self.guide):
            return self._forecast(self._known(context, len(self._frames.like)))

    def _known(self, context: Tensor | None, batch: int) -> Tensor | None:
        given = None if context is None else context.unsqueeze(-2)
        found = as_context(given, self.model, torch.empty(batch, 0), 1)
        return None if found is None else found[:, 0]

    def _update(self, frame: Tensor, context: Tensor | None) -> FilterUpdate:
        if self._frames is None and not self.model.context_length:
            self._start(frame)
        if self._frames is None:
            return self._fill(frame, context)
        if frame.shape != self._frames.like.shape:
            raise _other_streams(self._frames.like, frame)
        seen = seen_by_flow(self.model, context)
        y, log_det, self._frames = self._frames.absorb(self.model.flow, frame, seen)
        if isinstance(self.model, FlowModel):
            terms = self.model.noise_of(y).log_prob(y).reshape(len(y), -1)
            log_prob = widened(terms.sum(1)) - log_det
            return FilterUpdate(log_prob, None, None, self._next_forecast())
        return self._filter(frame, y, log_det, context)

    def _fill(self, frame: Tensor, context: Tensor | None) -> FilterUpdate:
        """Take in a frame of the context, which is not scored."""
        if self._context and frame.shape != self._context[0].shape:
            raise _other_streams(self._context[0], frame)
        self._context.append(frame)
        if context is not None:
            self._covariates.append(context)
        unknown = torch.full(
            frame.shape[:1], torch.nan, dtype=widest(frame.device), device=frame.device
        )
        if len(self._context) < self.model.context_length:
            return FilterUpdate(unknown, None, None, None)
        self._start(frame)
        return FilterUpdate(unknown, None, None, self._next_forecast())

    def _start(self, like: Tensor) -> None:
        history = torch.stack(self._context, 1) if self._context else None
        known = torch.stack(self._covariates, 1) if self._covariates else None
        self._context, self._covariates = [], []
        state = None
        if self.model.flow is not None:
            seen = seen_by_flow(self.model, known)
            state = self.model.flow.initial_state(like.shape[:1], history=history, context=seen)
        wait = self.model.flow is not None and takes_context(self.model.flow)
        self._frames = _Frames.expect(self.model.flow, like, state, wait=wait)
        if isinstance(self.model, SLVM) and self.guide is not None:
            particles = start(self.model, self.guide, self.num_particles, len(like), like=like)
            kept = self.model.start_memory(like.shape[:1], history)
            self._latents = _Latents(particles, kept)

    def _filter(
        self, frame: Tensor, y: Tensor, log_det: Tensor, covariates: Tensor | None
    ) -> FilterUpdate:
        model, guide, latents = self.model, self.guide, self._latents
        assert isinstance(model, SLVM)
        assert guide is not None
        assert latents is not None
        past = model.summary(latents.memory, covariates)
        eps = draw(model, self.num_particles, y, self.generator)
        context = guide.frame_context(y, past)
        filtered, particles = advance(model, guide, latents.particles, y, context, past, eps)
        particles = resample(particles, filtered, self.resample_below, self.generator)
        kept = model.remember(frame, y, latents.memory)
        self._latents = _Latents(particles, kept)
        return FilterUpdate(
            filtered.log_likelihood - log_det,
            filtered.z,
            filtered.log_weights.exp(),
            self._next_forecast(),
        )

    def _next_forecast(self) -> Forecast | None:
        """The forecast, unless it waits for covariates."""
        return None if self.model.context_features else self._forecast(None)

    def _forecast(self, context: Tensor | None) -> Forecast:
        """Find the moments of the next frame, over particles and one draw of z for each."""
        frames, latents, model = self._frames, self._latents, self.model
        assert frames is not None
        frames = frames.predict(model.flow, seen_by_flow(model, context))
        if isinstance(model, FlowModel):
            return frames.moments(model.noise_of(frames.like))
        assert latents is not None
        particles = latents.particles
        past = model.summary(latents.memory, context)
        eps = draw(model, self.num_particles, frames.like, None)
        z = model.prior.step(eps, particles.prior, context=past)[0]
        noise = model.noise_model(*model.decode(z, past))
        return frames.moments(noise, particles.log_weights.exp())


class _Latents(NamedTuple):
    """Particles, and the state of the model's memory."""

    particles: Particles
    memory: MemoryState | None


class _Frames(NamedTuple):
    """The state of the flow: its prediction of the next frame."""

    like: Tensor  # the last frame
    predicted: Prediction | None  # None without a flow, or while it waits for covariates
    state: Any = None  # of a flow that waits

    @classmethod
    def expect(cls, flow: Any, like: Tensor, state: Any, *, wait: bool = False) -> "_Frames":
        if flow is None:
            return cls(like, None)
        return cls(like, None, state) if wait else cls(like, flow.predict(like, state))

    def predict(self, flow: Any, context: Tensor | None) -> "_Frames":
        """Predict the next frame, if that has waited for its covariates."""
        if flow is None or self.predicted is not None:
            return self
        return _Frames(self.like, flow.predict(self.like, self.state, context=context))

    def absorb(
        self, flow: Any, frame: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor, "_Frames"]:
        """Give noise and log det of the frame, and the prediction of the one after it."""
        wait = self.predicted is None
        self = self.predict(flow, context)
        if self.predicted is None:
            return (
                frame,
                frame.new_zeros(len(frame), dtype=widest(frame.device)),
                _Frames(frame, None),
            )
        y, log_scale, state = flow.absorb(frame, self.predicted)
        log_det = widened(log_scale.expand_as(frame).flatten(1).sum(-1))
        return y, log_det, _Frames.expect(flow, frame, state, wait=wait)

    def moments(self, noise: Distribution, weights: Tensor | None = None) -> Forecast:
        """Turn the distribution of its noise into the moments of the frame."""
        return moments(
            identity_transform if self.predicted is None else self.predicted.transform,
            noise,
            weights,
        )


def _other_streams(before: Tensor, frame: Tensor) -> ValueError:
    return ValueError(f"expected frames of {len(before)} streams as before, got {len(frame)}")
