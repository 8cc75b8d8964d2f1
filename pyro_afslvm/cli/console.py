"""Programs in a terminal: errors in one line, of options too, and Ctrl-C."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from pyro_afslvm.runs.settings import OLD_NAMES, with_present_names

_OLD_OPTION = re.compile(rf"^--({'|'.join(OLD_NAMES)})(?==|$)")


class Parser(ArgumentParser):
    """A parser of options whose errors are one line."""

    _takes_source = False

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse options, also by the names they had in the release before."""
        given = sys.argv[1:] if args is None else args
        present = [_OLD_OPTION.sub(lambda m: f"--{OLD_NAMES[m[1]]}", text) for text in given]
        if self._takes_source:
            self._define_sources(present)
        return super().parse_args(present, *more, **options)

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

    def _define_sources(self, arguments: Sequence[str]) -> None:
        from pyro_afslvm.cli.sources import define_sources

        try:
            define_sources(arguments)
        except (ValueError, OSError) as error:
            self.error(str(error))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and exit with 2."""
        program = self.prog.split()[0]  # a subcommand's parser names its options too
        print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)

    def instantiate(self, namespace: Namespace, *options: Any, **more: Any) -> Namespace:
        """Make what the options describe; an error says why its class refused the settings."""
        try:
            made: Namespace = super().instantiate(namespace, *options, **more)
            return made
        except ValueError as error:  # which names all types that the option takes first
            raise (error.__cause__ if isinstance(error.__cause__, ValueError) else error) from None


def run_program(name: str, action: Callable[[], None], *, go_on: str = "") -> int:
    """Run a program to its exit code: 2 with one line for an error, 130 for Ctrl-C.

    Args:
        name: of the program, before the message.
        action: the program; a traceback is shown if ``AFSLVM_DEBUG`` is set.
        go_on: what to say after an interruption.
    """
    try:
        action()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted{'; ' + go_on if go_on else ''}", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("AFSLVM_DEBUG"):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        print(f"{name}: error: {reason[0]}", file=sys.stderr)  # Pyro appends shapes to messages
        return 2
    return 0
