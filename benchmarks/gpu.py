"""Correctness, speed and memory of the paper's five models on an accelerator.

    python -m benchmarks.gpu --out runs/gpu

Nothing is timed before the device has shown that it computes what the processor does in double
precision, unless `--only` leaves that out. Times that are compared are measured in turn in one
process and are medians; they are written after every section, so that a run that is cut off leaves
what it had. The first compilation of a model takes a minute or more: `--only` and `--recipes`
divide the work.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyro
import torch

from benchmarks.gpu_checks import check, failures, problem
from benchmarks.gpu_steps import Work, ceilings, rollouts, steps
from benchmarks.gpu_table import table
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.data import software_versions
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.files import write_json

Section = Literal["checks", "ceilings", "steps", "rollouts"]
SECTIONS: tuple[Section, ...] = ("checks", "ceilings", "steps", "rollouts")
RECIPES = tuple(f"models/{name}.py" for name in ("af1", "af2", "slvm", "slvm_af1", "slvm_af2"))
Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Args:
        batch_sizes: sequences of a step.
        size: of a frame, in pixels.
        frames: of a sequence that are scored, and of a rollout.
        repeats: of every measurement; the median counts.
        check_batch: sequences on which the device is checked.
        product: rows of the matrices whose product is timed.
    """

    batch_sizes: tuple[int, ...] = (16, 256)
    size: int = 64
    frames: int = 10
    repeats: int = 5
    check_batch: int = 4
    product: int = 8192

    def __post_init__(self) -> None:
        others = ("size", "frames", "repeats", "check_batch", "product")
        check_minimum(**{name: (getattr(self, name), 1) for name in others})
        if not self.batch_sizes or min(self.batch_sizes) < 2:
            raise ValueError("batch_sizes must name batches of at least 2, for batch norm")


def measure(
    recipes: Sequence[str],
    sections: Sequence[Section],
    sizes: Sizes,
    device: torch.device,
    keep: Keep,
    ways: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure the sections; ``keep`` is called with what there is after each step.

    Raises:
        ValueError: if the device computes something else than the processor does.
    """
    found: dict[str, Any] = {
        "device": described(device),
        "versions": software_versions(),
        "sizes": asdict(sizes),
    }
    with pyro.validation_enabled(False):
        if "checks" in sections:
            found["checks"] = {}
            _check(recipes, sizes, device, found, keep)
        if "ceilings" in sections or "steps" in sections:
            frames = sizes.batch_sizes[0] * (sizes.frames + 2)
            found["ceilings"] = ceilings(sizes.product, frames, sizes.size, sizes.repeats, device)
            keep(found)
        for section, of in (("steps", partial(steps, names=ways)), ("rollouts", rollouts)):
            if section in sections:
                found[section] = {}
                _measure(of, recipes, sizes, device, found[section], lambda: keep(found))
    return found


def _check(
    recipes: Sequence[str], sizes: Sizes, device: torch.device, found: dict[str, Any], keep: Keep
) -> None:
    wrong = []
    for recipe in recipes:
        name = Path(recipe).stem
        asked = problem(recipe, batch=sizes.check_batch, size=sizes.size, scored=sizes.frames)
        errors = check(asked, device)
        wrong += failures(name, errors)
        found["checks"][name] = errors
        keep(found)
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"{device.type} is not correct, nothing is timed: {wrong[0]}{more}")


def _measure(
    of: Callable[[Work, int, torch.device], dict[str, Any]],
    recipes: Sequence[str],
    sizes: Sizes,
    device: torch.device,
    found: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    for batch in sizes.batch_sizes:
        for recipe in recipes:
            work = Work(recipe, batch, sizes.size, sizes.frames)
            found.setdefault(Path(recipe).stem, {})[str(batch)] = of(work, sizes.repeats, device)
            keep()


def described(device: torch.device) -> dict[str, Any]:
    """The device, and the libraries it runs with."""
    if device.type != "cuda":
        return {"name": device.type, "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


# the program ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, run, print."""
    parser = Parser(prog="gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=str, required=True, help="folder of gpu.json")
    parser.add_argument("--device", type=Literal["cuda", "cpu"], default="cuda")
    parser.add_argument("--recipes", type=list[str], default=list(RECIPES))
    parser.add_argument("--only", type=list[Section], default=list(SECTIONS), help="these sections")
    parser.add_argument("--ways", type=list[str] | None, help="of a step, by name; default: all")
    parser.add_class_arguments(Sizes, as_group=True)
    options = parser.parse_args(arguments)
    return run_program("gpu", lambda: benchmark(options))


def benchmark(options: Any) -> None:
    """Measure, write, print."""
    sizes = Sizes(**{name: options[name] for name in Sizes.__dataclass_fields__})
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is there; --device cpu runs what does not need one")
    torch.backends.cudnn.benchmark = True
    path = Path(options.out) / "gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    def keep(found: dict[str, Any]) -> None:
        write_json(path, found)
        print(f"measured so far: {', '.join(found)}", file=sys.stderr, flush=True)

    device = torch.device(options.device)
    found = measure(options.recipes, options.only, sizes, device, keep, options.ways)
    print(table(found))


if __name__ == "__main__":
    sys.exit(main())
