"""The options of the ``afslvm`` command and of its subcommands."""

from typing import Literal

from jsonargparse import ArgumentParser

from pyro_afslvm.cli.console import Parser
from pyro_afslvm.runs.settings import TrainSettings


def build_parser() -> ArgumentParser:
    """Make the parser of all subcommands; it imports neither torch nor Lightning."""
    parser = Parser(
        prog="afslvm", description="Sequence models with autoregressive flows across time, in Pyro."
    )
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("train", _train_parser(), help="train a recipe")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="metrics of a run on test data")
    commands.add_subcommand("sample", _sample_parser(), help="rollouts of a run, GIF and PNG")
    forecast = _forecast_parser()
    commands.add_subcommand("forecast", forecast, help="what follows the last observation")
    commands.add_subcommand("recipes", _recipes_parser(), help="list ready recipes, copy one")
    commands.add_subcommand("report", _report_parser(), help="one HTML page of some runs")
    data = Parser(description="Prepare and inspect data before a training.")
    commands.add_subcommand("data", data, help="prepare and inspect data")
    _add_data_commands(data)  # jsonargparse wants the upper level first
    return parser


def _train_parser() -> ArgumentParser:
    parser = Parser(description="Train a recipe: a Python file with a build().")
    parser.add_argument(
        "recipe",
        type=str,
        help="a ready recipe by its name, a file, or auto: the best of some, for series",
    )
    parser.add_argument(
        "--recipes",
        type=str,
        nargs="+",
        default=[],
        help="what auto tries (default: all for series), together for --seconds",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument("--out", type=str | None, help="run folder (default: runs/FOLDER_RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_source("where sequences come from (default: MovingDigits)")
    parser.add_class_arguments(TrainSettings, as_group=True)
    return parser


def _recipes_parser() -> ArgumentParser:
    parser = Parser(description="List the ready recipes, which train takes by name.")
    parser.add_argument("--copy", type=str | None, help="write this one here, to edit")
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = Parser(description="Metrics of a run, kept in its results.json.")
    _add_run(parser)
    parser.add_argument("--num_samples", type=int, default=1, help="samples of the guide")
    parser.add_argument("--limit", type=int | None, help="use only so many sequences")
    parser.add_argument(
        "--windows",
        type=Literal["all", "one", "whole"] | None,
        help="crops of each stored sequence: one, all that do not overlap, or the whole sequence, "
        "whatever its length; default: the data's",
    )
    parser.add_argument("--seed", type=int, default=0, help="of dequantization and samples")
    return parser


def _sample_parser() -> ArgumentParser:
    parser = Parser(description="Sample the futures of test sequences.")
    _add_run(parser)
    parser.add_argument("--num_sequences", type=int, default=4, help="sequences")
    parser.add_argument("--num_samples", type=int, default=3, help="futures of each")
    parser.add_argument("--context", type=int, default=6, help="frames that are given")
    parser.add_argument("--horizon", type=int, default=14, help="frames that are sampled")
    parser.add_argument("--seed", type=int, default=0, help="of dequantization and samples")
    return parser


def _forecast_parser() -> ArgumentParser:
    parser = Parser(description="Forecast series past their last observation: bands and tables.")
    _add_run(parser, split=False)
    parser.add_argument("--horizon", type=int, default=20, help="times that are sampled")
    parser.add_argument("--num_samples", type=int, default=100, help="futures of each series")
    parser.add_argument("--out", type=str | None, help="folder of the files (default: the run's)")
    parser.add_argument("--seed", type=int, default=0, help="of samples")
    return parser


def _report_parser() -> ArgumentParser:
    parser = Parser(description="Tables, curves and pictures of runs in one HTML file.")
    parser.add_argument("runs", type=str, nargs="+", help="run folders")
    parser.add_argument("--out", type=str, default="report.html", help="the HTML file")
    parser.add_argument("--recipe", type=str, nargs="+", default=[], help="your copies of recipes")
    _add_trust(parser)
    return parser


def _add_data_commands(parser: ArgumentParser) -> None:
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("prepare", _prepare_parser(), help="decode files into a store")
    commands.add_subcommand("inspect", _inspect_parser(), help="what is there; would a flow help?")


def _inspect_parser() -> ArgumentParser:
    parser = Parser(description="Show what some data hold, and whether a flow would help on them.")
    parser.add_argument(
        "path", type=str | None, nargs="?", help="file, folder or pattern (or else give --data)"
    )
    parser.add_source("where sequences come from, with settings of its own")
    parser.add_argument("--out", type=str, default="contact_sheet.png", help="the picture to write")
    parser.add_argument("--num_frames", type=int, default=13, help="frames of a crop")
    parser.add_argument("--limit", type=int, default=200, help="crops read from each split")
    return parser


def _prepare_parser() -> ArgumentParser:
    parser = Parser(description="Decode files into a store; a second call goes on.")
    parser.add_argument(
        "path", type=str | None, nargs="?", help="file, folder or pattern (or else give --data)"
    )
    parser.add_source("where sequences come from, such as Videos or KTH")
    parser.add_argument(
        "--skip-bad", "--skip_bad", action="store_true", help="go on without bad files, list them"
    )
    return parser


def _add_run(parser: Parser, *, split: bool = True) -> None:
    parser.add_argument("run", type=str | None, nargs="?", help="run folder")
    parser.add_argument(
        "--pretrained",
        type=str | None,
        metavar="NAME",
        help="a trained model of this package, put into the run folder (default: runs/NAME)",
    )
    if split:
        parser.add_argument("--split", type=str, default="test", help="train, validation or test")
    parser.add_argument("--recipe", type=str | None, help="your copy of the recipe")
    _add_trust(parser)


def _add_trust(parser: Parser) -> None:
    parser.add_argument("--trust", action="store_true", help="execute the recipe in the folder")
    parser.add_source("other data, or where they are now (default: the run's data)")
