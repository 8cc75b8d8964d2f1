"""The base class of conditioners: the same parameters in parallel and step by step."""

from abc import ABC, abstractmethod
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


class Conditioner(nn.Module, ABC):
    """A network that gives shift and log-scale of a frame from the frames before it.

    :meth:`forward` does it for all frames at once, :meth:`step` for the next one; they agree
    exactly (with batch norm: in evaluation mode).

    Args:
        frame_dims: dimensions of a frame: 3 for ``(C, H, W)``, 1 for vectors.
        initial_shape: shape of a shift that serves every frame, such as ``(C, 1, 1)``.
        window: frames it must have seen before it can say anything.
        reach: frames it looks back at; ``None`` for all of them.
        residual: whether its shift is the change from the last frame, in units of the scale, to
            which the transform adds that frame: :math:`\\mu = x_{t-1} + \\sigma m`, with
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
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.frame_dims = frame_dims
        self.initial_shape = initial_shape
        self.window = window
        self.reach = reach
        self.residual = residual

    @abstractmethod
    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> AffineParameters:
        """Give the parameters of every frame of ``values``; entry t sees only what is before t.

        Args:
            values: ``(*batch, T, *frame_shape)``.
            history: the frames before, ``(*batch, K, *frame_shape)``, K at least ``window``.
            context: ``(*batch, K + T, features)``; entry t sees it up to and including t.
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
    ) -> tuple[AffineParameters, Any]:
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
    ) -> AffineParameters:
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
    ) -> tuple[AffineParameters, tuple[()]]:
        return self._around(torch.zeros(()) if previous is None else previous), ()

    def _around(self, shift: Tensor) -> AffineParameters:
        if self.log_scale is None:
            return AffineParameters(shift, torch.zeros_like(shift))
        return AffineParameters(shift, self.log_scale.expand_as(shift))
