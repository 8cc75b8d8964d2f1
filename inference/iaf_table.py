"""Binarized MNIST under diagonal, IAF and ResNet posteriors: bound and log p(x) of each.

    python -m inference.iaf_table --path FOLDER --seconds 1200 --seeds 0 1 2 \
        --out runs/iaf --json iaf.json

Every recipe gets the same budget, of seconds or of steps. A second call goes on where the first
one stopped, so that ``--steps 5000`` and then ``--seconds 1200`` into the same folder give both,
if no recipe takes more than 1200 seconds for 5000 steps.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from inference.image_bounds import Measured, measure_run, training
from inference.seeds import errors_text, metric_text, spread
from inference.table1 import check_different, chosen_settings, hardware, train_into
from pyro_afslvm import metrics
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.cli.workflow import load_run, sample_run
from pyro_afslvm.data import BinarizedMNIST, software_versions
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.contents import read_json
from pyro_afslvm.runs.recipe import Recipe, load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.files import write_json
from pyro_afslvm.utils.tables import table_text

RECIPES = ("models/vae.py", "models/iaf_vae.py", "models/iaf_resnet_vae.py")
UNLIMITED = 10**9  # steps, where seconds are the budget
PAPER = {  # VLB and log p(x) of Table 1, with the full training set of 60,000 digits
    "diagonal": (-84.08, -81.08),
    "IAF 2 x 320": (-82.02, -79.77),
    "IAF 2 x 1920": (-81.17, -79.30),
    "IAF 4 x 1920": (-80.93, -79.17),
    "IAF 8 x 1920": (-80.80, -79.10),
}


# metrics over seeds --------------------------------------------------------------------------


def estimate(values: Sequence[Tensor]) -> dict[str, float | None]:
    """Mean, and errors over images and over seeds, from ``(images,)`` of each seed.

    No standard error is given of fewer than five.
    """
    per_image = torch.stack([*values]).mean(0)
    means = [float(value.mean()) for value in values]
    found = metrics.estimate(per_image)
    error = None if math.isnan(found.error) else found.error
    return {"mean": found.mean, "error_images": error, **spread(means)}


def model_metrics(
    runs: Sequence[Run], found: Sequence[Measured], baseline: Sequence[Measured]
) -> dict[str, Any]:
    """One model's metrics; the gain is over the first model, image by image, seed by seed."""
    pair = load_run(runs[0], source=runs[0].source)[0]
    objectives = [one.objective for one in found]
    pairs = list(zip(found, baseline, strict=True))
    return {
        "name": runs[0].recipe().name,
        "recipe": f"{runs[0].path.name}.py",
        "parameters": pair.num_parameters,
        "vlb": estimate([one.vlb for one in found]),
        "log_p": estimate([one.log_p for one in found]),
        "kl": statistics.fmean(one.kl for one in found),
        "vlb_gain": estimate([one.vlb - first.vlb for one, first in pairs]),
        "log_p_gain": estimate([one.log_p - first.log_p for one, first in pairs]),
        "free_bits_objective": (
            None if None in objectives else statistics.fmean(o for o in objectives if o is not None)
        ),
        "seeds": [
            training(run) | {"vlb": float(one.vlb.mean()), "log_p": float(one.log_p.mean())}
            for run, one in zip(runs, found, strict=True)
        ],
    }


def table(models: Sequence[dict[str, Any]], *, particles: int, images: int) -> str:
    """The table in nats per image, and the paper's."""
    free = any(model["free_bits_objective"] is not None for model in models)
    seeds = len(models[0]["seeds"])
    heads = ["model", "VLB", f"log p, IS {particles}", "VLB gain", "KL", "steps", "seconds"]
    heads += ["parameters", *(["free-bits objective"] if free else [])]
    rows = [_row(model, free) for model in models]
    rows += [[f"paper: {name}", *(f"{v:.2f}" for v in pair)] for name, pair in PAPER.items()]
    note = (
        f"Nats per image over {images} test images; {errors_text('images', seeds)}.\n"
        "The gain is over the first model, on the same images. The paper's rows are from the full\n"
        "training set of 60,000 digits, its test set of 10,000, and larger networks."
    )
    laid_out = table_text(rows, head=heads, rules=[len(models) - 1])
    return f"{laid_out}\n{note}"


def _row(model: dict[str, Any], free: bool) -> list[str]:
    seeds = model["seeds"]
    cells = [
        model["name"],
        _text(model["vlb"]),
        _text(model["log_p"]),
        _text(model["vlb_gain"]),
        f"{model['kl']:.1f}",
        f"{statistics.fmean(seed['train_steps'] for seed in seeds):,.0f}",
        f"{statistics.fmean(seed['train_seconds'] for seed in seeds):,.0f}",
        f"{model['parameters']:,}",
    ]
    objective = model["free_bits_objective"]
    return cells + ([f"{objective:.2f}" if objective is not None else ""] if free else [])


def _text(value: dict[str, float | None]) -> str:
    return metric_text(value | {"error": value["error_images"]}, 2)


# the program ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, train, measure, print."""
    parser = Parser(prog="iaf_table", description=__doc__.split("\n")[0])
    parser.add_argument("--path", type=str | None, help="folder of the MNIST idx files")
    parser.add_argument("--download", action="store_true", help="fetch them, 11 MB")
    parser.add_argument("--validation_size", type=int, default=0, help="images held out for it")
    parser.add_argument("--recipes", type=str, nargs="+", default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="training seeds")
    parser.add_argument("--particles", type=int, default=128, help="of log p(x)")
    parser.add_argument("--samples", type=int, default=8, help="of the bound, for each image")
    parser.add_argument("--images", type=int | None, help="test images; default: all")
    parser.add_argument("--out", type=str, default="runs/iaf", help="folder of the runs")
    parser.add_argument("--json", type=str | None, help="write the metrics here too")
    parser.add_class_arguments(TrainSettings, as_group=True, skip={"seed"})
    options = parser.instantiate(parser.parse_args(arguments))
    go_on = f"the same command goes on from here (the runs are in {options.out})"
    return run_program("iaf_table", lambda: iaf_table(options), go_on=go_on)


def iaf_table(options: Namespace) -> None:
    """Train and measure every recipe with every seed, print the table, write the metrics."""
    check_minimum(particles=(options.particles, 1), samples=(options.samples, 1))
    recipes = [load_recipe(path) for path in options.recipes]
    check_different(recipes, options.seeds)
    source = BinarizedMNIST(
        path=options.path, download=options.download, validation_size=options.validation_size
    )
    x = _test_images(source, options.images)
    found = _found(options, _plan(options, recipes), source, x)
    columns = [tuple(zip(*pairs, strict=True)) for pairs in found.values()]
    models = [model_metrics(runs, measured, columns[0][1]) for runs, measured in columns]
    print(table(models, particles=options.particles, images=len(x)))
    print(f"samples.png and reconstructions.png are in the folders of {options.out}")
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(options.json), _content(options, source, x, models))


def _plan(
    options: Namespace, recipes: Sequence[Recipe]
) -> list[tuple[Recipe, Path, TrainSettings]]:
    """Every training, each of which has its budget still before it."""
    settings = chosen_settings(options)
    if options.seconds is not None and options.steps is None:
        settings["steps"] = UNLIMITED
    plan = [
        (
            recipe,
            Path(options.out) / f"seed{seed}" / recipe.path.stem,
            TrainSettings(seed=seed, **settings),
        )
        for seed in options.seeds
        for recipe in recipes
    ]
    for each in plan:
        check_budget(*each)
    return plan


def _found(
    options: Namespace,
    plan: Sequence[tuple[Recipe, Path, TrainSettings]],
    source: BinarizedMNIST,
    x: Tensor,
) -> dict[str, list[tuple[Run, Measured]]]:
    """Train, measure and sample, as planned; by recipe, over seeds."""
    found: dict[str, list[tuple[Run, Measured]]] = {}
    counts = {"particles": options.particles, "samples": options.samples}
    for recipe, folder, wanted in plan:
        run = train_into(folder, recipe, source, wanted)
        found.setdefault(recipe.path.stem, []).append((run, measure_run(run, source, x, **counts)))
        sample_run(run, source=source)
    return found


def check_budget(recipe: Recipe, folder: Path, settings: TrainSettings) -> None:
    """Refuse a run that has had more than its budget, which the others would not get."""
    run = Run(folder)
    if not run.last.exists():
        return
    last = load_checkpoint(run.last)
    steps = (
        settings.resolved(recipe.constants, dequantization="binary", data="binarized_mnist").steps
        or 0
    )
    if last["step"] > steps:
        raise ValueError(f"{folder} has had {last['step']} steps, more than {steps}: {_INSTEAD}")
    # one that stopped at this very budget is over it by a part of a step
    if settings.seconds not in (None, run.settings.seconds) and last["seconds"] > settings.seconds:
        raise ValueError(
            f"{folder} has had {last['seconds']:.0f} seconds, more than {settings.seconds:g}: "
            + _INSTEAD
        )


_INSTEAD = "take a larger budget or another --out"


def _test_images(source: BinarizedMNIST, limit: int | None) -> Tensor:
    test = source.dataset("test")
    if limit is not None:
        check_minimum(images=(limit, 1))
    return torch.stack([test[i] for i in range(min(limit or len(test), len(test)))])


def _content(
    options: Namespace, source: BinarizedMNIST, x: Tensor, models: list[dict[str, Any]]
) -> dict[str, Any]:
    first = Path(options.out) / f"seed{options.seeds[0]}" / Path(options.recipes[0]).stem
    return {
        "unit": "nats per image",
        "data": source.describe() | {"test_images": len(x)},
        "log_p": f"importance sampling, {options.particles} samples",
        "vlb": f"mean of {options.samples} samples",
        "budget": {"steps": options.steps, "seconds": options.seconds},
        "hardware": hardware() | {"threads": torch.get_num_threads()},
        "versions": software_versions(),
        "training": read_json(first / "settings.json")["training"],
        "models": models,
        "paper": {
            "data": "full training set of 60,000 digits",
            "models": {name: {"vlb": a, "log_p": b} for name, (a, b) in PAPER.items()},
        },
    }


if __name__ == "__main__":
    sys.exit(main())
