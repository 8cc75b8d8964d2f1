"""What bfloat16 networks change: the bound on the same weights and noise, and training."""

import math
import statistics
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.graphs import Precision, TrainingStep, autocast
from pyro_afslvm.data import GaussianDequantization, MovingDigits
from pyro_afslvm.loss import BoundLoss
from pyro_afslvm.recipes import build_pair, load_recipe

CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
RECIPES = ("models/af1.py", "models/slvm_af1.py", "models/slvm.py")
TRAINED = "models/small/slvm_af1.py"
SIDE = 32  # of the frames trained on


def numerics(steps: int) -> dict[str, Any]:
    """Errors of the bound in nats/dim, and curves of three trainings."""
    errors = {load_recipe(recipe).path.stem: bound_error(recipe) for recipe in RECIPES}
    return {"side": SIDE, "errors": errors, "training": training(steps)}


def bound_error(recipe: str, *, side: int = SIDE, settling: int = 400, batch: int = 4) -> float:
    """Mean |bound with bf16 networks - bound| in nats/dim, after some training in float32.

    Too little training leaves bounds of tens or hundreds of nats on frames not seen, and errors
    in proportion.
    """
    torch.manual_seed(0)
    bound = BoundLoss(build_pair(load_recipe(recipe), (1, side, side)))
    data = batches(side, batch)
    step = TrainingStep(bound, lambda: bound(next(data)), "float32", learning_rate=1e-3)
    for _ in range(settling):
        step()
    bound.eval()
    unseen = [*islice(data, 8)]
    in_float32, in_bf16 = (_losses(bound, unseen, one) for one in PRECISIONS)
    return statistics.fmean(abs(a - b) for a, b in zip(in_float32, in_bf16, strict=True)) / side**2


@torch.no_grad()
def _losses(bound: BoundLoss, data: list[Tensor], precision: Precision) -> list[float]:
    torch.manual_seed(1)  # the same latents in both precisions
    with autocast(CPU, precision):
        return [bound(x).item() for x in data]


def training(steps: int) -> dict[str, Any]:
    """Curves of the same training in both precisions, and of another seed's."""
    curves = {
        "float32": curve("float32", steps, seed=0),
        "bf16": curve("bf16", steps, seed=0),
        "float32, another seed": curve("float32", steps, seed=1),
    }
    reference, *others = curves.values()
    in_bf16, another = (_distance(reference, other) for other in others)
    return {"steps": steps, "curves": curves, "difference": in_bf16, "seeds_differ": another}


def curve(precision: Precision, steps: int, *, seed: int, points: int = 20) -> list[float]:
    """Mean of the loss over each of so many stretches of a training, in nats/dim."""
    torch.manual_seed(seed)
    bound = BoundLoss(build_pair(load_recipe(TRAINED), (1, SIDE, SIDE)))
    data, losses = batches(SIDE, 8), []
    step = TrainingStep(bound, lambda: bound(next(data)), precision, learning_rate=1e-3)
    for i in range(steps):
        torch.manual_seed(steps * seed + i)
        losses.append(step().item() / SIDE**2)
    length = math.ceil(steps / points)
    return [statistics.fmean(losses[i : i + length]) for i in range(0, steps, length)]


def batches(side: int, size: int) -> Iterator[Tensor]:
    """Noisy moving digits, the same digits at every call."""
    digits = MovingDigits(size=side).dataset("train", num_frames=13)
    noise = GaussianDequantization()
    for i in count(0, size):
        yield torch.stack([noise(digits[(i + k) % len(digits)]) for k in range(size)])


def _distance(a: list[float], b: list[float]) -> float:
    """Mean distance of two curves over their second half."""
    half = len(a) // 2
    return statistics.fmean(abs(x - y) for x, y in zip(a[half:], b[half:], strict=True))
