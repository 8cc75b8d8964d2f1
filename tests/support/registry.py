"""Every transform and every conditioner: small, in float64, with random weights."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms import (
    AttentionConditioner,
    ConvConditioner,
    ConvLSTMConditioner,
    DilatedConditioner,
    GlowMap,
    Inverse,
    LastFrame,
    LinearConditioner,
    LSTMConditioner,
    MLPConditioner,
    MotionConditioner,
    PatchAttentionConditioner,
    TemporalAffine,
    TemporalAutoregressive,
    TemporalChain,
    TemporalDifference,
    TemporalHierarchy,
    TemporalMixture,
    TemporalSpline,
    TemporalTransform,
    channel_mixing,
    triangular_mixing,
)
from pyro_afslvm.transforms.time_axis import previous_frames

VECTOR, VIDEO = (2,), (2, 3, 2)


@dataclass(frozen=True)
class Case:
    """How to build a module, and the shapes of what it takes."""

    build: Callable[[], Any]
    frame_shape: tuple[int, ...] = VECTOR
    context_features: int = 0

    def make(self, *, seed: int = 1, dtype: torch.dtype = torch.float64) -> Any:
        """Build it; the same seed gives the same weights in another object."""
        torch.manual_seed(seed)
        module = self.build().to(dtype).eval()
        perturb(module)
        return module

    def frames(self, *shape: int) -> Tensor:
        """Draw frames ``(*batch, T, *frame_shape)``."""
        return torch.randn(*shape, *self.frame_shape, dtype=torch.float64)

    def context(self, *shape: int) -> Tensor | None:
        """Draw a context ``(*batch, T, features)`` where the module takes one."""
        if not self.context_features:
            return None
        return torch.randn(*shape, self.context_features, dtype=torch.float64)


@torch.no_grad()
def perturb(module: nn.Module) -> None:
    """Move every parameter and every statistic off its initial value."""
    for parameter in module.parameters():
        parameter.add_(0.12 * torch.randn_like(parameter))
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_(std=0.3)
            child.running_var.uniform_(0.5, 2.0)


@dataclass
class Calls:
    """How often a network ran, and on how many frames in all."""

    count: int = 0
    frames: int = 0


@contextmanager
def calls(network: nn.Module) -> Iterator[Calls]:
    """Count what goes through a network whose first axis is the frames."""
    seen = Calls()

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.count += 1
        seen.frames += len(inputs[0])

    handle = network.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


# conditioners ---------------------------------------------------------------------------


def conv(**options: Any) -> ConvConditioner:
    return ConvConditioner(2, hidden=6, depth=2, **options)


def mlp(window: int, **options: Any) -> MLPConditioner:
    return MLPConditioner(2, hidden=(8, 8), window=window, **options)


def lstm(**options: Any) -> LSTMConditioner:
    return LSTMConditioner(2, hidden=4, **options)


def motion(num_parameters: int = 4, **options: Any) -> MotionConditioner:
    return MotionConditioner(
        2, num_parameters=num_parameters, reach=1, block=2, hidden=4, depth=1, **options
    )


def linear(network: Any = None, **options: Any) -> LinearConditioner:
    """One that is not the random walk that fresh ones are."""
    conditioner = LinearConditioner(2, network=network, **options)
    for parameter in conditioner.parameters():
        nn.init.normal_(parameter, std=0.2)
    return conditioner


def pre_network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh())


CONDITIONERS: dict[str, Case] = {
    **{
        f"conv-{norm}-{window}{'-residual' * residual}": Case(
            lambda n=norm, w=window, r=residual: conv(norm=n, window=w, residual=r), VIDEO
        )
        for norm, window, residual in itertools.product(
            ("group", None, "batch"), (1, 3), (False, True)
        )
    },
    **{
        f"mlp-{window}{'-residual' * residual}": Case(
            lambda w=window, r=residual: mlp(w, residual=r)
        )
        for window, residual in itertools.product((1, 3), (False, True))
    },
    "lstm": Case(lstm),
    "lstm-residual": Case(lambda: lstm(residual=True)),
    "lstm-2": Case(lambda: lstm(layers=2)),
    "lstm-pre": Case(lambda: lstm(pre_network=pre_network())),
    "lstm-context": Case(lambda: lstm(context_features=3), context_features=3),
    "lstm-2-context-pre": Case(
        lambda: lstm(layers=2, context_features=3, pre_network=pre_network()), context_features=3
    ),
    **{f"motion-{window}": Case(lambda w=window: motion(window=w), VIDEO) for window in (2, 3)},
    "dilated": Case(lambda: DilatedConditioner(2, hidden=4, layers=2)),
    "dilated-3-context": Case(
        lambda: DilatedConditioner(
            2, hidden=4, layers=1, kernel=3, context_features=3, dropout=0.3
        ),
        context_features=3,
    ),
    "attention": Case(lambda: AttentionConditioner(2, hidden=8, heads=2)),
    "attention-context": Case(
        lambda: AttentionConditioner(
            2, hidden=8, heads=2, layers=1, context_features=3, dropout=0.3, residual=True
        ),
        context_features=3,
    ),
    # frames of 3 by 2 pixels, so that patches stick out
    "patches": Case(
        lambda: PatchAttentionConditioner(VIDEO, patch=2, hidden=12, layers=2, heads=2), VIDEO
    ),
    "patches-context": Case(
        lambda: PatchAttentionConditioner(
            VIDEO, patch=2, hidden=12, layers=2, heads=2, context_features=3, dropout=0.3
        ),
        VIDEO,
        context_features=3,
    ),
    "conv-lstm": Case(lambda: ConvLSTMConditioner(VIDEO, patch=2, hidden=4), VIDEO),
    "conv-lstm-2-context": Case(
        lambda: ConvLSTMConditioner(
            VIDEO, patch=1, hidden=4, layers=2, context_features=3, residual=True
        ),
        VIDEO,
        context_features=3,
    ),
    "linear-mlp-context": Case(
        lambda: linear(
            MLPConditioner(4, hidden=(8,), window=3, context_features=3), context_features=3
        ),
        context_features=3,
    ),
    "linear-lstm": Case(lambda: linear(LSTMConditioner(4, hidden=4))),
    "last-frame": Case(lambda: LastFrame(1)),
    "last-frame-learned": Case(lambda: LastFrame(1, learned_scale=True)),
    "last-frame-video": Case(lambda: LastFrame(3, learned_scale=True), VIDEO),
}


# transforms -----------------------------------------------------------------------------


class Warped(TemporalTransform):
    """A transform of vectors across time that is not affine: x_t = sinh(d asinh(y_t)) + a x_{t-1}.

    The derivative with respect to y_t is d cosh(d asinh(y_t)) / sqrt(1 + y_t^2).
    """

    def __init__(self) -> None:
        super().__init__(frame_dims=1, context_length=0, reach=1)
        self.log_d = nn.Parameter(torch.tensor(math.log(1.6)))
        self.a = nn.Parameter(torch.tensor(0.5))

    def _undo(self, change: Tensor) -> Inverse:
        d = self.log_d.exp()
        y = torch.sinh(torch.asinh(change) / d)
        return Inverse(y, self._log_scale(y))

    def _log_scale(self, y: Tensor) -> Tensor:
        warped = torch.cosh(self.log_d.exp() * torch.asinh(y))
        return self.log_d + (warped / (1 + y.square()).sqrt()).log()

    def intermediates(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> list[Inverse]:
        return [self._undo(x - self.a * previous_frames(x, history, 1))]

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        return torch.zeros(()) if history is None else history[..., -1, :]

    def step(
        self, noise: Tensor, state: Tensor, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        frame = torch.sinh(self.log_d.exp() * torch.asinh(noise)) + self.a * state
        return frame, self._log_scale(noise), frame

    def inverse_step(
        self, frame: Tensor, state: Tensor, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return *self._undo(frame - self.a * state), frame


def affine(conditioner: Any, initial: Any = "learned", **options: Any) -> TemporalAffine:
    return TemporalAffine(conditioner, initial=initial, **options)


def over(name: str, initial: Any) -> Case:
    """The affine transform over a conditioner of the table above."""
    case = CONDITIONERS[name]
    return Case(lambda: affine(case.build(), initial), case.frame_shape, case.context_features)


def chain(*parts: Callable[[], Any], shape: tuple[int, ...] = VECTOR, context: int = 0) -> Case:
    """A chain, the part nearest to the noise first."""
    return Case(lambda: TemporalChain([part() for part in parts]), shape, context)


def _mlp(window: int, initial: Any = "learned") -> Callable[[], TemporalAffine]:
    return lambda: affine(mlp(window), initial)


def _conv(window: int, initial: Any = "learned", **options: Any) -> Callable[[], TemporalAffine]:
    return lambda: affine(conv(window=window, **options), initial)


def _lstm(**options: Any) -> Callable[[], TemporalAffine]:
    return lambda: affine(lstm(**options))


CONVOLUTIONS = [  # of the twelve: every norm with either window, with and without residual
    "conv-group-1-residual",
    "conv-group-3",
    "conv-None-1",
    "conv-None-3-residual",
    "conv-batch-1-residual",
    "conv-batch-3",
]

AFFINE: dict[str, Case] = {
    **{
        name: over(name, "learned")
        for name in CONDITIONERS
        if name in CONVOLUTIONS or not name.startswith(("conv-", "motion")) or "lstm" in name
    },
    **{
        f"{name}-given": over(name, None)
        for name in ("conv-group-1", "conv-None-3-residual", "conv-batch-3", "mlp-1", "mlp-3")
    },
    "difference": Case(TemporalDifference),
    "difference-video": Case(lambda: TemporalDifference(frame_dims=3), VIDEO),
}

CHAINS: dict[str, Case] = {
    "mlp-1+mlp-3": chain(_mlp(1), _mlp(3)),
    "mlp-3+mlp-1": chain(_mlp(3), _mlp(1)),
    "mlp-1+mlp-3-given": chain(_mlp(1, None), _mlp(3, None)),
    "mlp-2+mlp-3-given": chain(_mlp(2), _mlp(3, None)),
    "mlp-2-given+mlp-3": chain(_mlp(2, None), _mlp(3)),
    "mlp-1+mlp-2+mlp-1": chain(_mlp(1), _mlp(2), _mlp(1)),
    "mlp-1-given+mlp-2-given+mlp-1-given": chain(_mlp(1, None), _mlp(2, None), _mlp(1, None)),
    "lstm+mlp-3": chain(_lstm(), _mlp(3)),
    "lstm+mlp-3-given": chain(_lstm(), _mlp(3, None)),
    "mlp-3-given+lstm": chain(_mlp(3, None), _lstm()),
    "lstm+lstm+mlp-2-given": chain(_lstm(), _lstm(), _mlp(2, None)),
    "lstm-context+mlp-2-given": chain(_lstm(context_features=3), _mlp(2, None), context=3),
    "lstm-context+lstm-context": chain(
        _lstm(context_features=3), _lstm(context_features=3), context=3
    ),
    "difference+difference": chain(TemporalDifference, TemporalDifference),
    "mlp-2+difference": chain(_mlp(2), TemporalDifference),
    "difference+mlp-2-given": chain(TemporalDifference, _mlp(2, None)),
    "mlp-2-given+last-frame": chain(
        _mlp(2, None), lambda: affine(LastFrame(1, learned_scale=True))
    ),
    "conv-1+conv-3": chain(_conv(1), _conv(3, residual=True), shape=VIDEO),
    "conv-3-given+conv-1-given": chain(_conv(3, None), _conv(1, None, norm="batch"), shape=VIDEO),
    "nested": chain(
        lambda: TemporalChain([_mlp(1)(), _mlp(2)()]), lambda: TemporalChain([_mlp(1)()])
    ),
}


def _level(features: int, context: int = 0) -> TemporalAffine:
    return affine(LSTMConditioner(features, hidden=4, context_features=context))


HIERARCHIES: dict[str, Case] = {
    "hierarchy": Case(lambda: TemporalHierarchy([_level(1), _level(1, 1)], [1, 1])),
    "hierarchy-context": Case(
        lambda: TemporalHierarchy([_level(1, 3), _level(1, 4)], [1, 1]), context_features=3
    ),
    "hierarchy-of-chains": Case(
        lambda: TemporalHierarchy(
            [
                _level(1),
                TemporalChain([_level(2, 1), affine(LSTMConditioner(2, context_features=1))]),
                _level(1, 3),
            ],
            [1, 2, 1],
        ),
        (4,),
    ),
    "chain-of-hierarchies": Case(
        lambda: TemporalChain(
            [TemporalHierarchy([_level(1), _level(1, 1)], [1, 1]) for _ in range(2)]
        )
    ),
}


def mixture(conditioner: Any, initial: Any = "learned", **options: Any) -> TemporalMixture:
    return TemporalMixture(conditioner, initial=initial, **{"scale": 0.5, **options})


MIXTURES: dict[str, Case] = {
    "mixture": Case(lambda: mixture(mlp(1, num_parameters=9))),
    "mixture-logistic-given": Case(
        lambda: mixture(
            mlp(2, num_parameters=12),
            None,
            centres=["linear", "last", -1.0, 1.0],
            family="logistic",
        )
    ),
    "mixture-lstm": Case(lambda: mixture(lstm(num_parameters=6), centres=["linear", "last"])),
    "mixture-conv": Case(
        lambda: mixture(conv(window=1, num_parameters=9), centres=["last", 0.0, 1.0]), VIDEO
    ),
    "mixture-motion": Case(
        lambda: mixture(
            motion(14, window=2), None, centres=["predicted", 0.0, "last", "predicted"]
        ),
        VIDEO,
    ),
    "mixture-patches-context": Case(
        lambda: mixture(
            PatchAttentionConditioner(
                VIDEO, patch=2, hidden=12, layers=1, heads=2, context_features=3, num_parameters=6
            ),
            centres=["last", 0.0],
        ),
        VIDEO,
        context_features=3,
    ),
    "mixture-2+mlp-1": chain(_mlp(1), lambda: mixture(mlp(2, num_parameters=9))),
}


def spline(conditioner: Any, initial: Any = "learned") -> TemporalSpline:
    return TemporalSpline(conditioner, bins=3, initial=initial)


SPLINES: dict[str, Case] = {
    "spline": Case(lambda: spline(mlp(1, num_parameters=10))),
    "spline-lstm-residual": Case(lambda: spline(lstm(num_parameters=10, residual=True))),
    "spline-conv-given": Case(lambda: spline(conv(window=1, num_parameters=10), None), VIDEO),
    "spline+mlp-2": chain(_mlp(2), lambda: spline(mlp(1, num_parameters=10))),
}

SQUARE = (2, 2, 4)  # frames that can be squeezed


def _glow(conditioner: Callable[[], Any], initial: Any = "learned") -> Callable[[], Any]:
    return lambda: TemporalAutoregressive(
        conditioner(), GlowMap(2, steps=2, features=1, hidden=4, residual=True), initial=initial
    )


MIXINGS: dict[str, Case] = {
    "triangular": Case(lambda: triangular_mixing(2)),
    "mlp-2+triangular": chain(_mlp(2), lambda: triangular_mixing(2)),
    "triangular+lstm": chain(lambda: triangular_mixing(2), _lstm()),
    "channels+conv-1": chain(lambda: channel_mixing(2), _conv(1, None), shape=SQUARE),
    "glow": Case(_glow(lambda: conv(window=1, num_parameters=3)), SQUARE),
    "glow+conv-1-given": chain(
        _conv(1), _glow(lambda: conv(window=1, num_parameters=3), None), shape=SQUARE
    ),
}

NOT_AFFINE: dict[str, Case] = {
    **MIXTURES,
    **SPLINES,
    **MIXINGS,
    "warped": Case(Warped),
    "mlp-2+mixing+linear": chain(
        _mlp(2), lambda: triangular_mixing(2), lambda: affine(linear(lags=3), None)
    ),
    "mlp-2-given+warped": chain(_mlp(2, None), Warped),
    "hierarchy-with-warped": Case(
        lambda: TemporalHierarchy([Warped(), TemporalChain([_level(1, 1), Warped()])], [1, 1])
    ),
}

TRANSFORMS = AFFINE | CHAINS | HIERARCHIES | NOT_AFFINE

# What has been shown of every transform above, that it is inverted, causal and has the log
# det of its Jacobian, is what the rest follows from: that is asked of one of each kind.
KINDS: dict[str, Case] = {
    name: TRANSFORMS[name]
    for name in (
        "conv-group-3",
        "conv-batch-1-residual",
        "conv-None-3-residual-given",
        "mlp-3",
        "mlp-3-given",
        "lstm-residual",
        "lstm-2-context-pre",
        "dilated",
        "attention-context",
        "patches",
        "conv-lstm-2-context",
        "last-frame-learned",
        "difference",
        "mlp-1+mlp-2+mlp-1",
        "mlp-2-given+mlp-3",
        "lstm-context+mlp-2-given",
        "conv-1+conv-3",
        "hierarchy-context",
        "hierarchy-of-chains",
        "mlp-2-given+warped",
        "mixture-logistic-given",
        "spline-conv-given",
        "spline+mlp-2",
        "mixture-conv",
        "mlp-2+triangular",
        "channels+conv-1",
        "glow",
        "mixture-2+mlp-1",
    )
}
