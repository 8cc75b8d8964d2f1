"""The ``afslvm`` command: train, evaluate, sample, forecast, report."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pyro_afslvm import recipes
from pyro_afslvm.cli.console import run_program
from pyro_afslvm.cli.parsers import build_parser as build_parser
from pyro_afslvm.data import MovingDigits
from pyro_afslvm.runs.settings import TrainSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 2 for an error of the user's."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    command = COMMANDS[options.subcommand]
    return run_program("afslvm", lambda: command(parser, options), go_on=_go_on(options))


def _train(parser: ArgumentParser, options: Namespace) -> None:
    made = parser.instantiate(options).train
    from pyro_afslvm.cli.prepare import prepare_source, prepared_text
    from pyro_afslvm.cli.workflow import train_run
    from pyro_afslvm.runs.recipe import load_recipe
    from pyro_afslvm.utils.distributed import is_first_process

    if made.recipe == "auto":
        _train_best(made)
        return
    recipe = load_recipe(recipes.resolve(made.recipe))
    out = out_folder(made)
    source = made.data or _source_to_resume(made, out) or MovingDigits()
    prepared = prepare_source(source)
    if prepared and prepared.left_out and is_first_process():
        print(prepared_text(prepared))
    run = train_run(recipe, source, out, _settings(made), resume=made.resume)
    if is_first_process():
        print(f"trained into {run.path}; next: afslvm evaluate {run.path}")


def _train_best(made: Namespace) -> None:
    from pyro_afslvm.cli.auto import series_recipes, train_auto

    if made.data is None or made.resume:
        raise ValueError("auto takes --data, and does not resume")
    out = out_folder(made)
    run, table = train_auto(series_recipes(made.recipes), made.data, out, _settings(made))
    print(table)
    print(f"trained into {run.path}; next: afslvm evaluate {run.path}")


def _source_to_resume(options: Namespace, out: Path) -> Any:
    """The data of the run that is resumed."""
    from pyro_afslvm.runs.run import Run

    if not options.resume or not (out / "settings.json").is_file():
        return None
    return Run.open(out).load_source(recipe=recipes.resolve(options.recipe))


def _recipes(parser: ArgumentParser, options: Namespace) -> None:
    wanted = options.recipes.copy
    if wanted is None:
        for name in recipes.names():
            print(f"{name:<22} {recipes.summary(recipes.find(name))}")
        print("next: afslvm train NAME --data PATH, or afslvm recipes --copy NAME to edit one")
        return
    path = recipes.find(wanted)
    try:
        with open(path.name, "x", encoding="utf-8") as copy:
            copy.write(path.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ValueError(f"{path.name} is there already: rename it first") from None
    print(f"wrote {path.name}; next: afslvm train {path.name} --data PATH")


NOT_OF_RUNS = ("run", "pretrained", "data")  # options that say which run, and on what


def _evaluate(parser: ArgumentParser, options: Namespace) -> None:
    from pyro_afslvm.cli.workflow import evaluate_run
    from pyro_afslvm.report import table_text
    from pyro_afslvm.utils.distributed import is_first_process

    chosen = parser.instantiate(options).evaluate
    run = _opened(chosen)
    evaluate_run(run, source=_prepared(chosen.data), **_without(chosen, *NOT_OF_RUNS))
    if is_first_process():
        print(table_text([run.path]))
        if chosen.pretrained:
            print(_claim_text(run))


def _opened(options: Namespace) -> Any:
    """The run that is named, or a model of the package as one."""
    from pyro_afslvm.runs.run import Run
    from pyro_afslvm.runs.shipped import shipped_names, unpack

    if options.pretrained is not None:
        return unpack(options.pretrained, options.run or Path("runs") / options.pretrained)
    if options.run is None:
        names = ", ".join(shipped_names())
        raise ValueError(f"name a run folder, or one of this package by --pretrained: {names}")
    return Run.open(options.run)


def _claim_text(run: Any) -> str:
    """What a model of the package claims, for the same table."""
    from pyro_afslvm.runs.shipped import claim

    found = claim(run) or {}
    return (
        f"claimed: {found['nats_per_dim']:.3f} ± {found['nats_per_dim_error']:.3f} nats/dim on "
        f"{found['num_sequences']} test sequences of {found['protocol']['data']['name']}"
    )


def _sample(parser: ArgumentParser, options: Namespace) -> None:
    from pyro_afslvm.cli.workflow import sample_run

    chosen = parser.instantiate(options).sample
    run = _opened(chosen)
    gif, png = sample_run(run, source=_prepared(chosen.data), **_without(chosen, *NOT_OF_RUNS))
    print(f"wrote {gif} and {png}")


def _forecast(parser: ArgumentParser, options: Namespace) -> None:
    from pyro_afslvm.cli.series import forecast_run

    chosen = parser.instantiate(options).forecast
    run = _opened(chosen)
    files = forecast_run(run, source=_prepared(chosen.data), **_without(chosen, *NOT_OF_RUNS))
    print(f"wrote {', '.join(map(str, files[:-1]))} and {files[-1]}")


def _report(parser: ArgumentParser, options: Namespace) -> None:
    from pyro_afslvm.cli.workflow import report_runs
    from pyro_afslvm.runs.run import Run

    chosen = parser.instantiate(options).report
    runs = [Run(Path(path)) for path in chosen.runs]
    more: dict[str, Any] = {"source": _prepared(chosen.data), "trust": chosen.trust}
    print(report_runs(runs, Path(chosen.out), recipes=chosen.recipe, **more))
    print(f"wrote {chosen.out}")


def _prepared(source: Any) -> Any:
    """Data that were asked for, prepared where they need that."""
    from pyro_afslvm.cli.prepare import prepare_source

    if source is not None:
        prepare_source(source)
    return source


def _data(parser: ArgumentParser, options: Namespace) -> None:
    DATA_COMMANDS[options.data.subcommand](parser, options)


def _prepare(parser: ArgumentParser, options: Namespace) -> None:
    from pyro_afslvm.cli.prepare import prepare_source, prepared_text
    from pyro_afslvm.data.registry import source_from_config

    source = _one_source(parser.instantiate(options).data.prepare)
    if options.data.prepare.skip_bad:
        if "skip_bad" not in signature(type(source)).parameters:
            raise ValueError(f"{type(source).__name__} has no files to leave out")
        config = source.config()
        source = source_from_config(
            config | {"arguments": config["arguments"] | {"skip_bad": True}}, trust=True
        )
    prepared = prepare_source(source)
    if prepared is None:
        raise ValueError(f"{type(source).__name__} needs no preparing")
    print(prepared_text(prepared))


def _one_source(made: Namespace) -> Any:
    """The source of a path, or of ``--data``."""
    from pyro_afslvm.data.registry import guess_source

    if (made.path is None) == (made.data is None):
        raise ValueError("give either a path or --data")
    return made.data or guess_source(made.path)


def _inspect(parser: ArgumentParser, options: Namespace) -> None:
    from pyro_afslvm.cli.inspect import inspect_data

    made = parser.instantiate(options).data.inspect
    print(
        inspect_data(
            _one_source(made), Path(made.out), num_frames=made.num_frames, limit=made.limit
        )
    )


COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "sample": _sample,
    "forecast": _forecast,
    "recipes": _recipes,
    "report": _report,
    "data": _data,
}
DATA_COMMANDS = {"prepare": _prepare, "inspect": _inspect}


def _settings(options: Namespace) -> TrainSettings:
    return TrainSettings(**{name: options[name] for name in TrainSettings.__dataclass_fields__})


def out_folder(options: Namespace) -> Path:
    """The run folder of a training with these options."""
    if options.out:
        return Path(options.out)
    path = Path(options.recipe)
    with suppress(ValueError, OSError):  # which the command itself will say
        path = recipes.resolve(options.recipe)
    inside = path.parent.parent.name in ("models", "recipes")  # families share names
    family = f"{path.parent.name}_" if inside else ""
    return Path("runs") / f"{family}{path.stem}"


def _without(options: Namespace, *names: str) -> dict[str, Any]:
    return {k: v for k, v in options.as_dict().items() if k not in names}


def _go_on(options: Namespace) -> str:
    if options.subcommand != "train":
        return ""
    return f"go on with the same command and: --out {out_folder(options.train)} --resume"


if __name__ == "__main__":
    sys.exit(main())
