"""The conditioner that attends to the patches of all past frames."""

import math

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import in_full_precision, without_autocast
from pyro_afslvm.networks.patches import from_patches, grid_of, to_patches
from pyro_afslvm.transforms.conditioners.attention import (
    AttentionBlock,
    AttentionState,
    no_past,
    through,
)
from pyro_afslvm.transforms.conditioners.causal import CausalConditioner, by_pixel


class PatchAttentionConditioner(CausalConditioner):
    r"""Causal transformer over the patches of past frames, with a cache of keys and values.

    .. math:: \theta_{t,p} = A \, \mathrm{Transformer}((x_{s-1,q}, c_s)_{s \le t, \, q})_{t,p} + a

    A patch attends to all patches of all frames before, by their distance in time, rows and
    columns, so that sequences may be longer than those of the training. All frames are one pass,
    at a cost that grows with the square of frames times patches; a step attends to what is kept.

    Args:
        frame_shape: ``(C, H, W)``; patches that stick out of it are filled with zeros.
        patch: height and width of a patch.
        hidden: width of the layers, a multiple of twice the heads.
        layers: number of layers.
        heads: of each layer.
        context_features: size of the context; 0 for none.
        dropout: probability of each number of a branch in training.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last frame, in units of the scale.

    Raises:
        ValueError: for no layers, patches of no pixel, a frame that is none, or a width that the
            heads cannot share.

    Source: as a flow Zhai et al., *Normalizing Flows are Capable Generative Models*,
    arXiv:2412.06329, across the patches of one image; here across time.

    >>> network = PatchAttentionConditioner((1, 16, 16), patch=8, hidden=24, heads=2)
    >>> network(torch.rand(5, 10, 1, 16, 16)).shape  # shift and log-scale
    torch.Size([5, 10, 1, 16, 16, 2])
    """

    feature_dims = 3

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        *,
        patch: int = 8,
        hidden: int = 128,
        layers: int = 3,
        heads: int = 4,
        context_features: int = 0,
        dropout: float = 0.0,
        num_parameters: int = 2,
        residual: bool = False,
    ) -> None:
        if layers < 1:
            raise ValueError(f"expected at least 1 layer, got {layers}")
        grid = grid_of(frame_shape, patch)
        channels = frame_shape[0]
        super().__init__(
            frame_shape,
            initial_shape=(channels, 1, 1),
            context_features=context_features,
            num_parameters=num_parameters,
            residual=residual,
        )
        self.patch, self.grid = patch, grid
        self.enter = nn.Linear(channels * patch**2, hidden)
        self.embed = nn.Linear(context_features, hidden, bias=False) if context_features else None
        self.places = nn.Parameter(torch.zeros(math.prod(grid), hidden))
        self.blocks = nn.ModuleList(
            AttentionBlock(hidden, heads, dropout, grid) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.heads = nn.Linear(hidden, num_parameters * channels * patch**2)

    def start(self, batch: torch.Size) -> AttentionState:
        return no_past(self.blocks, batch, self.enter.weight)

    def run(
        self, previous: Tensor, context: Tensor | None, state: AttentionState
    ) -> tuple[Tensor, AttentionState]:
        with without_autocast(previous.device):
            h = self._entered(previous, context)  # (*batch, T, patches, hidden)
            length = h.shape[-3]
            h, state = through(self.blocks, h.flatten(-3, -2), state)
        by_place = h.unflatten(-2, (length, *self.grid))
        return by_place.movedim(-1, -3), state  # (*batch, T, hidden, rows, columns)

    def _entered(self, previous: Tensor, context: Tensor | None) -> Tensor:
        patches = to_patches(previous, self.patch).flatten(-2).mT
        h: Tensor = self.enter(patches.to(self.enter.weight.dtype)) + self.places
        if self.embed is not None and context is not None:
            h = h + self.embed(context.to(h)).unsqueeze(-2)
        return h

    def emit(self, features: Tensor) -> Tensor:
        with without_autocast(features.device):
            h = self.norm(features.movedim(-3, -1).to(self.norm.weight.dtype))
            found = in_full_precision(self.heads, h, 1).movedim(-1, -3)
        _, height, width = self.frame_shape
        return by_pixel(from_patches(found, self.patch, (height, width)), self.num_parameters)

    def batch_of(self, state: AttentionState) -> torch.Size:
        return state[0].keys.shape[:-3]
