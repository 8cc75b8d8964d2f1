"""Programs in a terminal: errors in one line, of options too, and Ctrl-C."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse._paths import Path as ConfigPath

from pyro_afslvm.cli.messages import plain
from pyro_afslvm.cli.printing import print_always
from pyro_afslvm.cli.switches import with_alike_switches
from pyro_afslvm.runs.beside import read_source
from pyro_afslvm.runs.settings import OLD_NAMES, with_present_names

_OLD_OPTION = re.compile(rf"^--({'|'.join(OLD_NAMES)})(?==|$)")


def _commands(action: Any) -> list[str]:
    return [*action.choices] if isinstance(action.choices, dict) else []


class Parser(ArgumentParser):
    """A parser of options whose errors are one line."""

    _takes_source = False
    _program = ""  # of the parser that was called, of which others may parse a part

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse options, also by the names they had in the release before."""
        print_always()
        if self.exit_on_error:  # the parser of an option's settings is a part of another
            Parser._program = self.prog.split()[0]
        given = sys.argv[1:] if args is None else args
        present = [_OLD_OPTION.sub(lambda m: f"--{OLD_NAMES[m[1]]}", text) for text in given]
        bare, valued = _switches(self)
        present = with_alike_switches(present, bare=bare, valued=valued)
        present = source_first(self._guessed(present))
        if self._takes_source:
            self._define_sources(present)
        try:
            with patch.object(ConfigPath, "read_text", _read_text):
                return super().parse_args(present, *more, **options)
        except OSError as error:
            self.error(str(error))

    def parse_string(self, content: str, *more: Any, **options: Any) -> Any:
        """Parse a config file, also with names of the release before."""
        with suppress(yaml.YAMLError):  # which is refused below
            values = yaml.safe_load(content)
            if isinstance(values, dict) and OLD_NAMES.keys() & values.keys():
                content = yaml.safe_dump(with_present_names(values))
        return super().parse_string(content, *more, **options)

    def add_source(self, text: str, **options: Any) -> None:
        """Add ``--data``: a source by its name or import path, and options for its settings.

        One that is not known may be defined by a recipe that the command line names.

        Args:
            text: what the help says of it.
            options: of ``add_subclass_arguments``.
        """
        from pyro_afslvm.data.registry import load_installed
        from pyro_afslvm.data.source import SequenceSource

        load_installed()
        self.add_subclass_arguments(SequenceSource, "data", help=text, **options)
        self._takes_source = True

    def _guessed(self, arguments: Sequence[str]) -> list[str]:
        from pyro_afslvm.cli.sources import with_guessed_sources

        try:
            return with_guessed_sources(arguments)
        except (ValueError, OSError) as error:
            self.error(str(error))

    def _define_sources(self, arguments: Sequence[str]) -> None:
        from pyro_afslvm.cli.sources import define_sources

        try:
            define_sources(arguments)
        except (ValueError, OSError) as error:
            self.error(str(error))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and exit with 2."""
        within = "" if self.exit_on_error else "data"  # the one option with settings of its own
        commands = [name for action in self._actions for name in _commands(action)]
        text = plain(message, options=_option_names(self), within=within, commands=commands)
        print(f"{Parser._program or self.prog.split()[0]}: error: {text}", file=sys.stderr)
        sys.exit(2)

    def instantiate(self, namespace: Namespace, *options: Any, **more: Any) -> Namespace:
        """Make what the options describe; an error says why its class refused the settings."""
        try:
            made: Namespace = super().instantiate(namespace, *options, **more)
            return made
        except ValueError as error:  # which names all types that the option takes first
            raise (error.__cause__ if isinstance(error.__cause__, ValueError) else error) from None


def _read_text(path: ConfigPath) -> str:
    """Read a file of options, which is UTF-8 whatever the locale."""
    try:
        return read_source(Path(path))
    except UnicodeDecodeError:
        raise OSError(f"{path} is not UTF-8") from None


def _switches(parser: argparse.ArgumentParser) -> tuple[set[str], set[str]]:
    """Options of a parser and of its commands that take no value, and that take true or false."""
    bare: set[str] = set()
    valued: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._StoreTrueAction):
            bare |= {*action.option_strings}
        elif getattr(action, "_typehint", None) is bool:
            valued |= {*action.option_strings}
        elif isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                more = _switches(part)
                bare, valued = bare | more[0], valued | more[1]
    return bare, valued


def _option_names(parser: argparse.ArgumentParser, command: str = "") -> list[str]:
    """Names of the options of a parser and of its commands: ``steps``, ``train.steps``."""
    names = [command + name.removeprefix("--") for name in parser._option_string_actions]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                names += _option_names(part, f"{command}{name}.")
    return names


def source_first(arguments: Sequence[str]) -> list[str]:
    """Put ``--data NAME`` before the first of its settings, which the parser has to know first.

    >>> source_first(["r.py", "--data.size", "16", "--data", "MovingDigits"])
    ['r.py', '--data', 'MovingDigits', '--data.size', '16']
    """
    given = list(arguments)
    settings = [i for i, text in enumerate(given) if text.startswith("--data.")]
    places = [i for i, text in enumerate(given) if re.match(r"--data(=|$)", text)]
    if not settings or not places or places[0] < settings[0]:
        return given
    size = 1 if "=" in given[places[0]] else 2
    moved = given[places[0] : places[0] + size]
    del given[places[0] : places[0] + size]
    return given[: settings[0]] + moved + given[settings[0] :]


def run_program(name: str, action: Callable[[], None], *, go_on: str = "") -> int:
    """Run a program to its exit code: 2 with one line for an error, 130 for Ctrl-C.

    Args:
        name: of the program, before the message.
        action: the program; a traceback is shown if ``AFSLVM_DEBUG`` is set.
        go_on: what to say after an interruption.
    """
    print_always()
    try:
        action()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted{'; ' + go_on if go_on else ''}", file=sys.stderr)
        return 130
    except UnicodeEncodeError as error:  # of a file's name: printing has no such errors
        print(
            f"{name}: error: {error.object}: names of files have no such characters in this "
            "locale: set LC_ALL to one of UTF-8, such as C.UTF-8",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("AFSLVM_DEBUG"):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        print(f"{name}: error: {reason[0]}", file=sys.stderr)  # Pyro appends shapes to messages
        return 2
    return 0
