"""Progress bars in the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


def progress_bar(*, shown: bool = True, bar_width: int = 24) -> Progress:
    """Make a bar with a description before it and, as ``note``, a text behind it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=bar_width),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        disable=not shown,
    )


@contextmanager
def counting_bar(name: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar over things that are counted."""
    with progress_bar(shown=shown) as bar:
        task = bar.add_task(name, total=None, note="")

        def report(done: int, total: int) -> None:
            bar.update(task, total=total, completed=done)

        yield report
