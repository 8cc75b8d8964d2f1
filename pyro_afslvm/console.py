"""Errors in one line, of options too; Ctrl-C, and silence around a training."""

import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from pyro_afslvm.training_module import Training

ONE_SIGNAL = 2.0  # seconds within which a signal is the same one


class Parser(ArgumentParser):
    """A parser of options whose errors are one line."""

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


@contextmanager
def interruptible(training: "Training") -> Iterator[None]:
    """Let the first Ctrl-C end the step and save; one that comes later ends at once."""
    first = math.inf

    def stop(*_: object) -> None:
        nonlocal first
        first = min(first, time.monotonic())
        # the terminal sends it to all processes, and torchrun passes it on: that is one
        if time.monotonic() > first + ONE_SIGNAL:
            raise KeyboardInterrupt
        training.interrupted = True

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # only the main thread may
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice; its errors still come through."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        try:
            yield
        finally:
            logger.setLevel(level)
