"""The same model under several guides and priors: which bound, at which price.

    python -m inference.swap_guides --steps 2000 --seeds 0 1 2 --out runs/guides --json guides.json

Every recipe gets the same budget. With ``--model RUN`` the model of that run stays as it is and
each guide is trained on it afresh, so that only the guides differ. A second call goes on where
the first one stopped.
"""

import itertools
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor, nn

from inference import bounds
from inference.bounds import Bounds, Scored
from inference.fixed_model import check_same_model, fixed_model
from inference.table1 import check_different, chosen_settings, hardware, train_into
from pyro_afslvm import Pair
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.cli.workflow import load_run
from pyro_afslvm.data import (
    Dequantization,
    MovingDigits,
    Protocol,
    SequenceSource,
    choose_dequantization,
    software_versions,
)
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.contents import read_json
from pyro_afslvm.runs.recipe import Recipe, build_pair, load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.files import write_json
from pyro_afslvm.utils.progress import counting_bar

GUIDES = ("slvm_af1", "slvm_af1_smoothing", "slvm_af1_iaf", "slvm_af1_iterative")
RECIPES = tuple(f"models/small/{name}.py" for name in (*GUIDES, "slvm_af1_flow_prior"))
NEW_GUIDES = tuple(f"models/small/{name}.py" for name in GUIDES)  # of one and the same model


@dataclass(frozen=True)
class Comparison:
    """Test frames and settings that all guides are measured with."""

    source: SequenceSource
    dequantization: Dequantization
    scored: Scored
    scored_frames: int
    particles: int

    @property
    def x(self) -> Tensor:
        """The frames, ``(N, T, *frame_shape)``."""
        return self.scored.x

    @property
    def dims(self) -> int:
        """Scored entries of a sequence."""
        return self.scored_frames * math.prod(self.source.frame_shape)

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of the bounds, as JSON values."""
        protocol = Protocol(
            data=self.source.describe(),
            split="test",
            context_frames=self.x.shape[1] - self.scored_frames,
            scored_frames=self.scored_frames,
            noise=self.dequantization.name,
            num_samples=self.particles,
            bound=f"ELBO, IWAE-{self.particles}, SMC-{self.particles}",
            seed=0,
            versions=software_versions(),
            windows=self.scored.windows,
        )
        return dict(json.loads(protocol.to_json())) | {"sequences": len(self.x)}


# training ------------------------------------------------------------------------------------


def train_guides(
    recipes: Sequence[Recipe],
    source: SequenceSource,
    folder: Path,
    settings: TrainSettings,
    *,
    fixed: Pair | None = None,
) -> list[Run]:
    """Train each recipe into a folder of its own, going on with what is there."""
    runs = []
    for recipe in recipes:
        out = folder / recipe.path.stem
        if fixed is not None:
            check_same_model(Run(out), fixed)
        runs.append(train_into(out, recipe, source, settings))
    return runs


# metrics -------------------------------------------------------------------------------------


def measure_run(run: Run, recipe: Recipe, comparison: Comparison) -> tuple[Bounds, Pair]:
    """Measure the bounds of a run, kept in its ``bounds.json``."""
    pair, _, checkpoint = load_run(run, source=comparison.source, recipe=str(recipe.path))
    wanted = {"protocol": comparison.protocol, "step": checkpoint["step"]}
    kept = run.path / "bounds.json"
    if kept.exists() and kept.stat().st_mtime >= _weights(run).stat().st_mtime:
        stored = read_json(kept)
        if {name: stored.get(name) for name in wanted} == wanted:
            return Bounds(
                **{k: torch.tensor(v).double() for k, v in stored["bounds"].items()}
            ), pair
    with counting_bar(f"measuring {recipe.name:<15}") as progress:
        found = bounds.measure(
            pair, comparison.x, particles=comparison.particles, progress=progress
        )
    bounds.check_possible(found, comparison.dequantization, comparison.dims)
    write_json(kept, wanted | {"bounds": {k: v.tolist() for k, v in found._asdict().items()}})
    return found, pair


def _weights(run: Run) -> Path:
    return run.best if run.best.exists() else run.last


def metrics_of_seed(
    runs: Sequence[Run], recipes: Sequence[Recipe], comparison: Comparison
) -> list[dict[str, Any]]:
    """Metrics of every guide trained with one seed."""
    measured = [measure_run(*each, comparison) for each in zip(runs, recipes, strict=True)]
    return [
        {
            "name": recipe.name,
            "recipe": recipe.path.name,
            "parameters": {"model": _count(pair.model), "guide": _count(pair.guide)},
            "train_seed": run.settings.seed,
            **_training(run),
            **bounds.metrics(
                found,
                measured[0][0],
                dequantization=comparison.dequantization,
                dims=comparison.dims,
                units=comparison.scored.units,
            ),
        }
        for run, recipe, (found, pair) in zip(runs, recipes, measured, strict=True)
    ]


def _count(part: nn.Module | None) -> int:
    return sum(p.numel() for p in part.parameters()) if part is not None else 0


def _training(run: Run) -> dict[str, Any]:
    """Steps, and seconds of them without validation."""
    last = load_checkpoint(run.last)
    times = [(0, 0.0), *((row[0], row[1]) for row in last["curve"])]
    pace = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(times)]
    return {
        "train_steps": last["step"],
        "train_seconds": last["seconds"],
        "seconds_per_step": statistics.median(pace),
        "best_step": load_checkpoint(_weights(run))["step"],
        "curve": {
            "step": [row[0] for row in last["curve"]],
            "nats_per_dim": [None if math.isnan(row[3]) else row[3] for row in last["curve"]],
        },
    }


def summary(seeds: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One entry for each guide: means over seeds, and the metrics of each."""
    guides = []
    for rows in zip(*seeds, strict=True):
        shared = ("name", "recipe", "parameters")
        times = {
            key: {"mean": statistics.fmean(row[key] for row in rows)}
            for key in ("train_steps", "train_seconds", "seconds_per_step")
        }
        alone = [{k: v for k, v in row.items() if k not in shared} for row in rows]
        guides.append(
            {key: rows[0][key] for key in shared}
            | bounds.over_seeds(rows)
            | times
            | {"seeds": alone}
        )
    return guides


# the program ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, train, measure, print."""
    parser = Parser(prog="swap_guides", description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", type=str, nargs="+", help="default: five small ones")
    parser.add_argument("--model", type=str | None, help="a run whose model stays as it is")
    parser.add_argument("--trust", action="store_true", help="execute the recipe in that run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="training seeds")
    parser.add_argument("--sequences", type=int, default=50, help="test sequences")
    parser.add_argument("--particles", type=int, default=64, help="of the tighter bounds")
    parser.add_argument("--out", type=str, default="runs/swap_guides", help="folder of the runs")
    parser.add_argument("--json", type=str | None, help="write the metrics here too")
    parser.add_source("where sequences come from")
    parser.add_class_arguments(TrainSettings, as_group=True, skip={"seed"})
    options = parser.parse_args(arguments)
    go_on = f"the same command goes on from here (the runs are in {options.out})"
    return run_program("swap_guides", lambda: swap_guides(parser.instantiate(options)), go_on=go_on)


def swap_guides(options: Namespace) -> None:
    """Train and measure for every seed, print the table, write the metrics."""
    check_minimum(sequences=(options.sequences, 1), particles=(options.particles, 1))
    settings = chosen_settings(options)
    recipes = [load_recipe(path) for path in options.recipes or _default(options)]
    check_different(recipes, options.seeds)
    source, fixed = _source_and_model(options)
    comparison = _comparison(options, source, settings["dequantization"])
    if fixed is not None:
        recipes = [fixed_model(recipe, fixed, source.frame_shape) for recipe in recipes]
    for recipe in recipes:  # before any of them is trained
        pair = build_pair(recipe, source.frame_shape)
        bounds.check_scored(pair, recipe.name, comparison.scored_frames)
    seeds = []
    for seed in options.seeds:
        trained = TrainSettings(seed=seed, **settings)
        folder = Path(options.out) / f"seed{seed}"
        runs = train_guides(recipes, source, folder, trained, fixed=fixed)
        seeds.append(metrics_of_seed(runs, recipes, comparison))
    guides = summary(seeds)
    unit = "sequences" if source.unit == "sequence" else f"their units, each a {source.unit}"
    print(bounds.table(guides, particles=options.particles, seeds=len(seeds), units=unit))
    if options.json:
        content = {
            "hardware": hardware() | {"threads": torch.get_num_threads()},
            "versions": software_versions(),
            "protocol": comparison.protocol,
            "training": runs[0].read_settings()["training"],
            "fixed_model": None if fixed is None else Path(options.model).name,
            "errors": "over sequences, or their units; error_seeds, low and high over seeds",
            "guides": guides,
        }
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(options.json), content)


def _default(options: Namespace) -> Sequence[str]:
    return RECIPES if options.model is None else NEW_GUIDES


def _source_and_model(options: Namespace) -> tuple[SequenceSource, Pair | None]:
    if options.model is None:
        return options.data or MovingDigits(size=32, background="photo"), None
    run = Run.open(options.model)
    source = options.data or run.load_source(trust=options.trust)
    return source, load_run(run, source=source, trust=options.trust)[0]


def _comparison(options: Namespace, source: SequenceSource, asked: str | None) -> Comparison:
    dequantization, scored = choose_dequantization(asked, source), options.scored_frames
    given = crop_length(nn.Module(), scored)
    found = bounds.frames_to_score(
        source, dequantization, sequences=options.sequences, num_frames=given, seed=0
    )
    return Comparison(source, dequantization, found, scored, options.particles)


if __name__ == "__main__":
    sys.exit(main())
