"""Changes by bfloat16 networks: of the bound on the same weights and draws, and of training."""

import math
import statistics
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.graphs import Precision, TrainingStep, autocast
from pyro_afslvm.data import GaussianDequantization, MovingDigits
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe

CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
RECIPES = ("models/af1.py", "models/slvm_af1.py", "models/slvm.py")
TRAINED = "models/small/slvm_af1.py"
SIDE = 32  # of the frames trained on
BATCH, RATE = 4, 1e-3  # of the models whose bounds are compared
SETTLING = (100, 400)  # steps before the bounds are compared
SEEDS = (0, 1, 2, 3, 4)  # of fewer there is no standard error


def numerics() -> dict[str, Any]:
    """Errors of the bound in nats/dim."""
    errors = {load_recipe(recipe).path.stem: bound_errors(recipe) for recipe in RECIPES}
    return {"side": SIDE, "batch": BATCH, "learning_rate": RATE, "errors": errors}


def bound_errors(recipe: str, *, side: int = SIDE, batch: int = BATCH) -> dict[int, float]:
    """Mean |bound with bf16 networks - bound| in nats/dim, after steps of training in float32.

    Too little training leaves bounds of many nats on frames not seen, and errors in proportion.
    """
    torch.manual_seed(0)
    bound = BoundLoss(build_pair(load_recipe(recipe), (1, side, side)))
    data = batches(side, batch)
    step = TrainingStep(bound, lambda: bound(next(data)), "float32", learning_rate=RATE)
    found, done = {}, 0
    for settling in SETTLING:
        bound.train()
        for _ in range(settling - done):
            step()
        done = settling
        bound.eval()
        unseen = [*islice(data, 8)]
        losses = (_losses(bound, unseen, precision) for precision in PRECISIONS)
        distances = [abs(a - b) / side**2 for a, b in zip(*losses, strict=True)]
        found[settling] = statistics.fmean(distances)
    return found


@torch.no_grad()
def _losses(bound: BoundLoss, data: list[Tensor], precision: Precision) -> list[float]:
    torch.manual_seed(1)  # the same latents in both precisions
    with autocast(CPU, precision):
        return [bound(x).item() for x in data]


def training(steps: int) -> dict[str, Any]:
    """Curves of the same trainings in both precisions, and how far their second halves differ."""
    curves = {
        precision: [curve(precision, steps, seed=seed) for seed in SEEDS]
        for precision in PRECISIONS
    }
    ends = [[_second_half(one) for one in of] for of in curves.values()]
    gains = [in_bf16 - in_float32 for in_float32, in_bf16 in zip(*ends, strict=True)]
    return {
        "recipe": TRAINED,
        "side": SIDE,
        "batch": 2 * BATCH,
        "learning_rate": RATE,
        "steps": steps,
        "curves": curves,
        "difference": statistics.fmean(gains),
        "error": statistics.stdev(gains) / math.sqrt(len(gains)),
        "seeds": statistics.fmean(statistics.stdev(of) for of in ends),
    }


def curve(precision: Precision, steps: int, *, seed: int, points: int = 20) -> list[float]:
    """Mean of the loss over each of so many stretches of a training, in nats/dim."""
    torch.manual_seed(seed)
    bound = BoundLoss(build_pair(load_recipe(TRAINED), (1, SIDE, SIDE)))
    data, losses = batches(SIDE, 2 * BATCH), []
    step = TrainingStep(bound, lambda: bound(next(data)), precision, learning_rate=RATE)
    for i in range(steps):
        torch.manual_seed(steps * seed + i)
        losses.append(step().item() / SIDE**2)
    length = math.ceil(steps / points)
    return [statistics.fmean(losses[i : i + length]) for i in range(0, steps, length)]


def batches(side: int, size: int) -> Iterator[Tensor]:
    """Noisy moving digits, the same digits at every call."""
    digits = MovingDigits(size=side).dataset("train", num_frames=13)
    dequantize = GaussianDequantization()
    for i in count(0, size):
        yield torch.stack([dequantize(digits[(i + k) % len(digits)]) for k in range(size)])


def _second_half(curve: list[float]) -> float:
    return statistics.fmean(curve[len(curve) // 2 :])
