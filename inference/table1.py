"""The paper's Table 1 on any data: train recipes, evaluate them, print the table, write a report.

    python -m inference.table1 --data MovingMNIST --data.path FOLDER --data.size 32 \
        --steps 5000 --out runs/mnist

Every recipe gets the same budget. A second call goes on where the first one stopped.
"""

import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from inference.seeds import errors_text, metric_text, over_seeds
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.cli.workflow import evaluate_run, report_runs, train_run
from pyro_afslvm.data import MovingDigits, SequenceSource, software_versions
from pyro_afslvm.runs.recipe import Recipe, load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.utils.files import write_json
from pyro_afslvm.utils.tables import table_text

SMALL = ("copy_last_frame", "af1", "af2", "slvm", "slvm_af1")
SMALL_RECIPES = tuple(f"models/small/{name}.py" for name in SMALL)


def compare(
    recipes: Sequence[str],
    source: SequenceSource,
    out: Path,
    settings: TrainSettings,
    *,
    num_samples: int = 1,
) -> list[Run]:
    """Train and evaluate each recipe into a folder of its own, going on with what is there."""
    runs = []
    for path in recipes:
        run = train_into(out / Path(path).stem, load_recipe(path), source, settings)
        if not run.results.exists() or run.results.stat().st_mtime < run.last.stat().st_mtime:
            evaluate_run(run, source=source, num_samples=num_samples)
        runs.append(run)
    return runs


def train_into(
    folder: Path, recipe: Recipe, source: SequenceSource, settings: TrainSettings
) -> Run:
    """Train, going on with what is in the folder."""
    begun = (folder / "settings.json").exists()
    return train_run(recipe, source, folder, settings, resume=begun)


def summary(seeds: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Metrics of every run, and their mean over seeds with errors over sequences and seeds."""
    models = []
    for runs in zip(*seeds, strict=True):
        results = [run.read_results() for run in runs]
        models.append(
            {
                "name": results[0]["name"],
                "recipe": f"{runs[0].path.name}.py",
                "parameters": results[0]["parameters"],
                "training": runs[0].read_settings()["training"],
                **{key: _over_seeds(results, key) for key in METRICS},
                "seeds": [_short(run, result) for run, result in zip(runs, results, strict=True)],
            }
        )
    first = seeds[0][0].read_results()
    return {
        "hardware": hardware(),
        "versions": software_versions(),
        "protocol": first["protocol"],
        "protocol_bits": first["protocol_bits"],
        "models": models,
    }


METRICS = (
    "nats_per_dim",
    "bits_per_dim",
    "whole_nats_per_dim",
    "correlation_x",
    "correlation_y",
    "absolute_correlation_y",
    "moving_correlation_y",
    "train_correlation_y",
    "train_steps",
)


def _over_seeds(results: list[dict[str, Any]], key: str) -> dict[str, float | None]:
    values = [result.get(key) for result in results]
    if None in values:
        return {"mean": None, "error": None}
    errors = [result.get(f"{key}_error") for result in results]
    return over_seeds([{"mean": v, "error": e} for v, e in zip(values, errors, strict=True)])


def seeds_table(found: Mapping[str, Any], seeds: int, unit: str) -> str:
    """The means over seeds, with their errors over test sequences and what seeds differ by."""
    columns = {"nats/dim": ("nats_per_dim", 3), "bits/dim": ("bits_per_dim", 3)}
    columns |= {"corr x": ("correlation_x", 2), "corr y": ("correlation_y", 2)}
    rows = [
        [model["name"], *(_cell(model[key], digits) for key, digits in columns.values())]
        for model in found["models"]
    ]
    note = errors_text("sequences" if unit == "sequence" else f"units, each a {unit}", seeds)
    return f"{table_text(rows, head=['over seeds', *columns])}\n{note}"


def _cell(metric: Mapping[str, Any], digits: int) -> str:
    return "–" if metric["mean"] is None else metric_text(metric, digits)


def _short(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    keys = (
        "train_seed",
        "nats_per_dim",
        "nats_per_dim_error",
        "nats_per_dim_unit",
        "bits_per_dim",
        "bits_per_dim_error",
        "bits_per_dim_floor",
        "whole_nats_per_dim",
        "whole_nats_per_dim_error",
        "correlation_x",
        "correlation_y",
        "absolute_correlation_y",
        "moving_correlation_y",
        "train_correlation_y",
        "train_steps",
        "train_seconds",
        "best_step",
        "num_sequences",
        "num_units",
        "unit",
    )
    curve = {
        name: [None if math.isnan(value) else float(value) for value in column]
        for name, column in run.read_curves().items()
    }
    return {key: result.get(key) for key in keys} | {"curve": curve}


def hardware() -> dict[str, Any]:
    """Processor and cores that a time was measured on."""
    return {"processor": _processor(), "cores": os.cpu_count()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((ln.split(":")[1].strip() for ln in lines if ln.startswith("model name")), "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, run, print."""
    parser = Parser(prog="table1", description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", type=list[str], default=list(SMALL_RECIPES))
    parser.add_argument("--seeds", type=list[int], default=[0], help="training seeds")
    parser.add_argument("--out", type=str, default="runs/table1", help="folder of the runs")
    parser.add_argument("--json", type=str | None, help="write the metrics here too")
    parser.add_argument("--num_samples", type=int, default=1, help="samples of the guide")
    parser.add_source("where sequences come from")
    parser.add_class_arguments(TrainSettings, as_group=True, skip={"seed"})
    options = parser.parse_args(arguments)
    go_on = f"the same command goes on from here (the runs are in {options.out})"
    return run_program("table1", lambda: table1(parser.instantiate(options)), go_on=go_on)


def chosen_settings(options: Namespace) -> dict[str, Any]:
    """The settings of training among a program's options, but for the seed."""
    names = [name for name in TrainSettings.__dataclass_fields__ if name != "seed"]
    return {name: options[name] for name in names}


def check_different(recipes: Sequence[Recipe], seeds: Sequence[int]) -> None:
    """Refuse recipes and seeds whose runs would share a folder.

    Raises:
        ValueError: if any two are the same, or there are none.
    """
    names = [recipe.path.stem for recipe in recipes]
    if not names or not seeds:
        raise ValueError(f"expected at least 1 recipe and 1 seed, got {len(names)}, {len(seeds)}")
    if len({*names}) < len(names) or len({*seeds}) < len(seeds):
        raise ValueError(
            "expected recipes of different file names, and different seeds, got "
            f"{', '.join(names)} and {', '.join(map(str, seeds))}"
        )


def table1(options: Namespace) -> None:
    """Train and evaluate for every seed, print the tables, write the reports."""
    check_different([load_recipe(path) for path in options.recipes], options.seeds)
    chosen = chosen_settings(options)
    source, out, seeds = options.data or MovingDigits(), Path(options.out), []
    if source.num_frames == 1:
        raise ValueError(
            f"{source.name} holds single images, and this table is of sequences: see "
            "python -m inference.iaf_table"
        )
    for seed in options.seeds:
        settings = TrainSettings(seed=seed, **chosen)
        folder = out / f"seed{seed}" if len(options.seeds) > 1 else out
        runs = compare(options.recipes, source, folder, settings, num_samples=options.num_samples)
        seeds.append(runs)
        print(report_runs(runs, folder / "report.html"))
        print(f"wrote {folder / 'report.html'}")
    if len(seeds) > 1:
        print(seeds_table(summary(seeds), len(seeds), source.unit))
    if options.json:
        write_json(Path(options.json), summary(seeds))


if __name__ == "__main__":
    sys.exit(main())
