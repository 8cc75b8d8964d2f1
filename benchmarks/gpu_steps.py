"""Times, memory and rates of training steps and rollouts on a device."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bare import networks_of
from benchmarks.ceilings import Convolution, Product
from benchmarks.gpu_checks import tf32
from benchmarks.graphs import CapturedStep, Precision, TrainingStep
from benchmarks.rollouts import sampling, sequential_sampling
from benchmarks.sequential import Sequential
from pyro_afslvm import Pair
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.models.base import context_length
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.training.acceleration import compile_networks

Action = Callable[[], object]
SEQUENTIAL = "sequential, float32"  # what the others are compared with
GRAPH = "graph"
BURST, MOST = 0.2, 50  # seconds that a measurement takes, unless it takes so many runs


class Way(NamedTuple):
    """A way to do a training step."""

    program: Literal["sequential", "library"]
    precision: Precision
    compiled: bool = False
    graph: bool = False

    @property
    def name(self) -> str:
        """Name in the tables."""
        ends = [end for end in ("compiled", GRAPH) if getattr(self, end)]
        return ", ".join([self.program, self.precision, *ends])

    def missing(self, device: torch.device) -> str | None:
        """Reason why it cannot be done on a device, if any."""
        if device.type == "cuda" or not (self.compiled or self.graph):
            return None
        return "CUDA graphs need CUDA" if self.graph else "compiled networks are timed on CUDA"


WAYS = (
    Way("sequential", "float32"),
    Way("library", "float32"),
    Way("library", "float32", compiled=True),
    Way("library", "float32", graph=True),
    Way("library", "bf16"),
    Way("library", "bf16", compiled=True),
    Way("library", "bf16", graph=True),
    Way("library", "bf16", compiled=True, graph=True),
)


class Work(NamedTuple):
    """A recipe, and the batch it is given."""

    recipe: str
    batch: int
    size: int  # of a frame, in pixels
    scored: int  # frames that count

    def build(self, device: torch.device) -> tuple[Pair, Tensor]:
        """The model, and random frames, on a device."""
        torch.manual_seed(0)
        pair = build_pair(load_recipe(self.recipe), (1, self.size, self.size)).to(device)
        frames = crop_length(pair.model, self.scored)
        return pair, torch.rand(self.batch, frames, 1, self.size, self.size, device=device)


# measuring -----------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(
    prepare: Mapping[str, Callable[[], Action]], repeats: int, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Seconds and bytes of each action: medians of runs in turn, or the reason for none."""
    actions: dict[str, Action] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, make in prepare.items():
        before = _start_of_peak(device)
        with _reasons(found, name):
            actions[name] = make()
            actions[name]()  # among it the search for fast convolutions, in memory of its own
            wait(device)
            if not name.endswith(GRAPH):  # it takes its memory while it is captured
                _start_of_peak(device)
            actions[name]()
            wait(device)
            found[name] = _peak(device, before)
    bursts: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(1 + repeats):
        for name in [name for name in actions if "reason" not in found[name]]:
            with _reasons(found, name):
                seconds = _timed(actions[name], bursts.get(name, 1), device)
                if turn:
                    times[name].append(seconds)
                else:
                    bursts[name] = max(1, min(MOST, round(BURST / seconds)))
    for name, values in times.items():
        if "reason" not in found[name]:
            found[name]["seconds"] = statistics.median(values)
    return found


def _timed(action: Action, count: int, device: torch.device) -> float:
    start = time.perf_counter()
    for _ in range(count):
        action()
    wait(device)
    return (time.perf_counter() - start) / count


class _reasons:
    """An error of an action is the reason why there is no measurement of it."""

    def __init__(self, found: dict[str, dict[str, Any]], name: str) -> None:
        self.found, self.name = found, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> bool:
        if not isinstance(error, RuntimeError):
            return False
        self.found[self.name] = {"reason": str(error).strip().split("\n")[0][:200]}
        error.__traceback__ = None  # it holds on to tensors
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def _start_of_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device, before: int) -> dict[str, Any]:
    if device.type != "cuda":
        return {}
    return {"bytes": torch.cuda.max_memory_allocated(device) - before}


# training steps ------------------------------------------------------------------------------


def steps(
    work: Work, repeats: int, device: torch.device, names: Collection[str] | None = None
) -> dict[str, Any]:
    """Every way to do a step, or those that are named: seconds, bytes, operations a second."""
    torch.compiler.reset()  # what was compiled for other models counts towards its limits
    ways = [way for way in WAYS if names is None or way.name in names]
    reasons = {way.name: way.missing(device) for way in ways}
    prepare = {
        way.name: lambda way=way: training_step(way, work, device)
        for way in ways
        if reasons[way.name] is None
    }
    with tf32(True):
        found: dict[str, Any] = measured(prepare, repeats, device)
    found |= {name: {"reason": reason} for name, reason in reasons.items() if reason}
    return {"flops": work.batch * flops(work, device), "ways": found}


def training_step(way: Way, work: Work, device: torch.device) -> Action:
    """A step that is done in this way."""
    pair, x = work.build(device)
    bound = BoundLoss(pair)
    if way.compiled:
        compile_networks(bound)
    sequential = Sequential(networks_of(pair)) if way.program == "sequential" else None
    scored = x.shape[0] * (x.shape[1] - context_length(pair.model))

    def loss() -> Tensor:
        return bound(x) if sequential is None else sequential.loss(x) / scored

    step = TrainingStep(bound, loss, way.precision)
    return CapturedStep(step) if way.graph else step


def flops(work: Work, device: torch.device) -> float:
    """Operations of the library's step on one sequence; those of LSTMs are not counted on CUDA."""
    two = work._replace(batch=2)
    step = training_step(Way("library", "float32"), two, device)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / two.batch


# ceilings ------------------------------------------------------------------------------------


def ceilings(
    product: int, frames: int, size: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Operations a second of products and convolutions, as fast as the device does them."""
    modes = [("float32", torch.float32, False), ("bf16", torch.bfloat16, False)]
    if device.type == "cuda":
        modes.insert(1, ("tf32", torch.float32, True))
    found: dict[str, Any] = {}
    for name, dtype, rounded in modes:
        work = {
            "product": Product(product, dtype, device),
            "convolution": Convolution(frames, size, dtype, device),
        }
        with tf32(rounded):
            times = measured({k: lambda a=a: a for k, a in work.items()}, repeats, device)
        found[name] = {
            kind: action.flops / times[kind]["seconds"]
            for kind, action in work.items()
            if "seconds" in times[kind]
        }
    return found


# rollouts ------------------------------------------------------------------------------------


def rollouts(work: Work, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds, bytes and frames a second of sampling as many frames as are scored."""
    pair, x = work.build(device)
    pair.eval()
    actions: dict[str, Action] = {
        SEQUENTIAL: sequential_sampling(pair, x, work.scored),
        "library, float32": sampling(pair, x, work.scored, "float32"),
        "library, bf16": sampling(pair, x, work.scored, "bf16"),
    }
    with tf32(True):
        found = measured({k: lambda a=a: a for k, a in actions.items()}, repeats, device)
    for one in found.values():
        if "seconds" in one:
            one["frames_per_second"] = work.batch * work.scored / one["seconds"]
    return found
