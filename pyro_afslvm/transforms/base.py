"""What every bijection across time shares: a parallel inverse, a step, a memo."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions import Transform, constraints

from pyro_afslvm.transforms.cache import Memo


class Level(NamedTuple):
    """One transform of a chain, inverted: all of shape ``(*batch, T, *frame_shape)``."""

    shift: Tensor
    log_scale: Tensor
    noise: Tensor


class Inverse(NamedTuple):
    """The noise behind a sequence and the log-scale of every entry, of one shape."""

    noise: Tensor
    log_scale: Tensor


class Prediction(NamedTuple):
    """What is known of a frame before it is there; shift and log-scale of its shape."""

    shift: Tensor
    log_scale: Tensor
    pending: Any  # what the transform needs to absorb the frame


class TemporalTransform(TransformModule):
    r"""A bijection of whole sequences, triangular in time and elementwise given the past.

    The event is the sequence, of shape ``(T, *frame_shape)``. The inverse :math:`x \to y`
    is one parallel pass; the forward direction :math:`y \to x` is a loop of :meth:`step`.

    Args:
        frame_dims: dimensions of a frame: 3 for ``(C, H, W)``, 1 for vectors.
        context_length: frames of history it cannot do without.
        reach: past frames that it looks at; ``None`` for all of them.
    """

    bijective = True
    sign = +1

    def __init__(self, *, frame_dims: int, context_length: int, reach: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.frame_dims = frame_dims
        self.context_length = context_length
        self.reach = reach
        self._memo: Memo[Inverse] = Memo()

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(constraints.real, 1 + self.frame_dims)

    codomain = domain

    # what a transform defines -----------------------------------------------------------

    def levels(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> list[Level]:
        """Invert, in parallel over time, and show each transform from x down to the noise.

        Args:
            x: frames ``(*batch, T, *frame_shape)``.
            history: the frames before them, ``(*batch, K, *frame_shape)``.
            context: another variable for all of them, ``(*batch, K + T, features)``.
        """
        raise NotImplementedError

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Any:
        """The state from which :meth:`step` gives the first frame after ``history``."""
        raise NotImplementedError

    def step(
        self, noise: Tensor, state: Any, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """One frame from its noise, at a cost that does not grow with time.

        Args:
            noise: ``(*batch, *frame_shape)``.
            state: from :meth:`initial_state` or the step before.
            context: ``(*batch, features)``.

        Returns:
            the frame, its log-scale and the next state.
        """
        raise NotImplementedError

    def predict(self, like: Tensor, state: Any, *, context: Tensor | None = None) -> "Prediction":
        """Shift and log-scale of the next frame, before it is there.

        Args:
            like: any frame ``(*batch, *frame_shape)``, for shape, precision and device.
            state: from :meth:`initial_state` or the step before.
            context: ``(*batch, features)``.
        """
        raise NotImplementedError

    def absorb(self, frame: Tensor, predicted: "Prediction") -> tuple[Tensor, Tensor, Any]:
        """The frame that was predicted: its noise, its log-scale and the next state."""
        raise NotImplementedError

    # what follows from it ---------------------------------------------------------------

    def inverse_step(
        self, frame: Tensor, state: Any, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """The noise of one frame, from the same state and at the same cost as :meth:`step`.

        Args:
            frame: ``(*batch, *frame_shape)``.
            state: from :meth:`initial_state` or the step before, of either direction.
            context: ``(*batch, features)``.

        Returns:
            the noise, the frame's log-scale and the next state.
        """
        return self.absorb(frame, self.predict(frame, state, context=context))

    @property
    def watched(self) -> torch.nn.Module:
        """The module on whose parameters a remembered inverse depends."""
        return self

    def condition(
        self,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> "ConditionedTemporalTransform":
        """The transform of the frames that follow ``history``; it shares the parameters.

        Args:
            history: earlier frames ``(*batch, K, *frame_shape)``. As many as ``reach``
                stand for any longer past; fewer are taken for the start of the sequence.
            context: a variable aligned in time with history and values together,
                ``(*batch, K + T, features)``.
            mask: ``(*batch, T)``, true where a frame counts. Elsewhere the transform is the
                identity, so that padding adds exactly zero.

        Raises:
            ValueError: if ``history`` is shorter than ``context_length``, or of another rank;
                from the transform, if ``context`` is not of ``K + T`` steps.
        """
        return ConditionedTemporalTransform(self, history=history, context=context, mask=mask)

    def _call(self, y: Tensor) -> Tensor:
        return self.condition()._call(y)

    def _inverse(self, x: Tensor) -> Tensor:
        return self.condition()._inverse(x)

    def log_abs_det_jacobian(self, y: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.condition().log_abs_det_jacobian(y, x)

    def with_cache(self, cache_size: int = 1) -> "TemporalTransform":
        return self  # the memo does what torch's cache would, and sees changed parameters

    def __repr__(self) -> str:
        return torch.nn.Module.__repr__(self)


class ConditionedTemporalTransform(Transform):
    """A temporal transform with its history, context and mask given."""

    bijective = True
    sign = +1

    def __init__(
        self,
        transform: TemporalTransform,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        given = 0 if history is None else time_length(history, transform.frame_dims)
        if given < transform.context_length:
            raise ValueError(
                f"{transform.context_length} frames of history are needed before the first "
                f"frame, got {given}: pass `history=` or build with `initial='learned'`"
            )
        self.transform = transform
        self.past = given
        self.history = history if given else None
        self.context = context
        self.mask = mask

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.codomain

    def with_cache(self, cache_size: int = 1) -> "ConditionedTemporalTransform":
        return self

    def levels(self, x: Tensor) -> list[Level]:
        """Each transform from x down to the noise; the mask is not applied."""
        self._check(x)
        return self.transform.levels(x, history=self.history, context=self.context)

    def log_scale(self, x: Tensor) -> Tensor:
        """Log-scale of every entry of x, summed over the chain; the shape of x."""
        return self._invert(x).log_scale

    def log_abs_det_jacobian(self, y: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.log_scale(x).flatten(-1 - self.transform.frame_dims).sum(-1)

    def _inverse(self, x: Tensor) -> Tensor:
        return self._invert(x).noise

    def _invert(self, x: Tensor) -> Inverse:
        transform, memo = self.transform, self.transform._memo
        sampled = memo.find(transform.watched, (x, self.history, self.context, self.mask))
        if sampled is not None:
            return sampled
        key = (x, self.history, self.context, None)  # the mask is cheap, and often new
        inverse = memo.find(transform.watched, key)
        if inverse is None:
            levels = self.levels(x)
            inverse = Inverse(levels[-1].noise, sum_log_scales(levels))
            memo.keep(transform.watched, key, inverse)
        return Inverse(*self._masked(*inverse, identity=x))

    def _call(self, y: Tensor) -> Tensor:
        self._check(y)
        time_dim = -1 - self.transform.frame_dims
        state = self.transform.initial_state(
            y.shape[:time_dim], history=self.history, context=self._context_before()
        )
        frames, log_scales = [], []
        for t, noise in enumerate(y.unbind(time_dim)):
            frame, log_scale, state = self.transform.step(noise, state, context=self._context_at(t))
            frames.append(frame)
            log_scales.append(log_scale.expand_as(frame))
        x = torch.stack(frames, time_dim)
        x, log_scale = self._masked(x, torch.stack(log_scales, time_dim), identity=y)
        key = (x, self.history, self.context, self.mask)
        sampled = Inverse(y.expand_as(x), log_scale)
        self.transform._memo.keep(self.transform.watched, key, sampled)
        return x

    def _masked(
        self, values: Tensor, log_scale: Tensor, *, identity: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.mask is None:
            return values, log_scale
        mask = self.mask.reshape(*self.mask.shape, *[1] * self.transform.frame_dims)
        return torch.where(mask, values, identity), log_scale.masked_fill(~mask, 0.0)

    def _check(self, x: Tensor) -> None:
        """Refuse what is no sequence, or not as long as the context says."""
        steps = self.past + time_length(x, self.transform.frame_dims)
        if self.context is not None and time_length(self.context, 1) != steps:
            raise ValueError(
                f"expected a context of {steps} steps, for history and frames together, "
                f"got {self.context.shape[-2]}"
            )

    def _context_before(self) -> Tensor | None:
        if self.context is None or self.history is None:
            return None
        return self.context[..., : self.past, :]

    def _context_at(self, t: int) -> Tensor | None:
        return None if self.context is None else self.context[..., self.past + t, :]


def time_length(x: Tensor, frame_dims: int) -> int:
    """Length of the time axis of ``(*batch, T, *frame_shape)``."""
    if x.ndim < 1 + frame_dims:
        raise ValueError(
            f"expected a sequence of shape (*batch, T, *frame_shape) with {frame_dims} frame "
            f"dimensions, got {tuple(x.shape)}"
        )
    return x.shape[-1 - frame_dims]


def join(history: Tensor | None, x: Tensor, frame_dims: int) -> Tensor:
    """History and frames in one sequence; their batch dimensions are broadcast."""
    if history is None:
        return x
    event = 1 + frame_dims
    batch = torch.broadcast_shapes(history.shape[:-event], x.shape[:-event])
    both = [part.expand(*batch, *part.shape[-event:]) for part in (history, x)]
    return torch.cat(both, -event)


def sum_log_scales(levels: Sequence[Level]) -> Tensor:
    """Eq. 15: the log-scales of a chain add; the shape of the frames."""
    total = levels[0].log_scale
    for level in levels[1:]:
        total = total + level.log_scale
    return total


def compose(levels: Sequence["Level | Prediction"]) -> tuple[Tensor, Tensor]:
    r"""Shift and log-scale of a whole chain of affine transforms, x first.

    .. math:: x = \mu_M + \sigma_M (\mu_{M-1} + \sigma_{M-1} (\dots y))
    """
    shift, log_scale = levels[0].shift, levels[0].log_scale
    for level in levels[1:]:
        shift = shift + log_scale.exp() * level.shift
        log_scale = log_scale + level.log_scale
    return shift, log_scale
