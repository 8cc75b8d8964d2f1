"""The affine transform across time: the one idea of this library."""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms.base import TemporalTransform
from pyro_afslvm.transforms.conditioners import AffineParameters, Conditioner, LastFrame
from pyro_afslvm.transforms.steps import AffineStep, Prediction
from pyro_afslvm.transforms.time_axis import join, previous_frames, time_length


class AffineState(NamedTuple):
    """The last frame, and what the conditioner keeps of those before."""

    previous: Tensor | None
    start: tuple[Tensor, ...]  # frames so far, while they are fewer than the window
    inner: Any


class TemporalAffine(TemporalTransform):
    r"""Affine transform across time.

    .. math:: x_t = \mu(x_{<t}) + \sigma(x_{<t}) \odot y_t, \qquad
              \log\left|\det \frac{\partial x}{\partial y}\right| = \sum_t \sum_i \log
              \sigma_i(x_{<t})

    Where the conditioner is residual :math:`\mu = x_{t-1} + \sigma m`, with the same
    :math:`\sigma`, clamped.

    Args:
        conditioner: gives :math:`\mu`, or m, and :math:`\log \sigma` from the past.
        initial: ``"learned"`` gives the first ``window`` frames of a sequence a shift and a
            log-scale of their own, so that the density covers every frame and a sequence
            can be sampled from nothing. ``None``: those frames must be given as history.
        min_log_scale: lower clamp of :math:`\log \sigma`.
        max_log_scale: upper clamp; the paper's is :math:`\log 10`.

    Source: Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with
    Autoregressive Flows*, Eq. 5, 6, 8.

    >>> import torch
    >>> from pyro_afslvm import MLPConditioner, TemporalAffine
    >>> flow = TemporalAffine(MLPConditioner(2, window=1), initial="learned")
    >>> x = torch.randn(5, 10, 2)  # 5 sequences of 10 two-dimensional frames
    >>> y = flow.inv(x)  # one pass over all frames
    >>> flow.log_abs_det_jacobian(y, x).shape
    torch.Size([5])
    """

    is_affine = True

    def __init__(
        self,
        conditioner: Conditioner,
        *,
        initial: Literal["learned"] | None = None,
        min_log_scale: float = -10.0,
        max_log_scale: float = math.log(10.0),
    ) -> None:
        if initial not in (None, "learned"):
            raise ValueError(f"initial must be 'learned' or None, got {initial!r}")
        window = conditioner.window
        super().__init__(
            frame_dims=conditioner.frame_dims,
            context_length=0 if initial else window,
            reach=conditioner.reach,
        )
        self.conditioner = conditioner
        self.min_log_scale = min_log_scale
        self.max_log_scale = max_log_scale
        self.initial_shift: nn.Parameter | None = None
        self.initial_log_scale: nn.Parameter | None = None
        if initial and window:
            shape = (window, *conditioner.initial_shape)
            self.initial_shift = nn.Parameter(torch.zeros(shape))
            self.initial_log_scale = nn.Parameter(torch.zeros(shape))

    def intermediates(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> list[AffineStep]:
        shift, log_scale = self._parameters_of(x, history, context)
        return [AffineStep(shift, log_scale, (x - shift) * torch.exp(-log_scale))]

    def _parameters_of(
        self, x: Tensor, history: Tensor | None, context: Tensor | None
    ) -> AffineParameters:
        dim, length = -1 - self.frame_dims, time_length(x, self.frame_dims)
        past = 0 if history is None else time_length(history, self.frame_dims)
        missing = min(max(0, self.conditioner.window - past), length)
        if not missing:
            return self._conditioned(x, history, context)
        first, rest = x.split([missing, length - missing], dim)
        start = self._clamped(self._initial(slice(past, past + missing)), first)
        if not rest.shape[dim]:
            return start
        full = join(history, first, self.frame_dims)
        following = self._conditioned(rest, full, context)
        return AffineParameters(
            *(torch.cat(pair, dim) for pair in zip(start, following, strict=True))
        )

    def _conditioned(
        self, x: Tensor, history: Tensor | None, context: Tensor | None
    ) -> AffineParameters:
        parameters = self._clamped(self.conditioner(x, history=history, context=context), x)
        if not self.conditioner.residual:
            return parameters
        return _around(previous_frames(x, history, self.frame_dims), parameters)

    def _initial(self, frames: slice) -> AffineParameters:
        if self.initial_shift is None or self.initial_log_scale is None:
            raise ValueError(
                f"{self.conditioner.window} frames of history are needed before the first "
                "frame: pass `history=` or build with `initial='learned'`"
            )
        return AffineParameters(self.initial_shift[frames], self.initial_log_scale[frames])

    def _clamped(self, parameters: AffineParameters, like: Tensor) -> AffineParameters:
        """Bring parameters to the frames' shape, precision and device, and within the clamps."""
        shift, log_scale = (p.to(like).expand_as(like) for p in parameters)
        return AffineParameters(shift, log_scale.clamp(self.min_log_scale, self.max_log_scale))

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> AffineState:
        dim, window = -1 - self.frame_dims, self.conditioner.window
        past = 0 if history is None else time_length(history, self.frame_dims)
        if past < window:
            frames = () if history is None else history.unbind(dim)
            return AffineState(frames[-1] if frames else None, tuple(frames), None)
        previous = None if history is None else history.select(dim, -1)
        inner = self.conditioner.initial_state(batch_shape, history=history, context=context)
        return AffineState(previous, (), inner)

    def step(
        self, noise: Tensor, state: AffineState, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, AffineState]:
        shift, log_scale, pending = self.predict(noise, state, context=context)
        frame = shift + log_scale.exp() * noise
        return frame, log_scale, _seen(frame, pending)

    def predict(
        self, like: Tensor, state: AffineState, *, context: Tensor | None = None
    ) -> Prediction:
        previous, start, inner = state
        if inner is None and len(start) < self.conditioner.window:
            t = len(start)
            shift, log_scale = (p[0] for p in self._initial(slice(t, t + 1)))
            parameters = self._clamped(AffineParameters(shift, log_scale), like)
            return Prediction(*parameters, state)
        if inner is None:
            inner = self._enter(start)
        parameters, inner = self.conditioner.step(previous, inner, context=context)
        parameters = self._clamped(parameters, like)
        if self.conditioner.residual:
            parameters = _around(previous, parameters)
        return Prediction(*parameters, AffineState(previous, (), inner))

    def absorb(self, frame: Tensor, predicted: Prediction) -> tuple[Tensor, Tensor, AffineState]:
        shift, log_scale, pending = predicted
        return (frame - shift) * torch.exp(-log_scale), log_scale, _seen(frame, pending)

    def _enter(self, start: tuple[Tensor, ...]) -> Any:
        """Start the conditioner, now that enough frames have come."""
        history = torch.stack(torch.broadcast_tensors(*start), -1 - self.frame_dims)
        return self.conditioner.initial_state(
            history.shape[: -1 - self.frame_dims], history=history
        )


def _around(previous: Tensor | None, parameters: AffineParameters) -> AffineParameters:
    """Add the last frame to a shift in units of the scale; before the first of all it is zero."""
    change, log_scale = parameters
    change = log_scale.exp() * change
    return AffineParameters(change if previous is None else previous + change, log_scale)


def _seen(frame: Tensor, state: AffineState) -> AffineState:
    """Give the state after a frame, which is kept while the window is not full."""
    start = (*state.start, frame) if state.inner is None else ()
    return AffineState(frame, start, state.inner)


class TemporalDifference(TemporalAffine):
    r"""Affine transform with the last frame as shift and scale one: its noise is the change.

    .. math:: y_t = x_t - x_{t-1}, \qquad x_0 = 0

    Its inverse turns positions into velocities, a chain of two into accelerations: the
    motivating example of the paper (§3.1, Fig. 2). It has no parameters.

    Args:
        frame_dims: dimensions of a frame: 1 for vectors, 3 for ``(C, H, W)``.

    >>> import torch
    >>> TemporalDifference().inv(torch.tensor([[1.0], [3.0], [6.0]])).flatten().tolist()
    [1.0, 2.0, 3.0]
    """

    def __init__(self, *, frame_dims: int = 1) -> None:
        super().__init__(LastFrame(frame_dims))
