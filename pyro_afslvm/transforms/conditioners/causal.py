"""Conditioners that look at the whole past, by a network that is causal in time."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from pyro_afslvm.transforms.conditioners.base import Conditioner
from pyro_afslvm.transforms.time_axis import join, previous_frames, time_length


class CausalConditioner(Conditioner):
    r"""Conditioner over all past frames, and over a context up to the present.

    .. math:: (h_{1:T}, s_T) = f((x_{t-1}, c_t)_{1:T}, s_0), \qquad \theta_t = A h_t + a

    with :math:`x_0 = 0`. A subclass defines :meth:`start`, :meth:`run`, which takes up any number
    of steps from a state, all of them in one pass or one after the other, and :meth:`emit`.

    Args:
        frame_shape: ``(D,)`` or ``(C, H, W)``.
        initial_shape: shape of a parameter that serves every frame.
        context_features: size of the context; 0 for none.
        reach: frames it looks back at; ``None`` for all of them.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last frame, in units of the scale.
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        *,
        initial_shape: tuple[int, ...],
        context_features: int = 0,
        reach: int | None = None,
        num_parameters: int = 2,
        residual: bool = False,
    ) -> None:
        super().__init__(
            frame_dims=len(frame_shape),
            initial_shape=initial_shape,
            window=0,
            reach=reach,
            num_parameters=num_parameters,
            residual=residual,
        )
        self.frame_shape = tuple(frame_shape)
        self.context_features = context_features

    feature_dims = 1  # of the features of a step

    @abstractmethod
    def start(self, batch: torch.Size) -> Any:
        """Give the state before the first frame; tensors ``(*batch, ...)``."""

    @abstractmethod
    def run(self, previous: Tensor, context: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """Take up some steps, from a state.

        Args:
            previous: the frame before each, ``(*batch, T, *frame_shape)``.
            context: ``(*batch, T, context_features)``.
            state: from :meth:`start` or the run before, of the same batch.

        Returns:
            features ``(*batch, T, *features)``, and the next state.
        """

    @abstractmethod
    def emit(self, features: Tensor) -> Tensor:
        """Turn features into the parameters ``(*batch, T, *frame_shape, P)``."""

    @abstractmethod
    def batch_of(self, state: Any) -> torch.Size:
        """Batch dimensions of a state."""

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        length = time_length(values, self.frame_dims)
        full = join(history, values, self.frame_dims)
        features, _ = self._from_nothing(full, context)
        dim = -1 - self.feature_dims
        return self.emit(features.narrow(dim, features.shape[dim] - length, length))

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Any:
        if history is None:
            return self.start(batch_shape)
        return self._from_nothing(history, context)[1]

    def step(
        self, previous: Tensor | None, state: Any, *, context: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        if previous is None:
            previous = _first_tensor(state).new_zeros(*self.batch_of(state), *self.frame_shape)
        entry = None if context is None else context.unsqueeze(-2)
        batch = torch.broadcast_shapes(
            self._batch(previous.shape[: previous.ndim - self.frame_dims], entry),
            self.batch_of(state),
        )
        previous = previous.expand(*batch, *self.frame_shape)
        features, state = self.run(previous.unsqueeze(-1 - self.frame_dims), entry, state)
        return self.emit(features).squeeze(-2 - self.frame_dims), state

    def _from_nothing(self, frames: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        found = tuple(frames.shape[frames.ndim - self.frame_dims :])
        if found != self.frame_shape:
            raise ValueError(f"expected frames {self.frame_shape}, got {found}")
        previous = previous_frames(frames, None, self.frame_dims)
        batch = self._batch(previous.shape[: -1 - self.frame_dims], context)
        previous = previous.expand(*batch, *previous.shape[-1 - self.frame_dims :])
        return self.run(previous, context, self.start(batch))

    def _batch(self, batch: torch.Size, context: Tensor | None) -> torch.Size:
        if (0 if context is None else context.shape[-1]) != self.context_features:
            got = "none" if context is None else f"{context.shape[-1]}"
            raise ValueError(f"expected {self.context_features} context features, got {got}")
        return batch if context is None else torch.broadcast_shapes(batch, context.shape[:-2])


def _first_tensor(state: Any) -> Tensor:
    while not isinstance(state, Tensor):
        state = state[0]
    return state


def with_context(values: Tensor, context: Tensor | None) -> Tensor:
    """Put vectors ``(*batch, T, F)`` and their context side by side."""
    if context is None:
        return values
    batch = torch.broadcast_shapes(values.shape[:-2], context.shape[:-2])
    parts = (values, context.to(values))
    return torch.cat([part.expand(*batch, *part.shape[-2:]) for part in parts], -1)


def by_entry(found: Tensor, num_parameters: int) -> Tensor:
    """Turn ``(*batch, P * D)`` into parameters of each entry, ``(*batch, D, P)``."""
    by_parameter: Tensor = found.unflatten(-1, (num_parameters, -1))
    return by_parameter.movedim(-2, -1)


def by_pixel(found: Tensor, num_parameters: int) -> Tensor:
    """Turn ``(*batch, P * C, H, W)`` into parameters of each entry, ``(*batch, C, H, W, P)``."""
    by_parameter: Tensor = found.unflatten(-3, (num_parameters, -1))
    return by_parameter.movedim(-4, -1)
