"""The base class of conditioners: the same parameters in parallel and step by step."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms.time_axis import previous_frames


class AffineParameters(NamedTuple):
    """Shift and log-scale of frames, each of the frames' shape.

    The shift of a residual conditioner is the change from the last frame in units of the scale.
    """

    shift: Tensor
    log_scale: Tensor


Parameters = Tensor | tuple[Tensor, ...]  # (*batch, [T,] *frame_shape, P), or each of the P


def as_parameters(emitted: Parameters, like: Tensor) -> Tensor:
    """Bring what a conditioner emits to the shape, precision and device of frames.

    Args:
        emitted: parameters of each entry on a last axis, or one tensor for each.
        like: frames ``(*batch, [T,] *frame_shape)``; batch dimensions are broadcast.
    """
    if isinstance(emitted, tuple):
        emitted = torch.stack(torch.broadcast_tensors(*emitted), -1)
    shape = torch.broadcast_shapes(emitted.shape[:-1], like.shape)
    return emitted.to(like).expand(*shape, emitted.shape[-1])


class Conditioner(nn.Module):
    """A network that gives the parameters of a frame's map from the frames before it.

    :meth:`forward` does it for all frames at once, :meth:`step` for the next one; they agree
    exactly (with batch norm: in evaluation mode).

    Args:
        frame_dims: dimensions of a frame: 3 for ``(C, H, W)``, 1 for vectors.
        initial_shape: shape of a parameter that serves every frame, such as ``(C, 1, 1)``.
        window: frames it must have seen before it can say anything.
        reach: frames it looks back at; ``None`` for all of them.
        num_parameters: parameters of each entry: 2 for shift and log-scale.
        residual: for an affine map, whether its shift is the change from the last frame, in
            units of the scale, to which the transform adds that frame:
            :math:`\\mu = x_{t-1} + \\sigma m`, with
            :math:`\\sigma` as the transform clamps it. With a shift of its own a network must
            be exact to a fraction of :math:`\\sigma`, and where that is as small as the pixels'
            noise one optimizer step moves it by many of them.
    """

    def __init__(
        self,
        *,
        frame_dims: int,
        initial_shape: tuple[int, ...],
        window: int,
        reach: int | None,
        num_parameters: int = 2,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.frame_dims = frame_dims
        self.initial_shape = initial_shape
        self.window = window
        self.reach = reach
        self.num_parameters = num_parameters
        self.residual = residual

    @abstractmethod
    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Parameters:
        """Give the parameters of every frame of ``values``; entry t sees only what is before t.

        Args:
            values: ``(*batch, T, *frame_shape)``.
            history: the frames before, ``(*batch, K, *frame_shape)``, K at least ``window``.
            context: ``(*batch, K + T, features)``; entry t sees it up to and including t.

        Returns:
            ``(*batch, T, *frame_shape, P)``, or a tensor for each of the P parameters.
        """

    @abstractmethod
    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Any:
        """Return the state that has absorbed the history, with or without its last frame."""

    @abstractmethod
    def step(
        self, previous: Tensor | None, state: Any, *, context: Tensor | None = None
    ) -> tuple[Parameters, Any]:
        """Absorb the last frame and give the parameters of the next one.

        Args:
            previous: the last frame ``(*batch, *frame_shape)``; ``None`` at the very start.
            state: from :meth:`initial_state` or the step before.
            context: ``(*batch, features)`` of the frame to come.
        """


class LastFrame(Conditioner):
    """Conditioner without a network: the last frame as shift, and zero before the first.

    Args:
        frame_dims: dimensions of a frame.
        learned_scale: one learned log-scale for all entries, in place of scale one: the
            copy-last-frame baseline.
    """

    def __init__(self, frame_dims: int, *, learned_scale: bool = False) -> None:
        super().__init__(frame_dims=frame_dims, initial_shape=(), window=0, reach=1)
        self.log_scale = nn.Parameter(torch.zeros(())) if learned_scale else None

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        return self._around(previous_frames(values, history, self.frame_dims))

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[()]:
        return ()

    def step(
        self, previous: Tensor | None, state: tuple[()], *, context: Tensor | None = None
    ) -> tuple[Tensor, tuple[()]]:
        like = torch.zeros(()) if self.log_scale is None else torch.zeros_like(self.log_scale)
        return self._around(like if previous is None else previous), ()

    def _around(self, shift: Tensor) -> Tensor:  # (*batch, *frame) -> (*batch, *frame, 2)
        zero = torch.zeros_like(shift)
        log_scale = zero if self.log_scale is None else self.log_scale.expand_as(shift)
        return torch.stack([shift, log_scale.to(shift)], -1)
