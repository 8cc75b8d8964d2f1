"""Search settings of training on any data by validation nats/dim, with Optuna.

    python -m inference.sweep models/small/slvm_af1.py --data MovingDigits --steps 1000 \
        --trials 20 --ranges.learning_rate [1e-4,1e-2] --choices.batch_size [4,8] --out runs/sweep

Trials that lag behind the median of the others are pruned. The same command goes on where it was
interrupted, and several at once share the work. Needs the extra ``sweep``.
"""

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from jsonargparse import Namespace
from optuna import Study, Trial, TrialPruned
from optuna.trial import FrozenTrial, TrialState

from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.data import MovingDigits, SequenceSource
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.recipe import load_recipe
from pyro_afslvm.runs.settings import FREE_TO_CHANGE, TrainSettings
from pyro_afslvm.training.errors import TrainingError
from pyro_afslvm.training.progress import training_bar
from pyro_afslvm.utils.files import write_json

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
ELSEWHERE = {"devices", "num_nodes"}  # a trial is one process
FREE = {*FREE_TO_CHANGE} - {"steps", "seconds", "patience"}  # those decide what a trial finds


@dataclass(frozen=True)
class Search:
    """A search: recipes, data, fixed settings and searched ones.

    Args:
        recipes: paths; if there are several, they are searched too.
        source: where sequences come from.
        settings: of every trial, but for those that are searched.
        ranges: lowest and highest value of settings, on a logarithmic scale if positive.
        choices: values of settings.
        out: folder of the trials' runs and of the study, ``sweep.db``.
    """

    recipes: tuple[str, ...]
    source: SequenceSource
    settings: TrainSettings
    ranges: dict[str, tuple[float, float]]
    choices: dict[str, list[Any]]
    out: Path

    def __post_init__(self) -> None:
        searchable = set(TrainSettings.__dataclass_fields__) - ELSEWHERE
        for name in (*self.ranges, *self.choices):
            if name not in searchable:
                raise ValueError(f"{name} is no setting that can be searched")
        for name, (low, high) in self.ranges.items():
            if not low < high:
                raise ValueError(f"the range of {name} must rise, got {low} to {high}")

    def suggested(self, trial: Trial) -> tuple[str, TrainSettings]:
        """The recipe and the settings of a trial."""
        recipe, found = self.recipes[0], {}
        if len(self.recipes) > 1:
            recipe = trial.suggest_categorical("recipe", self.recipes)
        for name, (low, high) in self.ranges.items():
            found[name] = trial.suggest_float(name, low, high, log=low > 0)
        for name, values in self.choices.items():
            found[name] = trial.suggest_categorical(name, values)
        return recipe, replace(self.settings, **found)

    def described(self) -> dict[str, Any]:
        """Describe what all trials of a study must have in common."""
        settings = {k: v for k, v in asdict(self.settings).items() if k not in FREE}
        recipes = {path: load_recipe(path).digest for path in self.recipes}
        ranges = {name: list(ends) for name, ends in self.ranges.items()}
        searched = {"ranges": ranges, "choices": self.choices}
        return searched | {"settings": settings, "recipes": recipes, "data": self.source.describe()}


def opened(search: Search, *, startup_trials: int) -> Study:
    """The study in the folder, a new one if there is none.

    Raises:
        ValueError: if it is of another search.
    """
    search.out.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{search.out / 'sweep.db'}",
            heartbeat_interval=30,
            grace_period=120,
            heartbeat_stale_trial_callback=again,
        )
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup_trials)
    study = optuna.create_study(
        storage=storage,
        study_name="sweep",
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )
    described = search.described()
    if study.user_attrs.get("search", described) != described:
        raise ValueError(f"{search.out} holds another search: choose another --out")
    study.set_user_attr("search", described)
    return study


def again(study: Study, trial: FrozenTrial) -> None:
    """Queue an interrupted or killed trial, which will go on in its folder."""
    study.enqueue_trial(trial.params, user_attrs={"folder": folder_name(trial)})


def folder_name(trial: Trial | FrozenTrial) -> str:
    """Name of a trial's run in the folder of the sweep."""
    return str(trial.user_attrs.get("folder", f"trial{trial.number}"))


def objective(search: Search, trial: Trial) -> float:
    """Train one trial; the best nats/dim in validation."""
    from pyro_afslvm.training.run import train  # Lightning takes seconds to load

    # a function of the trial's number, so that neither a restart nor a neighbour repeats it
    seed = np.random.SeedSequence([search.settings.seed, trial.number]).generate_state(1)[0]
    trial.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
    path, settings = search.suggested(trial)
    folder = search.out / folder_name(trial)
    begun = (folder / "settings.json").exists()
    with training_bar(f"{folder.name:<25}") as show:
        try:
            report = judged(trial, show)
            recipe = load_recipe(path)
            run = train(recipe, search.source, folder, settings, resume=begun, report=report)
        except TrainingError as error:  # as bad as settings can be
            raise TrialPruned(str(error)) from None
        except KeyboardInterrupt:
            again(trial.study, trial.study.trials[trial.number])
            raise
    return float(load_checkpoint(run.last)["best"])


def judged(trial: Trial, show: Callable[[Any], None]) -> Callable[[Any], None]:
    """Make the function that is called after every step: it shows the training and prunes it."""
    known: set[int] = set()

    def report(training: Any) -> None:
        show(training)
        for step, _, _, valid in training.curve:
            if step in known:
                continue
            if math.isnan(valid):
                raise ValueError("the data have no validation set to choose by")
            known.add(step)
            trial.report(valid, step)
            if trial.should_prune():
                raise TrialPruned(f"at step {step}")

    return report


def sweep(options: Namespace) -> None:
    """Search until there are so many trials; print and write what came of them."""
    search = search_of(options)
    study = opened(search, startup_trials=options.startup_trials)
    enough = optuna.study.MaxTrialsCallback(options.trials, states=DONE)
    if len(study.get_trials(deepcopy=False, states=DONE)) < options.trials:
        study.optimize(lambda trial: objective(search, trial), callbacks=[tell, enough])
    trials = study.get_trials(states=DONE)
    write_json(search.out / "sweep.json", {"trials": [summary(trial) for trial in trials]})
    if not any(trial.state is TrialState.COMPLETE for trial in trials):
        raise ValueError(f"none of {len(trials)} trials came to its end")
    print(f"best of {len(trials)}: {text(study.best_trial)}")
    print(f"next: afslvm evaluate {search.out / folder_name(study.best_trial)}")


def search_of(options: Namespace) -> Search:
    """Make a search of the program's options."""
    names = set(TrainSettings.__dataclass_fields__) - ELSEWHERE
    return Search(
        recipes=tuple(options.recipes),
        source=options.data or MovingDigits(),
        settings=TrainSettings(**{name: options[name] for name in names}),
        ranges=options.ranges,
        choices=options.choices,
        out=Path(options.out),
    )


def tell(study: Study, trial: FrozenTrial) -> None:
    """Print one trial."""
    print(text(trial), flush=True)


def text(trial: FrozenTrial) -> str:
    """One trial in one line."""
    numbers = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in trial.params.items()}
    settings = ", ".join(f"{name} {value}" for name, value in numbers.items())
    value = "" if trial.value is None else f" at {trial.value:.3f} nats/dim"
    return f"{folder_name(trial)} {trial.state.name.lower()}{value}: {settings}"


def summary(trial: FrozenTrial) -> dict[str, Any]:
    """One trial as JSON values."""
    return {
        "folder": folder_name(trial),
        "state": trial.state.name.lower(),
        "nats_per_dim": trial.value,
        "settings": trial.params,
        "curve": {str(step): value for step, value in trial.intermediate_values.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, search, print."""
    parser = Parser(prog="sweep", description=__doc__.split("\n")[0])
    parser.add_argument("recipes", type=str, nargs="+", help="recipes; several are searched too")
    parser.add_argument("--trials", type=int, default=20, help="how many in all")
    parser.add_argument("--startup_trials", type=int, default=5, help="before any is pruned")
    parser.add_argument(
        "--ranges",
        type=dict[str, tuple[float, float]],
        default={"learning_rate": (1e-4, 1e-2)},
        help="from, to",
    )
    parser.add_argument("--choices", type=dict[str, list[Any]], default={}, help="values")
    parser.add_argument("--out", type=str, default="runs/sweep", help="folder of the sweep")
    parser.add_source("where sequences come from")
    parser.add_class_arguments(TrainSettings, as_group=True, skip=ELSEWHERE)
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return run_program(
        "sweep",
        lambda: sweep(parser.instantiate(options)),
        go_on="the same command goes on from here",
    )


if __name__ == "__main__":
    sys.exit(main())
