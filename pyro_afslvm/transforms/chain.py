"""The chain of transforms across time, each on the output of the one before."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from pyro_afslvm.transforms.base import Steps, TemporalTransform
from pyro_afslvm.transforms.steps import AffineStep, Inverse, Prediction
from pyro_afslvm.transforms.time_axis import join, time_length
from pyro_afslvm.transforms.univariate import composed


class TemporalChain(TemporalTransform):
    r"""Chain of transforms across time, from the noise to the frames.

    .. math:: x = (f_M \circ \dots \circ f_1)(y), \qquad
        \log\left|\det \frac{\partial x}{\partial y}\right| = \sum_m \sum_t \sum_i
        \log \sigma_i^m(y^{m}_{<t})

    Args:
        parts: the transforms, the one nearest to the noise first, as in
            :class:`torch.distributions.ComposeTransform`; a chain among them is taken apart.

    Raises:
        ValueError: if there are none, or their frames have different ranks.

    Source: Marino et al., Eq. 9, 15.

    >>> from pyro_afslvm import TemporalDifference
    >>> twice = TemporalChain([TemporalDifference(), TemporalDifference()])
    >>> twice.inv(torch.tensor([[1.0], [3.0], [6.0]])).flatten().tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, parts: Sequence[TemporalTransform]) -> None:
        parts = [flat for part in parts for flat in _flat(part)]
        if not parts:
            raise ValueError("a chain needs at least one transform")
        if len({part.frame_dims for part in parts}) > 1:
            raise ValueError("all transforms of a chain must be of frames of one rank")
        reaches = [part.reach for part in parts]
        super().__init__(
            frame_dims=parts[0].frame_dims,
            context_length=sum(part.context_length for part in parts),
            reach=None if None in reaches else sum(cast(list[int], reaches)),
        )
        self.parts = nn.ModuleList(parts)

    @property
    def is_affine(self) -> bool:
        """True if every part is affine."""
        return all(part.is_affine for part in self._parts)

    def intermediates(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Steps:
        length = time_length(x, self.frame_dims)
        steps: list[AffineStep | Inverse] = []
        full = x
        whole = self._is_whole(history)
        if history is not None:
            full = join(self._recent(history), x, self.frame_dims)
        for part in reversed(self._parts):
            step = self._invert(part, full, context, whole=whole)
            steps.append(type(step)(*(self._last(tensor, length) for tensor in step)))
            full = step.noise
        return steps

    def given_past(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Transform:
        return composed(self.maps(x, history=history, context=context)[::-1])

    def maps(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> list[Transform]:
        length, dim = time_length(x, self.frame_dims), -1 - self.frame_dims
        whole = self._is_whole(history)
        full = x if history is None else join(self._recent(history), x, self.frame_dims)
        found: list[Transform] = []
        for part in reversed(self._parts):
            past, values = full.split([full.shape[dim] - length, length], dim)
            given = past if past.shape[dim] else None
            seen = _align(context, full, self.frame_dims)
            found.append(part.given_past(values, history=given, context=seen))
            if len(found) < len(self._parts):
                full = self._invert(part, full, context, whole=whole).noise
        return found

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Return a state per part, each of which sees the history as its own frames."""
        if history is None:
            return tuple(part.initial_state(batch_shape) for part in self._parts)
        states: list[Any] = []
        past: Tensor | None = self._recent(history)
        whole = self._is_whole(history)
        for part in reversed(self._parts):
            seen = None if past is None else _align(context, past, self.frame_dims)
            states.append(part.initial_state(batch_shape, history=past, context=seen))
            if past is not None and len(states) < len(self._parts):
                past = self._noise_before(part, past, context, whole=whole)
        return tuple(reversed(states))

    def step(
        self, noise: Tensor, state: tuple[Any, ...], *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        frame, log_scale, states = noise, torch.zeros_like(noise), []
        for part, part_state in zip(self._parts, state, strict=True):
            frame, part_log_scale, next_state = part.step(frame, part_state, context=context)
            log_scale = log_scale + part_log_scale
            states.append(next_state)
        return frame, log_scale, tuple(states)

    def predict(
        self, like: Tensor, state: tuple[Any, ...], *, context: Tensor | None = None
    ) -> Prediction:
        pairs = zip(self._parts, state, strict=True)
        pending = tuple(part.predict(like, before, context=context) for part, before in pairs)
        return Prediction(composed([part.transform for part in pending]), pending)

    def absorb(
        self, frame: Tensor, predicted: Prediction
    ) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        noise, log_scale, states = frame, torch.zeros_like(frame), []
        for part, expected in zip(reversed(self._parts), predicted.pending[::-1], strict=True):
            noise, part_log_scale, state = part.absorb(noise, expected)
            log_scale = log_scale + part_log_scale
            states.append(state)
        return noise, log_scale, tuple(reversed(states))

    def inverse_step(
        self, frame: Tensor, state: tuple[Any, ...], *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        noise, log_scale, states = frame, torch.zeros_like(frame), []
        for part, before in zip(reversed(self._parts), reversed(state), strict=True):
            noise, part_log_scale, after = part.inverse_step(noise, before, context=context)
            log_scale = log_scale + part_log_scale
            states.append(after)
        return noise, log_scale, tuple(reversed(states))

    @property
    def _parts(self) -> list[TemporalTransform]:
        return cast(list[TemporalTransform], list(self.parts))

    def _is_whole(self, history: Tensor | None) -> bool:
        """Tell whether the history starts the sequence, rather than cutting into it."""
        past = 0 if history is None else time_length(history, self.frame_dims)
        return self.reach is None or past < self.reach

    def _recent(self, history: Tensor) -> Tensor:
        return history if self._is_whole(history) else self._last(history, self.reach or 0)

    def _invert(
        self, part: TemporalTransform, full: Tensor, context: Tensor | None, *, whole: bool
    ) -> AffineStep | Inverse:
        """Invert one part over history and frames; those it cannot score are its history."""
        skip, dim = _skipped(part, whole=whole), -1 - self.frame_dims
        context = _align(context, full, self.frame_dims)
        past, rest = full.split([skip, full.shape[dim] - skip], dim)
        (step,) = part.intermediates(rest, history=past if skip else None, context=context)
        return step

    def _noise_before(
        self, part: TemporalTransform, past: Tensor, context: Tensor | None, *, whole: bool
    ) -> Tensor | None:
        """Give the history of the next part; ``None`` where this one needs all there is."""
        if time_length(past, self.frame_dims) == _skipped(part, whole=whole):
            return None
        return self._invert(part, past, context, whole=whole).noise

    def _last(self, x: Tensor, length: int) -> Tensor:
        dim = -1 - self.frame_dims
        return x.narrow(dim, x.shape[dim] - length, length)


def _flat(part: TemporalTransform) -> list[TemporalTransform]:
    return part._parts if isinstance(part, TemporalChain) else [part]


def _skipped(part: TemporalTransform, *, whole: bool) -> int:
    """Count the frames at the start that only serve the part as history."""
    return part.context_length if whole else part.reach or 0


def _align(context: Tensor | None, frames: Tensor, frame_dims: int) -> Tensor | None:
    """Cut the context to the part that goes with these, the latest, frames."""
    return None if context is None else context[..., -time_length(frames, frame_dims) :, :]
