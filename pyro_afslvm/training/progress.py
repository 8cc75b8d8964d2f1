"""Progress bars over a training."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyro_afslvm.utils.progress import progress_bar

if TYPE_CHECKING:
    from pyro_afslvm.training.session import Session

FIRST_STEPS, FIRST_SECONDS = 20, 10.0  # on which the duration is measured
LONG = 3600.0  # seconds that are worth a word
BETWEEN = 0.5  # seconds between looks at the loss, for which an accelerator is waited


@contextmanager
def training_bar(name: str, *, shown: bool = True) -> Iterator[Callable[["Session"], None]]:
    """Show a bar over a training with its speed and figures, and say how long it will take.

    Args:
        name: what is trained; 18 characters of it are shown, so that a line has 80 at most.
        shown: whether to show anything.
    """
    with progress_bar(shown=shown, bar_width=8) as bar:
        task = bar.add_task(f"{name.strip()[:18]:<18}", total=1.0, note="")
        first: tuple[int, float] | None = None
        told, looked = False, -BETWEEN

        def report(session: "Session") -> None:
            nonlocal first, told, looked
            now = time.monotonic()
            first = first or (session.step, session.seconds)  # what comes before warms up
            done, taken = session.step - first[0], session.seconds - first[1]
            if shown and not told and done and (done >= FIRST_STEPS or taken > FIRST_SECONDS):
                told = True
                if not session.is_done:
                    bar.console.print(duration_text(session, taken / done), highlight=False)
            if now - looked < BETWEEN and not session.is_done:
                return
            looked = now
            speed = done / taken if taken > 0 else 0.0
            bar.update(task, completed=_share(session), note=_note(session, speed))

        yield report


def _share(session: "Session") -> float:
    """How much of the budget is spent."""
    seconds, share = session.settings.seconds, session.step / session.steps
    if seconds is not None:
        share = max(share, session.seconds / seconds)
    return min(share, 1.0)


def _note(session: "Session", speed: float) -> str:
    """Speed, loss and the last validation, in 38 characters."""
    note = f"{speed:.3g}/s  " if speed else ""
    note += f"train {session.recent:.3f}"
    if session.curve:
        valid = session.curve[-1][3]
        note += f"  valid {valid:.3f}" if valid == valid else ""
    return note


def duration_text(session: "Session", seconds_per_step: float) -> str:
    """Say how long a training takes on this machine, at most."""
    left = (session.steps - session.step) * seconds_per_step
    if session.settings.seconds is not None:
        left = min(left, session.settings.seconds - session.seconds)
    text = f"{1 / seconds_per_step:.3g} steps/s here: all {session.steps} end in {spoken(left)}"
    if session.settings.patience is not None or session.settings.seconds is not None:
        text = text.replace("end in", "end in at most")
    return text + ("; --steps or --seconds end it earlier" if left > LONG else "")


def spoken(seconds: float) -> str:
    """Put a duration in words.

    Example:
        >>> [spoken(s) for s in (8.2, 300.0, 9000.0, 1.5e6)]
        ['8 s', '5 min', '2.5 h', '17.4 days']
        >>> spoken(0.2)
        'less than a second'
    """
    if seconds < 1:
        return "less than a second"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


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
