"""Checks that an accelerator computes what the processor does in double precision."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from benchmarks.graphs import CapturedStep, Precision, TrainingStep, autocast
from benchmarks.rollouts import following
from pyro_afslvm import Pair
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe

# loss in nats per dimension; gradient as a share of its length; frames as a share of their spread.
# A gradient jumps where a unit is switched on or off, so that it gains little from precision.
LIMITS: dict[Precision, dict[str, float]] = {
    "float32": {"loss": 1e-4, "gradient": 1e-3, "frames": 1e-4},
    "bf16": {"loss": 2e-3, "gradient": 0.1, "frames": 0.02},
}
ROUNDING = 2.0  # or so many times the error of the processor in the same precision
ON_PROCESSOR = "bf16 on the processor"
SETTLING, SETTLING_RATE = 10, 1e-3  # steps, so that the bound is of the size it has in training
GRAPH_LIMIT = 2e-3  # nats per dimension, after steps of training
STEPS = 3  # of the graph's, after as many before it was captured


class Problem(NamedTuple):
    """A model, what it is asked, and the draws it is given."""

    pair: Pair
    x: Tensor
    eps: Tensor  # of the latents of x, N(0, I)
    future: Tensor  # of the frames that follow

    def on(self, device: torch.device, dtype: torch.dtype) -> "Problem":
        """A copy on a device in a precision."""
        pair = copy.deepcopy(self.pair)  # together: the guide's model is the model
        pair.to(device=device, dtype=dtype)
        return Problem(pair, *(t.to(device=device, dtype=dtype) for t in self[1:]))


class Outcome(NamedTuple):
    """Loss, gradient and frames, in double precision in main memory."""

    loss: Tensor  # nats per dimension
    gradient: Tensor  # of all parameters
    frames: Tensor  # that follow


class FixedEps(Messenger):
    """Latents are the transforms of N(0, I) draws that are given."""

    def __init__(self, eps: Tensor) -> None:
        super().__init__()
        self.eps = eps

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "z" and msg["value"] is None:
            value = self.eps
            for transform in msg["fn"].transforms:
                value = transform(value)
            msg["value"] = value


def problem(recipe: str, *, batch: int, size: int, scored: int, seed: int = 0) -> Problem:
    """A recipe's model with random weights, on moving discs."""
    torch.manual_seed(seed)
    pair = build_pair(load_recipe(recipe), (1, size, size))
    x = moving_discs(batch, crop_length(pair.model, scored), size)
    steps = x.shape[1] - pair.model.context_length
    eps = torch.randn(batch, steps, getattr(pair.model, "latent_size", 1))
    return Problem(pair, x, eps, torch.randn(batch, scored, pair.model.eps_size))


def moving_discs(batch: int, frames: int, size: int) -> Tensor:
    """Noisy frames ``(batch, frames, 1, size, size)`` of a disc that moves."""
    start, velocity = size * torch.rand(2, batch, 1), torch.randint(-3, 4, (2, batch, 1))
    down, right = (start + velocity * torch.arange(frames)).remainder(size)[..., None, None]
    pixels = torch.arange(size)
    distance = (pixels[:, None] - down) ** 2 + (pixels - right) ** 2  # (batch, frames, H, W)
    discs = (distance < (size / 6) ** 2).float()
    return (discs + torch.randn_like(discs) / 256).unsqueeze(2)


def settle(asked: Problem, steps: int) -> None:
    """Train for a few steps where the model is."""
    bound = BoundLoss(asked.pair)
    step = TrainingStep(bound, lambda: bound(asked.x), "float32", learning_rate=SETTLING_RATE)
    for _ in range(steps):
        step()


def outcome(asked: Problem, precision: Precision) -> Outcome:
    """Loss and gradient in training mode; then frames that follow, in evaluation mode."""
    bound = BoundLoss(asked.pair)
    with FixedEps(asked.eps), autocast(asked.x.device, precision):
        loss = bound(asked.x)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in bound.parameters() if p.grad is not None])
    results = (
        loss / math.prod(asked.pair.model.frame_shape),
        gradient,
        rolled_out(asked, precision),
    )
    return Outcome(*(result.detach().double().cpu() for result in results))


def rolled_out(asked: Problem, precision: Precision) -> Tensor:
    """Frames that follow, from draws that are given: ``(batch, horizon, *frame_shape)``."""
    with FixedEps(asked.eps):
        sample = following(asked.pair, asked.x, precision)
    return sample(asked.future)


def errors(found: Outcome, truth: Outcome) -> dict[str, float]:
    """Distances of one outcome from another."""
    return {
        "loss": abs(float(found.loss - truth.loss)),
        "gradient": _share(found.gradient - truth.gradient, truth.gradient),
        "frames": _share(found.frames - truth.frames, truth.frames - truth.frames.mean()),
    }


def _share(error: Tensor, of: Tensor) -> float:
    return float(error.norm() / of.norm())


def graph_error(asked: Problem) -> dict[str, Any]:
    """Compare a captured step with one that is not, after some steps; are its draws fresh?"""
    try:
        captured = CapturedStep(_step(asked, fixed=True), warmup=STEPS)
        fresh = _draws_are_fresh(asked)
    except RuntimeError as error:
        return {"reason": str(error).splitlines()[0]}
    plain = _step(asked, fixed=True)
    expected = [float(plain()) for _ in range(2 * STEPS)][STEPS:]
    found = [float(captured()) for _ in range(STEPS)]
    dims = math.prod(asked.pair.model.frame_shape)
    error = max(abs(a - b) for a, b in zip(found, expected, strict=True)) / dims
    return {"loss": error, "fresh": fresh}


def _step(asked: Problem, *, fixed: bool, learning_rate: float = 1e-4) -> TrainingStep:
    own = asked.on(asked.x.device, asked.x.dtype)
    bound = BoundLoss(own.pair)

    def loss() -> Tensor:
        if not fixed:
            return bound(own.x)
        with FixedEps(own.eps):
            return bound(own.x)

    return TrainingStep(bound, loss, "float32", learning_rate=learning_rate)


def _draws_are_fresh(asked: Problem) -> bool:
    """Whether the latents of two replays differ; true where there are none."""
    if asked.pair.guide is None:
        return True
    captured = CapturedStep(_step(asked, fixed=False, learning_rate=0.0))
    return float(captured()) != float(captured())


def check(asked: Problem, device: torch.device) -> dict[str, Any]:
    """Errors of every precision on a device, and of bfloat16 on the processor."""
    processor = torch.device("cpu")
    with tf32(False):
        here = asked.on(device, torch.float32)
        settle(here, SETTLING)
        truth = outcome(here.on(processor, torch.float64), "float32")

        def off(where: torch.device, precision: Precision) -> dict[str, float]:
            return errors(outcome(here.on(where, torch.float32), precision), truth)

        found: dict[str, Any] = {precision: off(device, precision) for precision in LIMITS}
        found[ON_PROCESSOR] = off(processor, "bf16")
        if device.type == "cuda":
            found["graph"] = graph_error(here)
    return found


def failures(name: str, found: dict[str, Any]) -> list[str]:
    """List what is further off than it may be, in words."""
    wrong = []
    for precision, limits in LIMITS.items():
        rounding = found[ON_PROCESSOR] if precision == "bf16" else {}
        for what, limit in limits.items():
            most = max(limit, ROUNDING * rounding.get(what, 0.0))
            wrong += _too_far(f"{name}, {precision}: {what}", found[precision][what], most)
    graph = found.get("graph", {})
    if "loss" in graph:
        wrong += _too_far(f"{name}, graph: loss", graph["loss"], GRAPH_LIMIT)
    if graph.get("fresh") is False:
        wrong.append(f"{name}, graph: every replay has the same draws")
    return wrong


def _too_far(what: str, error: float, most: float) -> list[str]:
    # NaN is too far as well
    return [] if error <= most else [f"{what} is off by {error:.2g}, more than {most:.2g}"]


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Whether products and convolutions of float32 may round their factors to 10 bits."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = on
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
