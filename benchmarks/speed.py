"""Speed and memory of training and sampling, against a sequential program and against no Pyro.

    python -m benchmarks.speed --json benchmarks/results/speed.json

Times that are compared are measured in turn in one process, with the same threads and on the same
work, and are medians; memory is the median of fresh processes. *Sequential* is
`benchmarks/sequential.py`, *bare* `benchmarks/bare.py`.
"""

import copy
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bare import bare_loss, networks_of
from benchmarks.ceilings import Convolution
from benchmarks.graphs import Precision, TrainingStep
from benchmarks.growth import growth
from benchmarks.memory import memory
from benchmarks.numerics import numerics, training
from benchmarks.rollouts import sampling, sequential_sampling
from benchmarks.sequential import Sequential
from benchmarks.sizes import Sizes, build
from benchmarks.targets import rows_text, table
from benchmarks.timing import interleaved, medians
from inference.table1 import hardware
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.data import software_versions
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.training.acceleration import (
    compile_networks,
    keep_freed_memory,
    recompute_activations,
)
from pyro_afslvm.utils.files import write_json

Section = Literal[
    "steps",
    "overhead",
    "options",
    "rollout",
    "memory",
    "growth",
    "import",
    "numerics",
    "training",
]
SECTIONS = get_args(Section)
CPU = torch.device("cpu")
RECIPES = ("models/af1.py", "models/slvm_af1.py", "models/slvm.py")
SMALLEST = "models/small/vector_af1.py"
WARMUP = 3  # until memory has been seen by every action, and is kept


# steps ---------------------------------------------------------------------------------------


def steps(recipe: str, sizes: Sizes) -> dict[str, Any]:
    """Seconds of a training step in every way, and of the convolutions that it is made of."""
    pair, x = build(recipe, sizes)
    bound, networks = BoundLoss(pair), networks_of(pair)
    sequential = Sequential(networks)
    scored = sizes.batch * (sizes.frames - int(pair.model.context_length))
    losses: dict[str, tuple[Callable[[], Tensor], Precision]] = {
        "sequential": (lambda: sequential.loss(x) / scored, "float32"),
        "bare": (lambda: bare_loss(networks, x) / scored, "float32"),
        "library": (lambda: bound(x), "float32"),
        "sequential, bf16": (lambda: sequential.loss(x) / scored, "bf16"),
        "library, bf16": (lambda: bound(x), "bf16"),
    }
    actions = {name: TrainingStep(bound, *loss) for name, loss in losses.items()}
    count = sizes.batch * (sizes.frames - 1)
    convolutions = {
        "convolution": Convolution(count, sizes.side, torch.float32, CPU),
        "convolution, bf16": Convolution(count, sizes.side, torch.bfloat16, CPU),
    }
    seconds = medians(interleaved(actions | convolutions, repeats=sizes.repeats, warmup=WARMUP))
    with FlopCounterMode(display=False) as counter:
        actions["library"]()
    return {
        "seconds": seconds,
        "flops": counter.get_total_flops(),
        "convolution_flops": convolutions["convolution"].flops,
    }


# what Pyro costs -----------------------------------------------------------------------------


def overhead(sizes: Sizes) -> dict[str, float]:
    """Seconds of a step of the smallest model, with and without Pyro."""
    torch.manual_seed(0)
    pair = build_pair(load_recipe(SMALLEST), (4,))
    bound, networks, x = (
        BoundLoss(pair),
        networks_of(pair),
        torch.randn(sizes.batch, sizes.frames, 4),
    )
    actions = {
        "bare": TrainingStep(bound, lambda: bare_loss(networks, x) / sizes.batch, "float32"),
        "library": TrainingStep(bound, lambda: bound(x), "float32"),
    }
    return medians(interleaved(actions, repeats=20 * sizes.repeats, warmup=20))


# options -------------------------------------------------------------------------------------


def with_options(sizes: Sizes) -> dict[str, float]:
    """Seconds of a step of 1-AF in bf16: as it is, recomputed, and compiled where that can be."""
    pair, x = build("models/af1.py", sizes)
    bounds = {"library": BoundLoss(pair)}
    bounds["recomputed"] = copy.deepcopy(bounds["library"])
    recompute_activations(bounds["recomputed"])
    if shutil.which("g++"):
        bounds["compiled"] = copy.deepcopy(bounds["library"])
        compile_networks(bounds["compiled"])
    actions = {
        name: TrainingStep(bound, lambda bound=bound: bound(x), "bf16")
        for name, bound in bounds.items()
    }
    return medians(interleaved(actions, repeats=sizes.repeats, warmup=WARMUP))


# rollouts ------------------------------------------------------------------------------------


def rollouts(sizes: Sizes) -> dict[str, float]:
    """Frames a second, sampled after given ones, for all sequences at once."""
    pair, x = build("models/slvm_af1.py", sizes)
    pair.eval()
    actions = {
        "sequential": sequential_sampling(pair, x, sizes.horizon),
        "library": sampling(pair, x, sizes.horizon, "float32"),
        "library, bf16": sampling(pair, x, sizes.horizon, "bf16"),
    }
    seconds = medians(interleaved(actions, repeats=sizes.repeats, warmup=WARMUP))
    return {name: sizes.batch * sizes.horizon / value for name, value in seconds.items()}


# import --------------------------------------------------------------------------------------


def imports(sizes: Sizes) -> dict[str, float]:
    """Seconds that a fresh interpreter takes to import."""
    lines = {"torch and pyro": "import torch, pyro", "library": "import pyro_afslvm"}
    lines["library, every name"] = "from pyro_afslvm import *"

    def fresh(line: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", line], check=True)

    actions = {name: fresh(line) for name, line in lines.items()}
    return medians(interleaved(actions, repeats=2 * sizes.repeats))


# the program ---------------------------------------------------------------------------------


def processor() -> dict[str, Any]:
    """Describe what of a processor decides these measurements."""
    flags = Path("/proc/cpuinfo")
    known = flags.read_text().split() if flags.exists() else [platform.machine()]
    return {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": sorted({"avx512_bf16", "amx_bf16"} & {*known}),
    }


def measure(
    sizes: Sizes, sections: Sequence[Section], keep: Callable[[Any], None], before: Any = None
) -> Any:
    """Measure the sections, beside those from ``before``; ``keep`` is called after each.

    Raises:
        ValueError: if those are of another machine, other versions or sizes.
    """
    found: dict[str, Any] = {
        "hardware": hardware() | processor(),
        "versions": software_versions(),
        "sizes": {field.name: getattr(sizes, field.name) for field in fields(sizes)},
        "allocator_of_times": "keeps freed memory" if keep_freed_memory() else "the system's",
    }
    other = [what for what, value in found.items() if before and before.get(what) != value]
    if other:
        raise ValueError(
            f"the file has measurements of other {', '.join(other)}: name another file"
        )
    found = (before or {}) | found
    of_section: dict[Section, Callable[[], Any]] = {
        "steps": lambda: {Path(recipe).stem: steps(recipe, sizes) for recipe in RECIPES},
        "overhead": lambda: overhead(sizes),
        "options": lambda: with_options(sizes),
        "rollout": lambda: rollouts(sizes),
        "memory": lambda: memory(sizes),
        "growth": lambda: growth(sizes.side, repeats=sizes.repeats),
        "import": lambda: imports(sizes),
        "numerics": numerics,
        "training": lambda: training(sizes.steps),
    }
    for section in sections:
        found[section] = of_section[section]()
        keep(found)
    return found


def main() -> int:
    """Read options, measure, print."""
    parser = Parser(prog="speed", description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=list[Section], default=list(SECTIONS), help="sections")
    parser.add_argument(
        "--json",
        type=str | None,
        help="write the measurements here too, beside other sections' there",
    )
    parser.add_class_arguments(Sizes, "sizes")
    options = parser.parse_args()
    return run_program("speed", lambda: benchmark(parser.instantiate(options)))


def benchmark(options: Any) -> None:
    """Measure, write what there is after each section, print the table last."""

    def keep(found: Any) -> None:
        if path:
            write_json(path, found)

    path = Path(options.json) if options.json else None
    before = json.loads(path.read_text()) if path and path.exists() else None
    found = measure(options.sizes, options.only, keep, before)
    print(rows_text(table(found)))


if __name__ == "__main__":
    sys.exit(main())
