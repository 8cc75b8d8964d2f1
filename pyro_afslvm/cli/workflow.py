"""Steps with a run folder, for the command line and the programs: train, evaluate, sample."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_afslvm.cli.drawing import draw_samples
from pyro_afslvm.data import SequenceSource, Split
from pyro_afslvm.evaluation.metrics import evaluate
from pyro_afslvm.evaluation.pictures import pictures
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.runs.checkpoint import RunError, load_checkpoint, load_pair
from pyro_afslvm.runs.recipe import Recipe, build_pair
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.progress import training_bar
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.distributed import is_first_process, joined, own_device
from pyro_afslvm.utils.files import write_atomically, write_json
from pyro_afslvm.utils.progress import counting_bar


def train_run(
    recipe: Recipe,
    source: SequenceSource,
    out: Path,
    settings: TrainSettings,
    *,
    resume: bool = False,
) -> Run:
    """Train with a progress bar; see :func:`pyro_afslvm.training.run.train`."""
    from pyro_afslvm.training.run import train  # Lightning takes seconds to load

    shown = is_first_process()
    with training_bar(f"training {recipe.name:<16}", shown=shown) as report:
        return train(recipe, source, out, settings, resume=resume, report=report)


def load_run(
    run: Run, *, source: SequenceSource, recipe: str | None = None, trust: bool = False
) -> tuple[Pair, Recipe, dict[str, Any]]:
    """Load the model of a run with its best weights, its recipe, and the checkpoint.

    Raises:
        RecipeError: if the recipe is not one the user ran here, unless trusted.
        RunError: if the checkpoint is missing or damaged.
    """
    known = run.recipe(given=recipe, trust=trust)
    checkpoint = load_checkpoint(run.best if run.best.exists() else run.last)
    if checkpoint["recipe"] != known.digest:
        raise RunError(f"the checkpoint in {run.path} is of another recipe than {known.path}")
    pair = build_pair(known, source.frame_shape)
    load_pair(pair, checkpoint)
    return pair.to(own_device()).eval(), known, checkpoint


def evaluate_run(
    run: Run,
    *,
    source: SequenceSource | None = None,
    split: Split = "test",
    num_samples: int = 1,
    limit: int | None = None,
    seed: int = 0,
    recipe: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Evaluate a run on a split: metrics into ``results.json``, pictures into ``pictures.npz``.

    The processes of a distributed run share the work and must all call this; the first of
    them writes, and alone has the correlations. The metrics are those of one process.
    """
    check_minimum(num_samples=(num_samples, 1), seed=(seed, 0))
    if limit is not None:
        check_minimum(limit=(limit, 1))
    source = source or run.load_source(recipe=recipe, trust=trust)
    pair, known, checkpoint = load_run(run, source=source, recipe=recipe, trust=trust)
    shown = is_first_process()
    with joined() as processes, counting_bar(f"evaluating {known.name:<14}", shown=shown) as bar:
        results = evaluate(
            pair,
            source,
            split=split,
            scored_frames=run.settings.scored_frames,
            num_samples=num_samples,
            limit=limit,
            seed=seed,
            progress=bar,
            processes=processes,
        )
        results |= _training(run, known, best_step=checkpoint["step"])
        if shown:
            write_json(run.results, results)
            draw_run(run, pair, source, split=split)
    return results


def _training(run: Run, recipe: Recipe, *, best_step: int) -> dict[str, Any]:
    last = load_checkpoint(run.last)
    return {
        "name": recipe.name,
        "recipe": recipe.path.name,
        "train_seconds": last["seconds"],
        "train_steps": last["step"],
        "best_step": best_step,
        "train_seed": run.settings.seed,
    }


def draw_run(run: Run, pair: Pair, source: SequenceSource, **options: Any) -> dict[str, Any]:
    """Compute the arrays of a run's pictures and keep them."""
    arrays = pictures(pair, source, **options)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(run.pictures, buffer.getvalue())
    return arrays


def sample_run(
    run: Run,
    *,
    source: SequenceSource | None = None,
    split: Split = "test",
    num_sequences: int = 4,
    num_samples: int = 3,
    context: int = 6,
    horizon: int = 14,
    seed: int = 0,
    recipe: str | None = None,
    trust: bool = False,
) -> tuple[Path, Path]:
    """Sample futures of test sequences; write ``rollout.gif`` and ``rollout.png``.

    For single images, ``reconstructions.png`` and ``samples.png`` take their place; for
    vectors, ``rollout.csv`` with all values takes the place of the animation.
    """
    check_minimum(
        num_sequences=(num_sequences, 1),
        num_samples=(num_samples, 1),
        context=(context, 1),
        horizon=(horizon, 1),
        seed=(seed, 0),
    )
    source = source or run.load_source(recipe=recipe, trust=trust)
    pair, _, _ = load_run(run, source=source, recipe=recipe, trust=trust)
    arrays = draw_run(
        run,
        pair,
        source,
        split=split,
        num_sequences=num_sequences,
        num_samples=num_samples,
        context=context,
        horizon=horizon,
        seed=seed,
    )
    return draw_samples(run, arrays)


def report_runs(
    runs: Sequence[Run], out: Path, *, recipe: str | None = None, trust: bool = False
) -> str:
    """Write the report of some runs, evaluating those that were not; return their tables."""
    from pyro_afslvm.report import table_text, write_report

    for run in runs:
        if not run.results.exists():
            evaluate_run(run, recipe=recipe, trust=trust)
    paths = [run.path for run in runs]
    write_report(paths, out)
    return table_text(paths)
