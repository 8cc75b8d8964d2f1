"""The conditioner that looks at the whole past, by an LSTM."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import in_full_precision, without_autocast
from pyro_afslvm.transforms.conditioners.base import AffineParameters, Conditioner
from pyro_afslvm.transforms.time_axis import join, previous_frames, time_length


class LSTMState(NamedTuple):
    """Hidden and cell state, each ``(*batch, layers, hidden)``."""

    hidden: Tensor
    cell: Tensor


class LSTMConditioner(Conditioner):
    r"""LSTM over all past vectors, and over a context up to the present.

    .. math:: h_t = \mathrm{LSTM}([g(x_{t-1}), c_t], h_{t-1}), \qquad
        \mu_t = A h_t + a, \quad \log \sigma_t = B h_t + b

    with :math:`x_0 = 0` and a learned :math:`h_0`. Without context it is the paper's prior,
    with encoder features as context its filtering posterior.

    Args:
        features: size of a vector.
        hidden: size of the LSTM.
        layers: number of LSTM layers.
        context_features: size of the context; 0 for none.
        pre_network: applied to :math:`x_{t-1}` before the LSTM.
        residual: whether the shift is the change from the last vector, in units of the scale.

    Source: Marino et al., Appendix B.

    >>> import torch
    >>> prior = LSTMConditioner(8, hidden=16)
    >>> prior(torch.randn(5, 10, 8)).log_scale.shape
    torch.Size([5, 10, 8])
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        context_features: int = 0,
        pre_network: nn.Module | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__(
            frame_dims=1, initial_shape=(features,), window=0, reach=None, residual=residual
        )
        self.features = features
        self.context_features = context_features
        self.pre_network = pre_network or nn.Identity()
        with torch.no_grad():
            inputs = self.pre_network(torch.zeros(1, features)).shape[-1] + context_features
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.initial_hidden = nn.Parameter(torch.zeros(layers, hidden))
        self.initial_cell = nn.Parameter(torch.zeros(layers, hidden))
        self.heads = nn.Linear(hidden, 2 * features)  # shift and log-scale

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> AffineParameters:
        length = time_length(values, 1)
        full = join(history, values, 1)
        previous = previous_frames(full, None, 1)
        batch = self._batch(previous.shape[:-2], context, event=2)
        outputs, _ = self._run(previous, context, self._start(batch))
        return self._parameters_from(outputs[..., -length:, :])

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> LSTMState:
        if history is None:
            return self._start(batch_shape)
        previous = previous_frames(history, None, 1)
        batch = self._batch(previous.shape[:-2], context, event=2)
        return self._run(previous, context, self._start(batch))[1]

    def step(
        self, previous: Tensor | None, state: LSTMState, *, context: Tensor | None = None
    ) -> tuple[AffineParameters, LSTMState]:
        if previous is None:
            batch = self._batch(state.hidden.shape[:-2], context, event=1)
            previous = self.initial_hidden.new_zeros(*batch, self.features)
        entry = None if context is None else context.unsqueeze(-2)
        outputs, state = self._run(previous.unsqueeze(-2), entry, state)
        return self._parameters_from(outputs.squeeze(-2)), state

    def _start(self, batch: torch.Size) -> LSTMState:
        shape = (*batch, *self.initial_hidden.shape)
        return LSTMState(self.initial_hidden.expand(shape), self.initial_cell.expand(shape))

    def _batch(self, batch: torch.Size, context: Tensor | None, *, event: int) -> torch.Size:
        if (0 if context is None else context.shape[-1]) != self.context_features:
            got = "none" if context is None else f"{context.shape[-1]}"
            raise ValueError(f"expected {self.context_features} context features, got {got}")
        return batch if context is None else torch.broadcast_shapes(batch, context.shape[:-event])

    def _run(
        self, previous: Tensor, context: Tensor | None, state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """Run the LSTM over ``(*batch, T, features)``, in the precision of the frames."""
        with without_autocast(previous.device):
            inputs = self.pre_network(previous)
            batch = self._batch(previous.shape[:-2], context, event=2)
            batch = torch.broadcast_shapes(batch, state.hidden.shape[:-2])
            if context is not None:
                parts = (inputs, context.to(inputs.dtype))
                inputs = torch.cat([p.expand(*batch, *p.shape[-2:]) for p in parts], -1)
            inputs = inputs.expand(*batch, *inputs.shape[-2:])
            outputs, (hidden, cell) = self.lstm(
                inputs.reshape(-1, *inputs.shape[-2:]),
                (_fold(state.hidden, batch), _fold(state.cell, batch)),
            )
        return outputs.reshape(*batch, *outputs.shape[1:]), LSTMState(
            _unfold(hidden, batch), _unfold(cell, batch)
        )

    def _parameters_from(self, outputs: Tensor) -> AffineParameters:
        return AffineParameters(*in_full_precision(self.heads, outputs, 1).chunk(2, -1))


def _fold(state: Tensor, batch: torch.Size) -> Tensor:  # (*batch, L, H) -> (L, N, H)
    state = state.expand(*batch, *state.shape[-2:])
    return state.reshape(-1, *state.shape[-2:]).transpose(0, 1).contiguous()


def _unfold(state: Tensor, batch: torch.Size) -> Tensor:  # (L, N, H) -> (*batch, L, H)
    state = state.transpose(0, 1)
    return state.reshape(*batch, *state.shape[1:])
