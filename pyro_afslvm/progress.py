"""Progress bars in the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from pyro_afslvm.training_module import Training


def _bar(*, shown: bool = True) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        disable=not shown,
    )


@contextmanager
def training_bar(name: str, *, shown: bool = True) -> Iterator[Callable[["Training"], None]]:
    """A bar over the steps or seconds of a training, with its last validation figure."""
    with _bar(shown=shown) as bar:
        task = bar.add_task(name, total=None, note="")

        def report(training: "Training") -> None:
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


@contextmanager
def counting_bar(name: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar over things that are counted."""
    with _bar(shown=shown) as bar:
        task = bar.add_task(name, total=None, note="")

        def report(done: int, total: int) -> None:
            bar.update(task, total=total, completed=done)

        yield report
