"""The conditioner with a long window, by dilated convolutions over time."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_afslvm.networks.layers import in_full_precision, without_autocast
from pyro_afslvm.transforms.conditioners.causal import CausalConditioner, by_entry, with_context

DilatedState = tuple[Tensor, ...]  # the inputs a layer still needs, (*batch, (k - 1) d, hidden)


class DilatedConditioner(CausalConditioner):
    r"""Causal dilated convolutions over past vectors: a long window at the cost of a short one.

    .. math:: h^{l}_t = h^{l-1}_t + W^l \left( \tanh(a) \odot \mathrm{sigmoid}(b) \right),
        \qquad (a, b) = \sum_{i=0}^{k-1} V^l_i h^{l-1}_{t - i 2^l}

    All frames are one pass; a step costs the same however long the past, and keeps of each
    layer the inputs that it will need again.

    Args:
        features: size of a vector.
        hidden: channels of every layer.
        layers: number of layers; each sees twice as far as the one before.
        kernel: width of a convolution, k.
        context_features: size of the context; 0 for none.
        dropout: probability of each channel in training.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last vector, in units of the scale.

    Raises:
        ValueError: for no layers, or a kernel of one step.

    Source: van den Oord et al., *WaveNet*, arXiv:1609.03499.

    >>> network = DilatedConditioner(3, hidden=8, layers=4)
    >>> network.reach, network(torch.randn(5, 50, 3)).shape
    (16, torch.Size([5, 50, 3, 2]))
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: int = 64,
        layers: int = 5,
        kernel: int = 2,
        context_features: int = 0,
        dropout: float = 0.0,
        num_parameters: int = 2,
        residual: bool = False,
    ) -> None:
        if layers < 1 or kernel < 2:
            raise ValueError(f"expected layers >= 1 and kernel >= 2, got {layers} and {kernel}")
        self._dilations = [2**layer for layer in range(layers)]
        super().__init__(
            (features,),
            initial_shape=(features,),
            context_features=context_features,
            reach=1 + (kernel - 1) * sum(self._dilations),
            num_parameters=num_parameters,
            residual=residual,
        )
        self.enter = nn.Linear(features + context_features, hidden)
        self.gates = nn.ModuleList(
            nn.Conv1d(hidden, 2 * hidden, kernel, dilation=d) for d in self._dilations
        )
        self.mixes = nn.ModuleList(nn.Linear(hidden, hidden) for _ in self._dilations)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(hidden, num_parameters * features)
        self._kept = [(kernel - 1) * d for d in self._dilations]

    def start(self, batch: torch.Size) -> DilatedState:
        zeros = self.enter.weight.new_zeros(())
        hidden = self.enter.out_features
        return tuple(zeros.expand(*batch, kept, hidden) for kept in self._kept)

    def run(
        self, previous: Tensor, context: Tensor | None, state: DilatedState
    ) -> tuple[Tensor, DilatedState]:
        with without_autocast(previous.device):
            inputs = with_context(previous, context)
            batch = inputs.shape[:-2]
            h = self.enter(inputs.reshape(-1, *inputs.shape[-2:]).to(self.enter.weight.dtype))
            after = []
            for kept, before, gate, mix in zip(
                self._kept, state, self.gates, self.mixes, strict=True
            ):
                before = before.expand(*batch, *before.shape[-2:]).reshape(len(h), kept, -1)
                full = torch.cat([before.to(h), h], 1)
                after.append(full[:, full.shape[1] - kept :].reshape(*batch, kept, -1))
                value, opening = gate(full.mT).mT.chunk(2, -1)
                h = h + mix(self.dropout(torch.tanh(value) * torch.sigmoid(opening)))
        return h.reshape(*batch, *h.shape[1:]), tuple(after)

    def emit(self, features: Tensor) -> Tensor:
        found = in_full_precision(self.heads, functional.elu(features), 1)
        return by_entry(found, self.num_parameters)

    def batch_of(self, state: DilatedState) -> torch.Size:
        return state[0].shape[:-2]
