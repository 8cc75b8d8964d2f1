"""A summary of the last few frames."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import on_frames, side_by_side


class WindowState(NamedTuple):
    """The summary for the next frame, and the frames behind it."""

    summary: Tensor  # (*batch, features)
    frames: tuple[Tensor, ...]  # the last W, each (*batch, *frame_shape)


class WindowMemory(nn.Module):
    r"""Summary of the last W frames before each, for a prior, a decoder and a guide.

    .. math:: c_t = h(x_{t-W}, \dots, x_{t-1})

    Unlike a :class:`~pyro_afslvm.networks.history_encoder.HistoryEncoder` it sees the frames
    themselves, the given ones among them, and not the noise y of a flow; as the one follows from
    the other, the model is that of Eq. 17 all the same.

    Args:
        network: maps W frames side by side, ``(N, W * C, H, W)``, to ``(N, network.features)``.
        window: number of frames W, of which so many must be given.
        frame_dims: dimensions of a frame: 3 for ``(C, H, W)``, 1 for vectors.

    Raises:
        ValueError: for a window of no frame.

    Source: Marino et al., Eq. 16-17.

    >>> class Flat(nn.Flatten):
    ...     features = 6
    >>> memory = WindowMemory(Flat(), window=3, frame_dims=1)
    >>> memory(torch.randn(5, 10, 2), history=torch.randn(5, 4, 2)).shape
    torch.Size([5, 10, 6])
    """

    sees_frames = True

    def __init__(self, network: nn.Module, *, window: int, frame_dims: int = 3) -> None:
        if window < 1:
            raise ValueError(f"expected a window of at least 1 frame, got {window}")
        super().__init__()
        self.network = network
        self.window = window
        self.frame_dims = frame_dims
        self.features: int = network.features  # type: ignore[assignment]

    def forward(self, frames: Tensor, history: Tensor | None = None) -> Tensor:
        """Summarize the frames before each: ``(*batch, T, *frame) -> (*batch, T, features)``.

        Args:
            frames: ``(*batch, T, *frame_shape)``; entry t of the result sees those before t.
            history: the frames before them, ``(*batch, K, *frame_shape)``, K at least W.
        """
        return self.absorb(frames, history)[0]

    def initial_state(
        self, batch_shape: torch.Size, *, history: Tensor | None = None
    ) -> WindowState:
        """Give the state for the first frame after ``history``."""
        return self._state(tuple(self._recent(history).unbind(-1 - self.frame_dims)))

    def absorb(self, frames: Tensor, history: Tensor | None = None) -> tuple[Tensor, WindowState]:
        """Summarize as :meth:`forward`; give the state for the frame after the last too."""
        dim = -1 - self.frame_dims
        full = torch.cat([self._recent(history), frames], dim)
        count = frames.shape[dim] + 1
        windows = [full.narrow(dim, i, count) for i in range(self.window)]
        summary = on_frames(self.network, side_by_side(windows, self.frame_dims), self.frame_dims)
        last = tuple(full.narrow(dim, count - 1, self.window).unbind(dim))
        return summary[..., :-1, :], WindowState(summary[..., -1, :], last)

    def step(self, frame: Tensor, state: WindowState) -> WindowState:
        """Give the state for the frame after ``frame`` ``(*batch, *frame_shape)``."""
        return self._state((*state.frames[1:], frame))

    def _state(self, frames: tuple[Tensor, ...]) -> WindowState:
        frames = tuple(torch.broadcast_tensors(*frames))
        together = side_by_side(frames, self.frame_dims)
        return WindowState(on_frames(self.network, together, self.frame_dims), frames)

    def _recent(self, history: Tensor | None) -> Tensor:
        dim = -1 - self.frame_dims
        past = 0 if history is None else history.shape[dim]
        if history is None or past < self.window:
            raise ValueError(f"a memory of {self.window} frames needs as many, got {past}")
        return history.narrow(dim, past - self.window, self.window)
