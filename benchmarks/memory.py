"""Memory of training steps of 1-AF, in ways that differ in what they keep."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from benchmarks.bare import networks_of
from benchmarks.graphs import Precision, TrainingStep
from benchmarks.sequential import Sequential
from benchmarks.sizes import Sizes, build
from benchmarks.targets import KEPT
from benchmarks.timing import peak_memory
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.acceleration import keep_freed_memory, recompute_activations


class Stepping(NamedTuple):
    """A way to do training steps of 1-AF, whose memory is measured."""

    program: Literal["sequential", "library"]
    precision: Precision = "float32"
    recomputed: bool = False
    kept: bool = False  # freed memory, for later tensors

    @property
    def name(self) -> str:
        """Name in the tables."""
        precision = ", bf16" if self.precision == "bf16" else ""
        recomputed = ", recomputed" if self.recomputed else ""
        return self.program + precision + recomputed + (KEPT if self.kept else "")


STEPPING = (
    Stepping("sequential"),
    Stepping("sequential", kept=True),
    Stepping("library"),
    Stepping("library", kept=True),
    Stepping("library", recomputed=True),
    Stepping("library", "bf16"),
    Stepping("library", "bf16", recomputed=True),
)


def two_steps(sizes: Sizes, way: Stepping) -> Callable[[], object]:
    """Two training steps of 1-AF."""
    if way.kept:
        keep_freed_memory()
    pair, x = build("models/af1.py", sizes)
    bound, sequential = BoundLoss(pair), Sequential(networks_of(pair))
    if way.recomputed:
        recompute_activations(bound)
    loss = (lambda: sequential.loss(x)) if way.program == "sequential" else (lambda: bound(x))
    step = TrainingStep(bound, loss, way.precision)
    return lambda: (step(), step())


def memory(sizes: Sizes) -> dict[str, float]:
    """Bytes by which training steps of 1-AF raise resident memory."""
    return {way.name: peak_memory(two_steps, sizes, way) for way in STEPPING}
