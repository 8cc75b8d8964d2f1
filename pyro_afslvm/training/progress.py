"""A progress bar over a training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_afslvm.training.session import Session
from pyro_afslvm.utils.progress import _bar


@contextmanager
def training_bar(name: str, *, shown: bool = True) -> Iterator[Callable[["Session"], None]]:
    """A bar over the steps or seconds of a training, with its last validation figure."""
    with _bar(shown=shown) as bar:
        task = bar.add_task(name, total=None, note="")

        def report(training: "Session") -> None:
            seconds = training.settings.seconds
            share = training.step / training.steps
            if seconds is not None:
                share = max(share, training.seconds / seconds)
            note = f"step {training.step}"
            if training.curve:
                _, _, train, valid = training.curve[-1]
                note += f"  train {train:.3f}  validation {valid:.3f} nats/dim"
            bar.update(task, total=1.0, completed=min(share, 1.0), note=note)

        yield report
