"""``afslvm train auto``: recipes for series, the best of which becomes the run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyro_afslvm import recipes
from pyro_afslvm.data import SequenceSource, choose_dequantization
from pyro_afslvm.runs.checkpoint import save_checkpoint
from pyro_afslvm.runs.recipe import Recipe, load_recipe, remember
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.choice import SECONDS, Candidate, Choice, choose
from pyro_afslvm.utils.files import write_atomically
from pyro_afslvm.utils.tables import table_text


def series_recipes(chosen: Sequence[str]) -> list[Recipe]:
    """Load recipes by their names or files, or all that are for series.

    Raises:
        ValueError: where one that is named is not there.
    """
    files = [recipes.resolve(recipe) for recipe in chosen]
    return [load_recipe(file) for file in files or sorted(recipes.folder("series").glob("*.py"))]


def train_auto(
    candidates: Sequence[Recipe], source: SequenceSource, out: Path, settings: TrainSettings
) -> tuple[Run, str]:
    """Try recipes on series, keep the best as a run, and give the table of all.

    Raises:
        ValueError: for data that are no series, or too short.
        RunError: if the folder is in the way.
    """
    dequantization = choose_dequantization(settings.dequantization, source)
    choice = choose(
        candidates,
        source,
        seconds=settings.seconds or SECONDS,
        seed=settings.seed,
        report=lambda recipe: print(f"training {recipe.name}", file=sys.stderr),
    )
    best = choice.best
    resolved = settings.resolved(
        best.recipe.constants, dequantization=dequantization.name, data=source.name
    )
    run = Run.create(out, best.recipe, resolved, source)
    remember(best.recipe)
    _keep(run, best, dequantization)
    return run, _table(choice, dequantization)


def _keep(run: Run, best: Candidate, dequantization: Any) -> None:
    """Write weights and curve as a training of one recipe does."""
    pair, trained = best.pair, best.trained
    curve = [
        (p.step, p.seconds, dequantization.to_nats(p.train), dequantization.to_nats(p.validation))
        for p in trained.curve
    ]
    content = {
        "model": pair.model.state_dict(),
        "guide": None if pair.guide is None else pair.guide.state_dict(),
        "trained": None,
        "optimizer": {},
        "recipe": best.recipe.digest,
        "seconds": trained.curve[-1].seconds,
        "best": dequantization.to_nats(trained.score),
        "since_best": 0,
        "curve": curve,
        "correlations": [],
        "losses": [],
    }
    save_checkpoint(run.best, content | {"step": trained.best.step})
    save_checkpoint(run.last, content | {"step": trained.curve[-1].step})
    rows = ["step,seconds,train_nats_per_dim,validation_nats_per_dim"]
    rows += [f"{step},{s:.3f},{train:.6f},{valid:.6f}" for step, s, train, valid in curve[1:]]
    write_atomically(run.metrics, ("\n".join(rows) + "\n").encode())


def _table(choice: Choice, dequantization: Any) -> str:
    """All that were tried, the best of them, and whether a classical model is better still."""
    trained = sorted(choice.candidates, key=lambda c: c.trained.score, reverse=True)
    rows = [
        [
            c.recipe.name,
            f"{dequantization.to_nats(c.trained.score):.3f}",
            f"{dequantization.to_nats(c.trained.curve[0].validation):.3f}",
            f"{c.trained.best.step} of {c.trained.curve[-1].step}",
            f"{c.trained.curve[-1].seconds:.0f}",
        ]
        for c in trained
    ]
    classical = choice.baselines.by_name
    rows += [
        [name, f"{dequantization.to_nats(value):.3f}"]
        for name, value in sorted(classical.items(), key=lambda item: -item[1])
    ]
    head = ["model", "validation\nnats/dim", "before\ntraining", "best\nstep", "seconds"]
    text = table_text(rows, head=head, rules=[len(trained) - 1])
    given = f"(one step ahead, after {choice.skip} frames of each validation series)"
    lines = [text.rstrip("\n"), given]
    lines += [
        f"{recipe.name} was left out: it needs {length} frames before those it scores"
        for recipe, length in choice.left_out
    ]
    name = choice.best.recipe.name
    if choice.baseline_wins:
        lines.append(f"the baseline wins: {choice.baselines.best} is better than {name}, the best")
    else:
        lines.append(f"best: {name}")
    return "\n".join(lines)
