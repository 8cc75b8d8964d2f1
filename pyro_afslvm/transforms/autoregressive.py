"""The transform across time of a conditioner and a univariate map."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import CatTransform, Transform

from pyro_afslvm.transforms.base import TemporalTransform
from pyro_afslvm.transforms.conditioners import Conditioner, as_parameters
from pyro_afslvm.transforms.steps import Prediction
from pyro_afslvm.transforms.time_axis import join, last_frames, time_length
from pyro_afslvm.transforms.univariate import Affine, Univariate, invert
from pyro_afslvm.transforms.univariate.base import log_scale


class AutoregressiveState(NamedTuple):
    """The last frames, and what the conditioner keeps of those before."""

    recent: tuple[Tensor, ...]  # the latest at the end
    start: tuple[Tensor, ...]  # frames so far, while they are fewer than the window
    inner: Any


class TemporalAutoregressive(TemporalTransform):
    r"""Transform across time: a conditioner sees the past, a univariate map makes the frame.

    .. math:: x_t = f(y_t; \theta(x_{<t})), \qquad
              \log\left|\det \frac{\partial x}{\partial y}\right| = \sum_t \sum_i \log
              \frac{\partial f}{\partial y}(y_{t,i}; \theta_i(x_{<t}))

    Args:
        conditioner: gives the parameters :math:`\theta` from the past, as many for each entry
            as the map has.
        univariate: the map f.
        initial: ``"learned"`` gives the first ``window`` frames of a sequence parameters of
            their own, so that the density covers every frame and a sequence can be sampled
            from nothing. ``None``: those frames must be given as history.

    Raises:
        ValueError: if conditioner and map do not fit, or for another ``initial``.

    >>> import torch
    >>> from pyro_afslvm import LSTMConditioner, TemporalAutoregressive
    >>> from pyro_afslvm.transforms.univariate import AffineMap
    >>> flow = TemporalAutoregressive(LSTMConditioner(2, hidden=8), AffineMap(residual=True))
    >>> flow.inv(torch.randn(5, 10, 2)).shape  # one pass over all frames
    torch.Size([5, 10, 2])
    """

    def __init__(
        self,
        conditioner: Conditioner,
        univariate: Univariate,
        *,
        initial: Literal["learned"] | None = None,
    ) -> None:
        if initial not in (None, "learned"):
            raise ValueError(f"initial must be 'learned' or None, got {initial!r}")
        if conditioner.num_parameters != univariate.num_parameters:
            raise ValueError(
                f"expected a conditioner of {univariate.num_parameters} parameters for "
                f"{type(univariate).__name__}, got one of {conditioner.num_parameters}: pass "
                f"`num_parameters={univariate.num_parameters}`"
            )
        window, reach = conditioner.window, conditioner.reach
        super().__init__(
            frame_dims=conditioner.frame_dims,
            context_length=0 if initial else window,
            reach=None if reach is None else max(reach, univariate.lags),
        )
        self.conditioner = conditioner
        self.univariate = univariate
        self._make_initial((window, *conditioner.initial_shape) if initial and window else None)

    def _make_initial(self, shape: tuple[int, ...] | None) -> None:
        """Make the parameters of the first frames, ``(window, *initial_shape)`` times P."""
        self.initial_parameters: nn.Parameter | None = None
        if shape is not None:
            zeros = torch.zeros(*shape, self.univariate.num_parameters)
            self.initial_parameters = nn.Parameter(zeros)

    @property
    def is_affine(self) -> bool:
        return self.univariate.is_affine

    # the maps, from the past ------------------------------------------------------------

    def _map(self, parameters: Tensor, recent: Tensor | None) -> Transform:
        """Make the map of a frame from the conditioner's parameters."""
        transform: Transform = self.univariate(parameters, recent)
        return transform

    def _initial_map(self, frames: slice | int, recent: Tensor | None, like: Tensor) -> Transform:
        """Make the map of some of the first frames, or of one."""
        if self.initial_parameters is None:
            raise self._without_history()
        return self._map(as_parameters(self.initial_parameters[frames], like), recent)

    @property
    def _lags(self) -> int:
        return self.univariate.lags

    # all frames at once -----------------------------------------------------------------

    def given_past(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Transform:
        dim, length = -1 - self.frame_dims, time_length(x, self.frame_dims)
        past = 0 if history is None else time_length(history, self.frame_dims)
        missing = min(max(0, self.conditioner.window - past), length)
        recent = last_frames(x, history, self._lags, self.frame_dims)
        if not missing:
            return self._conditioned(x, history, context, recent)
        sizes = [missing, length - missing]
        first, rest = x.split(sizes, dim)
        early, late = (None, None) if recent is None else recent.split(sizes, dim - 1)
        start = self._initial_map(slice(past, past + missing), early, first)
        if not rest.shape[dim]:
            return start
        full = join(history, first, self.frame_dims)
        return _in_turn([start, self._conditioned(rest, full, context, late)], sizes, dim)

    def _conditioned(
        self, x: Tensor, history: Tensor | None, context: Tensor | None, recent: Tensor | None
    ) -> Transform:
        parameters = self.conditioner(x, history=history, context=context)
        return self._map(as_parameters(parameters, x), recent)

    # one frame after the other ----------------------------------------------------------

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> AutoregressiveState:
        window = self.conditioner.window
        frames = () if history is None else history.unbind(-1 - self.frame_dims)
        recent = frames[-max(1, self._lags) :]
        if len(frames) < window:
            return AutoregressiveState(recent, tuple(frames), None)
        inner = self.conditioner.initial_state(batch_shape, history=history, context=context)
        return AutoregressiveState(recent, (), inner)

    def step(
        self, noise: Tensor, state: AutoregressiveState, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, AutoregressiveState]:
        transform, pending = self.predict(noise, state, context=context)
        frame = transform(noise)
        scale = log_scale(transform, noise, frame, self.frame_dims)
        return frame, scale, self._seen(frame, pending)

    def predict(
        self, like: Tensor, state: AutoregressiveState, *, context: Tensor | None = None
    ) -> Prediction:
        recent, start, inner = state
        seen = self._recent_at(recent, like)
        if inner is None and len(start) < self.conditioner.window:
            return Prediction(self._initial_map(len(start), seen, like), state)
        if inner is None:
            inner = self._enter(start)
        previous = recent[-1] if recent else None
        parameters, inner = self.conditioner.step(previous, inner, context=context)
        transform = self._map(as_parameters(parameters, like), seen)
        return Prediction(transform, AutoregressiveState(recent, (), inner))

    def absorb(
        self, frame: Tensor, predicted: Prediction
    ) -> tuple[Tensor, Tensor, AutoregressiveState]:
        noise, scale = invert(predicted.transform, frame, self.frame_dims)
        return noise, scale, self._seen(frame, predicted.pending)

    def _recent_at(self, recent: Sequence[Tensor], like: Tensor) -> Tensor | None:
        """Stack the last frames for the map, after zeros where there were none."""
        if not self._lags:
            return None
        frames = recent[-self._lags :]
        missing = self._lags - len(frames)
        zeros = torch.zeros_like(frames[-1] if frames else like)
        return torch.stack(torch.broadcast_tensors(*[zeros] * missing, *frames), -1)

    def _enter(self, start: tuple[Tensor, ...]) -> Any:
        """Start the conditioner, now that enough frames have come."""
        history = torch.stack(torch.broadcast_tensors(*start), -1 - self.frame_dims)
        return self.conditioner.initial_state(
            history.shape[: -1 - self.frame_dims], history=history
        )

    def _seen(self, frame: Tensor, state: AutoregressiveState) -> AutoregressiveState:
        """Give the state after a frame, which is kept while the window is not full."""
        start = (*state.start, frame) if state.inner is None else ()
        recent = (*state.recent, frame)[-max(1, self._lags) :]
        return AutoregressiveState(recent, start, state.inner)

    def _without_history(self) -> ValueError:
        return ValueError(
            f"{self.conditioner.window} frames of history are needed before the first "
            "frame: pass `history=` or build with `initial='learned'`"
        )


def _in_turn(transforms: list[Transform], sizes: list[int], dim: int) -> Transform:
    """Put the maps of successive frames into one."""
    affine = [t for t in transforms if isinstance(t, Affine)]
    if len(affine) < len(transforms):
        return CatTransform(transforms, dim, sizes)
    batch = torch.broadcast_shapes(*(t.shift.shape[:dim] for t in affine))
    pairs = zip(*((t.shift, t.log_scale) for t in affine), strict=True)
    return Affine(
        *(torch.cat([p.expand(*batch, *p.shape[dim:]) for p in same], dim) for same in pairs)
    )
