"""Summaries of the frames before each."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import without_autocast
from pyro_afslvm.networks.recurrent import LSTM

Hidden = tuple[Tensor, Tensor]


class HistoryState(NamedTuple):
    """The summary for the next frame, and the LSTM's state behind it."""

    summary: Tensor  # (*batch, features)
    hidden: Hidden | None  # each (*batch, 1, hidden); None without an LSTM


class HistoryEncoder(nn.Module):
    r"""Encoder of the frames before each, for a prior (and a decoder) that sees them.

    .. math:: c_t = h(e(y_{t-1}), c_{t-1}), \qquad e(y_0) \text{ learned}

    It has two faces that agree exactly: :meth:`forward` for all frames at once,
    :meth:`initial_state` and :meth:`step` for one after the other.

    Args:
        encoder: maps ``(*batch, *frame_shape)`` to ``(*batch, encoder.features)``.
        hidden: size of an LSTM over the encodings; 0 for none, so that the summary is the
            encoding of the last frame.

    Source: Marino et al., Eq. 16; with it the variational recurrent network of Chung et al.,
    arXiv:1506.02216, is a recipe.

    >>> from pyro_afslvm.networks import MLPEncoder
    >>> history = HistoryEncoder(MLPEncoder(2, features=4), hidden=8)
    >>> history(torch.randn(5, 10, 2)).shape
    torch.Size([5, 10, 8])
    """

    sees_frames = False  # but the noise y of a flow

    def __init__(self, encoder: nn.Module, *, hidden: int = 0) -> None:
        super().__init__()
        size: int = encoder.features  # type: ignore[assignment]
        self.encoder = encoder
        self.start = nn.Parameter(torch.zeros(size))
        self.lstm = LSTM(size, hidden, batch_first=True) if hidden else None
        self.features = hidden or size

    def forward(self, y: Tensor, history: Tensor | None = None) -> Tensor:
        """Summarize the frames before each: ``(*batch, T, *frame) -> (*batch, T, features)``.

        Entry t sees the frames before t only, and none of a history.
        """
        length, batch = self._time(y)
        return self._run(self._codes(y.narrow(len(batch), 0, length - 1), batch), None)[0]

    def initial_state(
        self, batch_shape: torch.Size, *, history: Tensor | None = None
    ) -> HistoryState:
        """Give the state for the first frame."""
        summary, hidden = self._run(self._codes(None, batch_shape), None)
        return HistoryState(summary[..., -1, :], hidden)

    def absorb(self, y: Tensor, history: Tensor | None = None) -> tuple[Tensor, HistoryState]:
        """Summarize as :meth:`forward`; give the state for the frame after the last too."""
        summary, hidden = self._run(self._codes(y, self._time(y)[1]), None)
        return summary[..., :-1, :], HistoryState(summary[..., -1, :], hidden)

    def step(self, y: Tensor, state: HistoryState) -> HistoryState:
        """Give the state for the frame after ``y`` ``(*batch, *frame_shape)``."""
        codes = self._encode(y).unsqueeze(-2)
        summary, hidden = self._run(codes, state.hidden)
        return HistoryState(summary[..., -1, :], hidden)

    def _time(self, y: Tensor) -> tuple[int, torch.Size]:
        dim = y.ndim - 1 - int(self.encoder.frame_dims)  # type: ignore[arg-type]
        return y.shape[dim], y.shape[:dim]

    def _encode(self, y: Tensor) -> Tensor:
        codes: Tensor = self.encoder(y)
        return codes.to(self.start.dtype)

    def _codes(self, before: Tensor | None, batch: torch.Size) -> Tensor:
        start = self.start.expand(*batch, 1, -1)
        if before is None or not self._time(before)[0]:
            return start
        return torch.cat([start, self._encode(before)], -2)

    def _run(self, codes: Tensor, hidden: Hidden | None) -> tuple[Tensor, Hidden | None]:
        if self.lstm is None:
            return codes, None
        batch = codes.shape[:-2]
        if hidden is not None:
            batch = torch.broadcast_shapes(batch, hidden[0].shape[:-2])
            hidden = _fold(hidden[0], batch), _fold(hidden[1], batch)
        with without_autocast(codes.device):
            flat = codes.expand(*batch, *codes.shape[-2:]).reshape(-1, *codes.shape[-2:])
            outputs, (h, c) = self.lstm(flat, hidden)
        h, c = (state.transpose(0, 1).reshape(*batch, 1, -1) for state in (h, c))
        return outputs.reshape(*batch, *outputs.shape[1:]), (h, c)


FrameMemory = HistoryEncoder  # the name before, for one release


def _fold(state: Tensor, batch: torch.Size) -> Tensor:  # (*batch, 1, H) -> (1, N, H)
    state = state.expand(*batch, *state.shape[-2:])
    return state.reshape(-1, *state.shape[-2:]).transpose(0, 1).contiguous()
