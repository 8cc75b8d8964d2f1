"""The conditioner that looks at the whole past, by an LSTM."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import in_full_precision, without_autocast
from pyro_afslvm.networks.recurrent import LSTM
from pyro_afslvm.transforms.conditioners.causal import CausalConditioner, by_entry, with_context


class LSTMState(NamedTuple):
    """Hidden and cell state, each ``(*batch, layers, hidden)``."""

    hidden: Tensor
    cell: Tensor


class LSTMConditioner(CausalConditioner):
    r"""LSTM over all past vectors, and over a context up to the present.

    .. math:: h_t = \mathrm{LSTM}([g(x_{t-1}), c_t], h_{t-1}), \qquad
        \theta_t = A h_t + a

    with :math:`x_0 = 0` and a learned :math:`h_0`. Without context it is the paper's prior,
    with encoder features as context its filtering posterior.

    Args:
        features: size of a vector.
        hidden: size of the LSTM.
        layers: number of LSTM layers.
        context_features: size of the context; 0 for none.
        pre_network: applied to :math:`x_{t-1}` before the LSTM.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last vector, in units of the scale.

    Source: Marino et al., Appendix B.

    >>> import torch
    >>> prior = LSTMConditioner(8, hidden=16)
    >>> prior(torch.randn(5, 10, 8)).shape  # shift and log-scale
    torch.Size([5, 10, 8, 2])
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        context_features: int = 0,
        pre_network: nn.Module | None = None,
        num_parameters: int = 2,
        residual: bool = False,
    ) -> None:
        super().__init__(
            (features,),
            initial_shape=(features,),
            context_features=context_features,
            num_parameters=num_parameters,
            residual=residual,
        )
        self.features = features
        self.pre_network = pre_network or nn.Identity()
        with torch.no_grad():
            inputs = self.pre_network(torch.zeros(1, features)).shape[-1] + context_features
        self.lstm = LSTM(inputs, hidden, layers, batch_first=True)
        self.initial_hidden = nn.Parameter(torch.zeros(layers, hidden))
        self.initial_cell = nn.Parameter(torch.zeros(layers, hidden))
        self.heads = nn.Linear(hidden, num_parameters * features)

    def start(self, batch: torch.Size) -> LSTMState:
        shape = (*batch, *self.initial_hidden.shape)
        return LSTMState(self.initial_hidden.expand(shape), self.initial_cell.expand(shape))

    def run(
        self, previous: Tensor, context: Tensor | None, state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """Run the LSTM over ``(*batch, T, features)``, in the precision of the frames."""
        with without_autocast(previous.device):
            inputs = with_context(self.pre_network(previous), context)
            batch = torch.broadcast_shapes(inputs.shape[:-2], state.hidden.shape[:-2])
            inputs = inputs.expand(*batch, *inputs.shape[-2:])
            outputs, (hidden, cell) = self.lstm(
                inputs.reshape(-1, *inputs.shape[-2:]),
                (_fold(state.hidden, batch), _fold(state.cell, batch)),
            )
        return outputs.reshape(*batch, *outputs.shape[1:]), LSTMState(
            _unfold(hidden, batch), _unfold(cell, batch)
        )

    def emit(self, features: Tensor) -> Tensor:
        return by_entry(in_full_precision(self.heads, features, 1), self.num_parameters)

    def batch_of(self, state: LSTMState) -> torch.Size:
        return state.hidden.shape[:-2]


def _fold(state: Tensor, batch: torch.Size) -> Tensor:  # (*batch, L, H) -> (L, N, H)
    state = state.expand(*batch, *state.shape[-2:])
    return state.reshape(-1, *state.shape[-2:]).transpose(0, 1).contiguous()


def _unfold(state: Tensor, batch: torch.Size) -> Tensor:  # (L, N, H) -> (*batch, L, H)
    state = state.transpose(0, 1)
    return state.reshape(*batch, *state.shape[1:])
