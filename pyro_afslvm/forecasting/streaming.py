"""Filtering a stream, one frame after the other, at a constant cost."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_afslvm.distributions import standard_normal
from pyro_afslvm.guides import ForwardGuide
from pyro_afslvm.models.checks import check_shape, check_values
from pyro_afslvm.models.flow import FlowModel
from pyro_afslvm.models.programs import evaluating
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.networks.history_encoder import HistoryState
from pyro_afslvm.objectives.smc import Particles, advance, check_filter, draw, resample, start
from pyro_afslvm.transforms import Prediction, check_affine


class Forecast(NamedTuple):
    """Mean and standard deviation of every pixel of the next frame, ``(batch, *frame_shape)``."""

    mean: Tensor
    scale: Tensor


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
        TypeError: for a guide that needs later frames, a model it cannot filter, or a flow that
            is not affine.
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
        if model.flow is not None:
            check_affine(model.flow, "forecast")
        self.model, self.guide = model, guide
        self.num_particles, self.resample_below = num_particles, resample_below
        self.generator = generator
        self._context: list[Tensor] = []
        self._frames: _Frames | None = None
        self._latents: _Latents | None = None

    @torch.no_grad()
    def update(self, frame: Tensor) -> FilterUpdate:
        """Take in the next frame of every stream.

        Args:
            frame: ``(batch, *frame_shape)``.
        """
        check_shape(frame.unsqueeze(1), self.model.frame_shape)
        check_values(frame, self.model.frame_shape)
        with evaluating(self.model, self.guide):
            return self._update(frame)

    def _update(self, frame: Tensor) -> FilterUpdate:
        if self._frames is None and not self.model.context_length:
            self._start(frame)
        if self._frames is None:
            return self._fill(frame)
        if frame.shape != self._frames.like.shape:
            raise _other_streams(self._frames.like, frame)
        y, log_det, self._frames = self._frames.absorb(self.model.flow, frame)
        if isinstance(self.model, FlowModel):
            log_prob = standard_normal(y.shape[1:], y).log_prob(y).double() - log_det
            return FilterUpdate(log_prob, None, None, self._forecast())
        return self._filter(y, log_det)

    def _fill(self, frame: Tensor) -> FilterUpdate:
        """Take in a frame of the context, which is not scored."""
        if self._context and frame.shape != self._context[0].shape:
            raise _other_streams(self._context[0], frame)
        self._context.append(frame)
        unknown = torch.full(frame.shape[:1], torch.nan, dtype=torch.float64, device=frame.device)
        if len(self._context) < self.model.context_length:
            return FilterUpdate(unknown, None, None, None)
        self._start(frame)
        return FilterUpdate(unknown, None, None, self._forecast())

    def _start(self, like: Tensor) -> None:
        history = torch.stack(self._context, 1) if self._context else None
        self._context = []
        state = None
        if self.model.flow is not None:
            state = self.model.flow.initial_state(like.shape[:1], history=history)
        self._frames = _Frames.expect(self.model.flow, like, state)
        if isinstance(self.model, SLVM) and self.guide is not None:
            particles = start(self.model, self.guide, self.num_particles, len(like), like=like)
            memory = self.model.memory
            kept = None if memory is None else memory.initial_state(like.shape[:1])
            self._latents = _Latents(particles, kept)

    def _filter(self, y: Tensor, log_det: Tensor) -> FilterUpdate:
        model, guide, latents = self.model, self.guide, self._latents
        assert isinstance(model, SLVM)
        assert guide is not None
        assert latents is not None
        past = None if latents.memory is None else latents.memory.summary
        eps = draw(model, self.num_particles, y, self.generator)
        context = guide.frame_context(y, past)
        filtered, particles = advance(model, guide, latents.particles, y, context, past, eps)
        particles = resample(particles, filtered, self.resample_below, self.generator)
        kept = latents.memory
        if model.memory is not None and kept is not None:
            kept = model.memory.step(y, kept)
        self._latents = _Latents(particles, kept)
        return FilterUpdate(
            filtered.log_likelihood - log_det,
            filtered.z,
            filtered.log_weights.exp(),
            self._forecast(),
        )

    def _forecast(self) -> Forecast:
        """Find the moments of the next frame, over particles and one draw of z for each."""
        frames, latents, model = self._frames, self._latents, self.model
        assert frames is not None
        if isinstance(model, FlowModel) or latents is None:
            return frames.moments(torch.zeros_like(frames.like), torch.ones_like(frames.like))
        particles = latents.particles
        past = None if latents.memory is None else latents.memory.summary
        eps = draw(model, self.num_particles, frames.like, None)
        z = model.prior.step(eps, particles.prior, context=past)[0]
        location, scale = model.decode(z, past)
        weights = particles.log_weights.exp().to(location)
        weights = weights.reshape(*weights.shape, *[1] * len(model.frame_shape))
        mean = (weights * location).sum(0)
        variance = (weights * (scale.square() + (location - mean).square())).sum(0)
        return frames.moments(mean, variance.sqrt())


class _Latents(NamedTuple):
    """Particles, and the state of the model's memory."""

    particles: Particles
    memory: HistoryState | None


class _Frames(NamedTuple):
    """The state of the flow: its prediction of the next frame."""

    like: Tensor  # the last frame
    predicted: Prediction | None  # None without a flow

    @classmethod
    def expect(cls, flow: Any, like: Tensor, state: Any) -> "_Frames":
        return cls(like, None if flow is None else flow.predict(like, state))

    def absorb(self, flow: Any, frame: Tensor) -> tuple[Tensor, Tensor, "_Frames"]:
        """Give noise and log det of the frame, and the prediction of the one after it."""
        if self.predicted is None:
            return frame, frame.new_zeros(len(frame), dtype=torch.float64), _Frames(frame, None)
        y, log_scale, state = flow.absorb(frame, self.predicted)
        log_det = log_scale.expand_as(frame).flatten(1).sum(-1).double()
        return y, log_det, _Frames.expect(flow, frame, state)

    def moments(self, mean: Tensor, scale: Tensor) -> Forecast:
        """Turn the moments of its noise into those of the frame."""
        if self.predicted is None:
            return Forecast(mean, scale)
        spread = self.predicted.log_scale.exp()
        return Forecast(self.predicted.shift + spread * mean, spread * scale)


def _other_streams(before: Tensor, frame: Tensor) -> ValueError:
    return ValueError(f"expected frames of {len(before)} streams as before, got {len(frame)}")
