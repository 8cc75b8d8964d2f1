"""Every transform and conditioner, small and with random weights, for the generic tests."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.networks import mlp
from pyro_afslvm.transforms import (
    Conditioner,
    ConvConditioner,
    LastFrame,
    LSTMConditioner,
    MLPConditioner,
    TemporalAffine,
    TemporalChain,
    TemporalDifference,
    TemporalTransform,
)

CONTEXT = 3  # features of the context


class Case(NamedTuple):
    """How to make one, and the shape of its frames."""

    make: Callable[[], nn.Module]
    frame_shape: tuple[int, ...]
    context: bool = False


VECTOR, VIDEO = (2,), (1, 4, 4)


def _conv(**options) -> ConvConditioner:
    return ConvConditioner(1, hidden=3, depth=1, **options)


CONDITIONERS: dict[str, Case] = {
    "conv": Case(lambda: _conv(norm=None), VIDEO),
    "conv, group norm, residual": Case(lambda: _conv(norm="group", residual=True), VIDEO),
    "conv, batch norm": Case(lambda: _conv(norm="batch"), VIDEO),
    "conv, window 1": Case(lambda: _conv(norm=None, window=1), VIDEO),
    "mlp": Case(lambda: MLPConditioner(2, hidden=(5,)), VECTOR),
    "mlp, window 1, residual": Case(
        lambda: MLPConditioner(2, hidden=(5,), window=1, residual=True), VECTOR
    ),
    "lstm": Case(lambda: LSTMConditioner(2, hidden=4), VECTOR),
    "lstm, residual": Case(lambda: LSTMConditioner(2, hidden=4, residual=True), VECTOR),
    "lstm, two layers, pre-network": Case(
        lambda: LSTMConditioner(2, hidden=4, layers=2, pre_network=mlp(2, 5)), VECTOR
    ),
    "lstm, context": Case(
        lambda: LSTMConditioner(2, hidden=4, context_features=CONTEXT), VECTOR, True
    ),
    "last frame": Case(lambda: LastFrame(1), VECTOR),
    "last frame, learned scale": Case(lambda: LastFrame(3, learned_scale=True), VIDEO),
}


def _affine(name: str, initial: str | None = None) -> Case:
    case = CONDITIONERS[name]
    return case._replace(make=lambda: TemporalAffine(case.make(), initial=initial))


def _chain(*parts: Callable[[], TemporalTransform]) -> Callable[[], TemporalChain]:
    return lambda: TemporalChain([part() for part in parts])


def _mlp(window: int, initial: str | None = None) -> TemporalAffine:
    return TemporalAffine(MLPConditioner(2, hidden=(5,), window=window), initial=initial)


def _lstm() -> TemporalAffine:
    return TemporalAffine(LSTMConditioner(2, hidden=4))


TRANSFORMS: dict[str, Case] = {
    **{f"affine: {name}": _affine(name) for name in CONDITIONERS},
    "affine, learned start: conv": _affine("conv", "learned"),
    "affine, learned start: conv, group norm, residual": _affine(
        "conv, group norm, residual", "learned"
    ),
    "affine, learned start: mlp": _affine("mlp", "learned"),
    "difference": Case(TemporalDifference, VECTOR),
    "difference twice": Case(_chain(TemporalDifference, TemporalDifference), VECTOR),
    "chain of conv": Case(
        _chain(
            lambda: TemporalAffine(_conv(norm="group")),
            lambda: TemporalAffine(_conv(norm=None, residual=True, window=2)),
        ),
        VIDEO,
    ),
    "chain of mixed windows": Case(_chain(lambda: _mlp(1), lambda: _mlp(3)), VECTOR),
    "chain of mixed windows, learned start": Case(
        _chain(lambda: _mlp(1, "learned"), lambda: _mlp(3, "learned"), TemporalDifference), VECTOR
    ),
    "chain, part learned": Case(_chain(lambda: _mlp(2), lambda: _mlp(1, "learned")), VECTOR),
    "chain of lstm": Case(_chain(_lstm, _lstm), VECTOR),
    "chain of lstm and mlp": Case(_chain(_lstm, lambda: _mlp(2, "learned")), VECTOR),
    "chain of mlp and lstm": Case(_chain(lambda: _mlp(2), _lstm), VECTOR),
}
WITH_PARAMETERS = {k: c for k, c in TRANSFORMS.items() if list(c.make().parameters())}


def build(case: Case, *, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Make it with random weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    module = case.make().to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                buffer.add_(0.3 * torch.rand_like(buffer) if "var" in name else 0.2)
    return module.eval()


class Sequence(NamedTuple):
    """Frames, the history they need, and the context for both."""

    x: Tensor
    history: Tensor | None
    context: Tensor | None


def sequence(
    case: Case,
    module: nn.Module,
    *,
    length: int = 6,
    batch: tuple[int, ...] = (),
    past: int | None = None,
) -> Sequence:
    """Random frames after as many as the module cannot do without (or ``past``)."""
    needed = module.window if isinstance(module, Conditioner) else module.context_length
    past = needed if past is None else past
    full = torch.randn(*batch, past + length, *case.frame_shape, dtype=torch.float64)
    context = None
    if case.context:
        context = torch.randn(*batch, past + length, CONTEXT, dtype=torch.float64)
    history, x = full.split([past, length], -1 - len(case.frame_shape))
    return Sequence(x, history if past else None, context)
