"""Conditioners that attend to the past, with its keys and values kept from step to step."""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_afslvm.networks.layers import in_full_precision, without_autocast
from pyro_afslvm.transforms.conditioners.causal import CausalConditioner, by_entry, with_context

ROTARY_BASE = 10_000.0
ROTARY_BASE_IN_SPACE = 100.0  # distances in a frame are short


class KeptPast(NamedTuple):
    """Keys and values of a layer so far, each ``(*batch, S, heads, size)``.

    Of frames S counts all patches of the first step, then those of the second.
    """

    keys: Tensor
    values: Tensor


AttentionState = tuple[KeptPast, ...]


class CausalAttention(nn.Module):
    r"""Attention of each step to itself and those before, by their distance.

    Args:
        width: of the inputs, a multiple of twice the heads.
        heads: number of heads.
        grid: rows and columns of the patches of a step, which all see each other; none for
            vectors. The numbers of a head are shared out to time, rows and columns.

    Raises:
        ValueError: for a width that the heads, or time and space, cannot share.

    Source: rotary positions are of Su et al., *RoFormer*, arXiv:2104.09864.
    """

    def __init__(self, width: int, heads: int, grid: tuple[int, ...] = ()) -> None:
        if width % (2 * heads):
            raise ValueError(f"expected a multiple of twice {heads} heads, got {width}")
        pairs, axes = width // (2 * heads), 1 + len(grid)
        if pairs < axes:
            raise ValueError(
                f"expected at least {2 * axes} numbers for each of {heads} heads, got {2 * pairs}"
            )
        super().__init__()
        self.heads, self.grid = heads, tuple(grid)
        self.patches = math.prod(grid)
        in_space = pairs // axes
        self._pairs = (pairs - in_space * len(grid), *[in_space] * len(grid))
        self.enter = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)

    def forward(self, h: Tensor, past: KeptPast) -> tuple[Tensor, KeptPast]:
        """Attend from ``(N, T * patches, width)``, with the past of the same N."""
        of_each = self.enter(h).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = of_each.unbind(-3)  # (N, S, heads, size)
        before = past.keys.shape[1]
        angles = self._angles(before, h)
        keys = torch.cat([past.keys.to(h), _rotated(keys, angles)], 1)
        values = torch.cat([past.values.to(h), values], 1)
        steps = torch.arange(keys.shape[1], device=h.device) // self.patches
        found = functional.scaled_dot_product_attention(
            _rotated(queries, angles).transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=steps <= steps[before:].unsqueeze(-1),
        )
        mixed: Tensor = self.leave(found.transpose(1, 2).flatten(-2))
        return mixed, KeptPast(keys, values)

    def _angles(self, before: int, h: Tensor) -> Tensor:
        """Angles of each place in time and space, for each pair of numbers: ``(S, size / 2)``."""
        count = h.shape[1] // self.patches
        times = before // self.patches + torch.arange(count, device=h.device)
        axes = [times, *(torch.arange(size, device=h.device) for size in self.grid)]
        places = torch.cartesian_prod(*axes).reshape(h.shape[1], -1).to(h.dtype)
        bases = (ROTARY_BASE, *[ROTARY_BASE_IN_SPACE] * len(self.grid))
        found = []
        for place, pairs, base in zip(places.unbind(-1), self._pairs, bases, strict=True):
            rates = base ** (-torch.arange(pairs, device=h.device, dtype=h.dtype) / pairs)
            found.append(place[:, None] * rates)
        return torch.cat(found, -1)


def _rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair of the numbers of ``(N, S, heads, size)`` by its angle."""
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)  # (S, 1, size / 2)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class AttentionBlock(nn.Module):
    """Pre-norm transformer block, causal in time.

    Args:
        width: of inputs and outputs.
        heads: number of heads.
        dropout: probability of each number of a branch in training.
        grid: rows and columns of the patches of a step; none for vectors.
    """

    def __init__(self, width: int, heads: int, dropout: float, grid: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = CausalAttention(width, heads, grid)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, past: KeptPast) -> tuple[Tensor, KeptPast]:
        attended, past = self.attention(self.norms[0](h), past)
        h = h + self.dropout(attended)
        return h + self.dropout(self.mlp(self.norms[1](h))), past


class AttentionConditioner(CausalConditioner):
    r"""Causal transformer over past vectors, with a cache of keys and values.

    .. math:: \theta_t = A \, \mathrm{Transformer}((x_{s-1}, c_s)_{s \le t})_t + a

    All frames are one pass; a step attends to what is kept of the past. Positions count by
    their distance, so that sequences may be longer than those of the training.

    Args:
        features: size of a vector.
        hidden: width of the layers, a multiple of twice the heads.
        layers: number of layers.
        heads: of each layer.
        context_features: size of the context; 0 for none.
        dropout: probability of each number of a branch in training.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last vector, in units of the scale.

    Raises:
        ValueError: for no layers, or a width that the heads cannot share.

    Source: as a flow Zhai et al., *Normalizing Flows are Capable Generative Models*,
    arXiv:2412.06329; here across time.

    >>> AttentionConditioner(3, hidden=16, heads=2)(torch.randn(5, 50, 3)).shape
    torch.Size([5, 50, 3, 2])
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        context_features: int = 0,
        dropout: float = 0.0,
        num_parameters: int = 2,
        residual: bool = False,
    ) -> None:
        if layers < 1:
            raise ValueError(f"expected at least 1 layer, got {layers}")
        super().__init__(
            (features,),
            initial_shape=(features,),
            context_features=context_features,
            num_parameters=num_parameters,
            residual=residual,
        )
        self.enter = nn.Linear(features + context_features, hidden)
        self.blocks = nn.ModuleList(AttentionBlock(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.heads = nn.Linear(hidden, num_parameters * features)

    def start(self, batch: torch.Size) -> AttentionState:
        return no_past(self.blocks, batch, self.enter.weight)

    def run(
        self, previous: Tensor, context: Tensor | None, state: AttentionState
    ) -> tuple[Tensor, AttentionState]:
        with without_autocast(previous.device):
            inputs = with_context(previous, context)
            return through(self.blocks, self.enter(inputs.to(self.enter.weight.dtype)), state)

    def emit(self, features: Tensor) -> Tensor:
        with without_autocast(features.device):
            found = in_full_precision(self.heads, self.norm(features), 1)
        return by_entry(found, self.num_parameters)

    def batch_of(self, state: AttentionState) -> torch.Size:
        return state[0].keys.shape[:-3]


def no_past(blocks: nn.ModuleList, batch: torch.Size, like: Tensor) -> AttentionState:
    """Give the empty cache of blocks, of the kind of ``like``."""
    attentions = [cast(AttentionBlock, block).attention for block in blocks]
    shapes = [(*batch, 0, each.heads, each.enter.in_features // each.heads) for each in attentions]
    return tuple(KeptPast(like.new_zeros(shape), like.new_zeros(shape)) for shape in shapes)


def through(
    blocks: nn.ModuleList, h: Tensor, state: AttentionState
) -> tuple[Tensor, AttentionState]:
    """Send some steps ``(*batch, S, width)`` through blocks, and add them to what is kept."""
    batch = h.shape[:-2]
    h = h.reshape(-1, *h.shape[-2:])
    after = []
    for block, past in zip(blocks, state, strict=True):
        h, seen = block(h, KeptPast(*(_flat(tensor, batch) for tensor in past)))
        after.append(KeptPast(*(t.reshape(*batch, *t.shape[1:]) for t in seen)))
    return h.reshape(*batch, *h.shape[1:]), tuple(after)


def _flat(tensor: Tensor, batch: torch.Size) -> Tensor:
    """Expand ``(*batch, S, heads, size)`` to a batch, and flatten that."""
    event = tensor.shape[-3:]
    return tensor.expand(*batch, *event).reshape(batch.numel(), *event)
