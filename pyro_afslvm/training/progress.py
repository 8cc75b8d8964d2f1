"""Progress bars over a training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyro_afslvm.utils.progress import progress_bar

if TYPE_CHECKING:
    from pyro_afslvm.training.session import Session


@contextmanager
def training_bar(name: str, *, shown: bool = True) -> Iterator[Callable[["Session"], None]]:
    """Show a bar over the steps or seconds of a training, with its last validation."""
    with progress_bar(shown=shown) as bar:
        task = bar.add_task(name, total=None, note="")

        def report(session: "Session") -> None:
            seconds = session.settings.seconds
            share = session.step / session.steps
            if seconds is not None:
                share = max(share, session.seconds / seconds)
            note = f"step {session.step}"
            if session.curve:
                _, _, train, valid = session.curve[-1]
                note += f"  train {train:.3f}  validation {valid:.3f} nats/dim"
            bar.update(task, total=1.0, completed=min(share, 1.0), note=note)

        yield report


@contextmanager
def bound_bar(name: str, steps: int, *, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """Show a bar over steps, with the bound at the last of them."""
    with progress_bar(shown=shown) as bar:
        task = bar.add_task(name, total=steps, note="")
        done = 0

        def report(bound: float) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, note=f"{done}/{steps}  bound {bound:.2f}")

        yield report
