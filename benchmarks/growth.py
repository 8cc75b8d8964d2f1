"""Growth of time and memory: linear in time and batch, none in particles and in a stream."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.timing import fit_line, interleaved, medians, peak_memory
from pyro_afslvm import Pair, StreamingFilter
from pyro_afslvm.objectives import iwae
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.training.acceleration import keep_freed_memory

RECIPE, SMALL = "models/slvm_af1.py", "models/small/slvm_af1.py"
FRAMES, BATCHES = (8, 13, 23, 33), (2, 4, 8, 16)
PARTICLES, CHUNK = (8, 32, 128), 8
STREAM = 200  # frames
SEQUENCES = 4  # of the bound and the stream


def growth(side: int, *, repeats: int) -> dict[str, Any]:
    """Lines through time and memory of a training step, and what should be flat."""
    over_time = {frames: (2, frames, side) for frames in FRAMES}
    over_batch = {batch: (batch, 8, side) for batch in BATCHES}
    lines = {}
    for name, shapes in (("frames", over_time), ("batch", over_batch)):
        seconds = medians(interleaved({k: step(*v) for k, v in shapes.items()}, repeats=repeats))
        bytes_ = {k: peak_memory(step, *v) for k, v in shapes.items()}
        lines[f"seconds by {name}"] = _line(seconds)
        lines[f"memory by {name}"] = _line(bytes_)
    particles = {f"{k} particles": peak_memory(weighted, k, side) for k in PARTICLES}
    return {
        "recipes": {"lines": RECIPE, "flat": SMALL},
        "shapes": {"frames": over_time, "batch": over_batch},  # (batch, frames, side)
        "lines": lines,
        "flat": {"memory of the IWAE bound": particles} | stream(side),
    }


def _line(points: dict[int, float]) -> dict[str, Any]:
    line = fit_line([*points], [*points.values()])
    return {"points": {str(k): v for k, v in points.items()}} | line._asdict()


def small(side: int) -> Pair:
    """The model for two cores."""
    torch.manual_seed(0)
    return build_pair(load_recipe(SMALL), (1, side, side))


def step(batch: int, frames: int, side: int) -> Callable[[], object]:
    """Bound and gradient of the paper's SLVM w/ 1-AF."""
    keep_freed_memory()
    torch.manual_seed(0)
    bound = BoundLoss(build_pair(load_recipe(RECIPE), (1, side, side)))
    x = torch.rand(batch, frames, 1, side, side)

    def run() -> None:
        bound.zero_grad()
        bound(x).backward()

    return run


def weighted(particles: int, side: int) -> Callable[[], object]:
    """The importance-weighted bound."""
    pair = small(side)
    x = torch.rand(SEQUENCES, 13, 1, side, side)
    return lambda: iwae(pair.model, pair.guide, x, num_particles=particles, chunk=CHUNK)


def stream(side: int) -> dict[str, dict[str, float]]:
    """Seconds of a frame early and late in a stream."""
    pair = small(side)
    filtering = StreamingFilter(pair.model, pair.guide)
    frames = iter(torch.rand(STREAM, SEQUENCES, 1, side, side))
    seconds: Sequence[float] = interleaved(
        {"frame": lambda: filtering.update(next(frames))}, repeats=STREAM - 20, warmup=20
    )["frame"]
    half = len(seconds) // 2
    early, late = (statistics.median(part) for part in (seconds[:half], seconds[half:]))
    return {"seconds of a streamed frame": {"first half": early, "second half": late}}
