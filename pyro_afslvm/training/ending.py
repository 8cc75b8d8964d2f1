"""What there is to say when a training has ended: its figures, and whether they are any good."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyro_afslvm.evaluation.beside import simple_models
from pyro_afslvm.metrics.beside import figures, verdict
from pyro_afslvm.training.errors import TrainingError

if TYPE_CHECKING:
    from pyro_afslvm.data import SequenceSource
    from pyro_afslvm.training.session import Session

ABSURD = -1000.0  # nats/dim below a copy of the last frame, or of the model's units without one
ENOUGH = 100  # steps, after which absurd figures are a failure
OVERFIT = 0.1  # nats/dim of training above validation, which falls
WORSE = 1.0  # nats/dim that the end may be below the best
Row = tuple[int, float, float, float]


def ending_text(session: "Session", source: "SequenceSource") -> str:
    """Say how a training ended, beside what simple models reach on the same frames.

    Args:
        session: that has ended.
        source: its data.

    Raises:
        TrainingError: if it got nowhere: the figures are absurd to the end.
    """
    held = session.watched.held
    sequences: Any = session.watched.training if held is None else held.dataset
    simple = simple_models(
        source,
        sequences,
        dequantization=session.dequantization,
        scored_frames=session.settings.scored_frames,
    )
    return "\n".join(ending(session.curve, simple, rate=session.settings.learning_rate or 0.0))


def ending(curve: list[Row], simple: Mapping[str, float], *, rate: float = 0.0) -> list[str]:
    """Lines on a curve of training and validation.

    Args:
        curve: step, seconds, nats/dim in training and validation (NaN without one).
        simple: nats/dim of simple models.
        rate: the learning rate, for advice.

    Raises:
        TrainingError: if the best is absurd after a hundred steps or more.

    Example:
        >>> for line in ending([(100, 1.0, -2.0, -2.5), (200, 2.0, -1.0, -2.75)], {"VAR(2)": -2.6}):
        ...     print(line)
        validation -2.750 nats/dim at the end (step 200), best -2.500 (step 100, kept)
        training -1.000 at the end: 1.750 better than validation, so it overfits
        on the same frames: VAR(2) -2.600
    """
    which = 2 if all(math.isnan(row[3]) for row in curve) else 3
    name = "training" if which == 2 else "validation"
    best, last = max(curve, key=lambda row: row[which]), curve[-1]
    _check_not_absurd(best[which], last[0], simple, rate)
    lines = [
        f"{name} {last[which]:.3f} nats/dim at the end (step {last[0]}), best {best[which]:.3f} "
        f"(step {best[0]}, kept)"
    ]
    gap = last[2] - last[3]
    if best[which] - last[which] > WORSE:
        lines.append("it became worse after its best: a lower --learning_rate may go on from there")
    if which == 3:
        overfits = ", so it overfits" if best is not last and gap > OVERFIT else ""
        compared = f"{abs(gap):.3f} {'better' if gap > 0 else 'worse'} than validation"
        lines.append(f"training {last[2]:.3f} at the end: {compared}{overfits}")
    if simple:
        lines.append(f"on the same frames: {figures(simple)}")
    if sentence := verdict("the model", best[which], simple):
        lines.append(f"{sentence}: train longer, or try another recipe")
    return lines


def _check_not_absurd(best: float, step: int, simple: Mapping[str, float], rate: float) -> None:
    if step >= ENOUGH and best < max(simple.values(), default=0.0) + ABSURD:
        raise TrainingError(
            f"training got nowhere: {best:.3g} nats/dim is the best of {step} steps; standardize "
            f"the data (--data.standardize true), or lower the learning rate ({rate:g})"
        )
