"""The conditioner that looks at all past frames, by a convolutional LSTM."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import in_full_precision, on_frames, without_autocast
from pyro_afslvm.networks.patches import from_patches, grid_of, to_patches
from pyro_afslvm.transforms.conditioners.causal import CausalConditioner, by_pixel
from pyro_afslvm.transforms.conditioners.lstm import LSTMState


class ConvLSTMLayer(nn.Module):
    r"""LSTM whose states are grids of features and whose products are convolutions.

    .. math:: (i, f, o, g) = W * x_t + V * h_{t-1} + b, \qquad
        c_t = \sigma(f) c_{t-1} + \sigma(i) \tanh(g), \qquad h_t = \sigma(o) \tanh(c_t)

    Args:
        inputs: channels of the inputs.
        hidden: channels of the states.
        kernel: height and width of the convolutions, an odd number.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, 4 * hidden, kernel, padding=kernel // 2)
        self.again = nn.Conv2d(hidden, 4 * hidden, kernel, padding=kernel // 2, bias=False)
        with torch.no_grad():
            if self.enter.bias is not None:
                self.enter.bias[hidden : 2 * hidden] += 1.0  # at first it remembers

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run over ``(N, T, inputs, h, w)`` from states ``(N, hidden, h, w)``."""
        found = []
        for entered in on_frames(self.enter, x, 3).unbind(1):  # of all steps at once
            opens, keeps, shows, value = (entered + self.again(hidden)).chunk(4, 1)
            cell = keeps.sigmoid() * cell + opens.sigmoid() * value.tanh()
            hidden = shows.sigmoid() * cell.tanh()
            found.append(hidden)
        return torch.stack(found, 1), hidden, cell


class ConvLSTMConditioner(CausalConditioner):
    r"""Convolutional LSTM over the patches of all past frames.

    .. math:: h_t = \mathrm{ConvLSTM}(x_{t-1} + E c_t, h_{t-1}), \qquad \theta_t = A * h_t + a

    with :math:`x_0 = 0` and a learned :math:`h_0`, the same everywhere in the frame. What was
    seen once, such as what a thing that moves has hidden, can be kept for as long as it takes. The
    price is a loop over time in the density too; a step costs the same however long the past.

    Args:
        frame_shape: ``(C, H, W)``; patches that stick out of it are filled with zeros.
        patch: height and width of the patches, which are the pixels of the LSTM.
        hidden: channels of every layer.
        layers: number of layers.
        kernel: height and width of the convolutions, an odd number: how far what is remembered
            moves in a step, in patches.
        context_features: size of the context; 0 for none.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last frame, in units of the scale.

    Raises:
        ValueError: for no layers, an even kernel, patches of no pixel, or a frame that is none.

    Source: Shi et al., *Convolutional LSTM Network*, arXiv:1506.04214.

    >>> network = ConvLSTMConditioner((1, 16, 16), hidden=8)
    >>> network(torch.rand(5, 10, 1, 16, 16)).shape  # shift and log-scale
    torch.Size([5, 10, 1, 16, 16, 2])
    """

    feature_dims = 3

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        *,
        patch: int = 4,
        hidden: int = 64,
        layers: int = 1,
        kernel: int = 3,
        context_features: int = 0,
        num_parameters: int = 2,
        residual: bool = False,
    ) -> None:
        if layers < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"expected layers >= 1 and an odd kernel, got {layers} and {kernel}")
        self._grid = grid_of(frame_shape, patch)
        channels = frame_shape[0]
        super().__init__(
            frame_shape,
            initial_shape=(channels, 1, 1),
            context_features=context_features,
            num_parameters=num_parameters,
            residual=residual,
        )
        self.patch = patch
        inputs = channels * patch**2
        self.embed = nn.Linear(context_features, inputs, bias=False) if context_features else None
        self.layers = nn.ModuleList(
            ConvLSTMLayer(size, hidden, kernel) for size in (inputs, *[hidden] * (layers - 1))
        )
        self.initial_hidden = nn.Parameter(torch.zeros(layers, hidden, 1, 1))
        self.initial_cell = nn.Parameter(torch.zeros(layers, hidden, 1, 1))
        self.heads = nn.Conv2d(hidden, num_parameters * inputs, kernel, padding=kernel // 2)

    def start(self, batch: torch.Size) -> LSTMState:
        shape = (*batch, *self.initial_hidden.shape[:2], *self._grid)
        return LSTMState(self.initial_hidden.expand(shape), self.initial_cell.expand(shape))

    def run(
        self, previous: Tensor, context: Tensor | None, state: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """Run the LSTM over ``(*batch, T, C, H, W)``, in the precision of the weights."""
        batch = previous.shape[:-4]
        with without_autocast(previous.device):
            h = self._entered(previous, context).reshape(-1, *previous.shape[-4:-3], *self._patches)
            after = []
            for layer, *before in zip(
                self.layers, *(_by_layer(s, batch) for s in state), strict=True
            ):
                h, hidden, cell = layer(h, *before)
                after.append((hidden, cell))
        states = (
            torch.stack(s, 1).reshape(*batch, -1, *h.shape[2:]) for s in zip(*after, strict=True)
        )
        return h.reshape(*batch, *h.shape[1:]), LSTMState(*states)

    @property
    def _patches(self) -> tuple[int, ...]:
        return (self.frame_shape[0] * self.patch**2, *self._grid)

    def _entered(self, previous: Tensor, context: Tensor | None) -> Tensor:
        x = to_patches(previous, self.patch).to(self.heads.weight.dtype)
        if self.embed is not None and context is not None:
            x = x + self.embed(context.to(x))[..., None, None]
        return x

    def emit(self, features: Tensor) -> Tensor:
        found = in_full_precision(self.heads, features, 3)
        _, height, width = self.frame_shape
        return by_pixel(from_patches(found, self.patch, (height, width)), self.num_parameters)

    def batch_of(self, state: LSTMState) -> torch.Size:
        return state.hidden.shape[:-4]


def _by_layer(state: Tensor, batch: torch.Size) -> Sequence[Tensor]:
    """Split states ``(*batch, layers, hidden, h, w)`` into each layer's ``(N, hidden, h, w)``."""
    state = state.expand(*batch, *state.shape[-4:])
    return state.reshape(-1, *state.shape[-4:]).unbind(1)
