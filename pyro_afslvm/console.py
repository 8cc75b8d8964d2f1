"""Ctrl-C and silence around a training."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_afslvm.training import Training


@contextmanager
def interruptible(training: "Training") -> Iterator[None]:
    """Let the first Ctrl-C end the step, validate and save; a second one ends at once."""

    def stop(*_: object) -> None:
        if training.interrupted:
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
