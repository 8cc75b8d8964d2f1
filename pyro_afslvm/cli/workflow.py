"""Steps with a run folder, for the command line and the programs: train, evaluate, sample."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pyro_afslvm.cli.drawing import draw_samples
from pyro_afslvm.data import SequenceSource, Split
from pyro_afslvm.data.sequences import Windows
from pyro_afslvm.evaluation.metrics import described, evaluate
from pyro_afslvm.evaluation.pictures import pictures
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.contents import read_contents
from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.runs.recipe import Recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.progress import training_bar
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.distributed import is_first_process, joined, own_device
from pyro_afslvm.utils.errors import reason
from pyro_afslvm.utils.files import write_atomically, write_json
from pyro_afslvm.utils.progress import counting_bar

REFUSALS = (ValueError, OSError, RuntimeError, ImportError)


def train_run(
    recipe: Recipe,
    source: SequenceSource,
    out: Path,
    settings: TrainSettings,
    *,
    resume: bool = False,
) -> Run:
    """Train with a progress bar, and print how it ended; see :func:`training.run.train`.

    Raises:
        TrainingError: if the loss became NaN, or the figures are absurd to the end.
    """
    from pyro_afslvm.training.ending import ending_text
    from pyro_afslvm.training.run import train  # Lightning takes seconds to load

    shown = is_first_process()
    ended: list[Any] = []
    with training_bar(recipe.name, shown=shown) as show:

        def report(session: Any) -> None:
            ended[:] = [session]
            show(session)

        run = train(recipe, source, out, settings, resume=resume, report=report)
        for session in ended:
            show(session)  # with the last validation
    if shown and ended and ended[0].learns:
        print(ending_text(ended[0], source))
    return run


def load_run(
    run: Run, *, source: SequenceSource, recipe: str | None = None, trust: bool = False
) -> tuple[Pair, Recipe, dict[str, Any]]:
    """Load the model of a run with its best weights, its recipe, and the checkpoint.

    Raises:
        RecipeError: if the recipe is not one the user ran here, unless trusted.
        RunError: if the checkpoint is missing or damaged.
    """
    run.recipe(given=recipe, trust=trust)  # refused before the data are looked at
    run.take(source)
    if run.weights == run.last and is_first_process():
        print(f"{run.best} is missing: the newest weights are used, {run.last}", file=sys.stderr)
    pair = Pair.load(run.path, recipe=recipe, trust=trust)
    return pair.to(own_device()).eval(), pair.recipe, pair.checkpoint


def evaluate_run(
    run: Run,
    *,
    source: SequenceSource | None = None,
    split: Split = "test",
    num_samples: int = 1,
    limit: int | None = None,
    windows: Windows | None = None,
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
    with told_where(run, source):
        source = source or own_data(run, recipe=recipe, trust=trust)
        pair, known, checkpoint = load_run(run, source=source, recipe=recipe, trust=trust)
        shown = is_first_process()
        bar = counting_bar(f"evaluating {known.name:<14}", shown=shown)
        with joined() as processes, bar as progress:
            results = evaluate(
                pair,
                source,
                split=split,
                scored_frames=run.settings.scored_frames,
                num_samples=num_samples,
                limit=limit,
                windows=windows,
                seed=seed,
                progress=progress,
                processes=processes,
            )
            results |= _training(run, known, best_step=checkpoint["step"])
            if shown:
                write_json(run.results, results)
                _say_what_is_left_out(results)
                _draw_if_possible(run, pair, source, split=split)
    return results


def _say_what_is_left_out(results: dict[str, Any]) -> None:
    """Name stored sequences that are too short to be scored."""
    if not (count := results["num_left_out"]):
        return
    protocol = results["protocol"]
    whole = protocol["windows"] == "whole"
    least = protocol["context_frames"] + (1 if whole else protocol["scored_frames"])
    advice = "" if whole else "; --windows whole scores every frame"
    print(f"{count} sequences of less than {least} frames are not scored{advice}", file=sys.stderr)


def own_data(run: Run, *, recipe: str | None = None, trust: bool = False) -> SequenceSource:
    """Give the data that a run was trained on.

    Raises:
        RunError: they have changed since.
    """
    source = run.load_source(recipe=recipe, trust=trust)
    stored = run.read_settings().get("data")
    if stored is not None and source.describe() != stored:
        raise RunError(
            f"the data of {run.path} are not those it was trained on: give --data to use others "
            "on purpose"
        )
    return source


@contextmanager
def told_where(run: Run, source: SequenceSource | None) -> Iterator[None]:
    """Say what to do where the data that a run names are not there."""
    try:
        yield
    except FileNotFoundError as error:
        if source is not None:
            raise
        raise FileNotFoundError(
            f"{reason(error)} (the data of {run.path}): if they have moved, give --data with their "
            "place"
        ) from None


def _draw_if_possible(run: Run, pair: Pair, source: SequenceSource, **options: Any) -> None:
    """Draw a run whose metrics are there; what cannot be drawn does not spoil them."""
    try:
        draw_run(run, pair, source, **options)
    except (ValueError, RuntimeError, TypeError, LookupError, ArithmeticError) as error:
        run.pictures.unlink(missing_ok=True)  # older ones are of other results
        print(f"{run.path}: no pictures: {reason(error)}", file=sys.stderr)


def _training(run: Run, recipe: Recipe, *, best_step: int) -> dict[str, Any]:
    last = load_checkpoint(run.last if run.last.exists() else run.weights)
    return {
        "name": recipe.name,
        "recipe": recipe.file_name,
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

    The truth is shown as far as a sequence goes, forecasts as far as was asked.

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
    with told_where(run, source):
        source = source or own_data(run, recipe=recipe, trust=trust)
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
    runs: Sequence[Run],
    out: Path,
    *,
    source: SequenceSource | None = None,
    recipes: Sequence[str] = (),
    trust: bool = False,
) -> str:
    """Write the report of some runs, evaluating those that were not; return their tables.

    A run that cannot be evaluated is left out, with a note on the error stream, unless all are.

    Args:
        runs: the runs.
        out: the HTML file.
        source: data to evaluate on, in place of each run's own.
        recipes: of the user's own, one of which may be that of a run.
        trust: execute recipes whoever wrote them.
    """
    from pyro_afslvm.report import table_text, write_report

    paths: list[Path] = []
    refused: list[Exception] = []
    for run in runs:
        try:
            _evaluate_where_needed(run, source, recipes, trust)
            read_contents(run.path, lenient=True)
            paths.append(run.path)
        except (*REFUSALS, LookupError, TypeError, AttributeError) as error:  # of damaged files
            refused.append(error)
            if len(runs) > 1:
                print(f"left out {run.path}: {reason(error)}", file=sys.stderr)
    if refused and not paths:
        raise refused[0]
    for problem in write_report(paths, out):
        print(f"not shown: {problem}", file=sys.stderr)
    return table_text(paths)


def _evaluate_where_needed(
    run: Run, source: SequenceSource | None, recipes: Sequence[str], trust: bool
) -> None:
    """Evaluate a run that was not yet, or not on these data."""
    Run.open(run.path)
    if run.results.exists():
        measured = run.read_results()["protocol"].get("data")
        if source is None:
            return
        run.take(source)
        if measured == described(source):
            return
    fitting = [path for path in recipes if run.was_trained_with(path)]
    if recipes and not fitting and not (trust or run.is_known):
        run.recipe(given=recipes[0])  # which says that it is another
    given = fitting[0] if fitting else None
    evaluate_run(run, source=source, recipe=given, trust=trust)
