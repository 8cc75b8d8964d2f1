"""Ctrl-C and silence around a training."""

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_afslvm.training.session import Session


ONE_SIGNAL = 2.0  # seconds within which a signal is the same one


@contextmanager
def interruptible(training: "Session") -> Iterator[None]:
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
    """Keep Lightning's advice and banners to itself; its errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
