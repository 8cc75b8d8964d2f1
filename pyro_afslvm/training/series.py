"""Training of small models on whole series: every frame counts, and validation decides."""

import copy
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.models.base import context_length
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.models.series import estimate_series
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.averaging import running_average
from pyro_afslvm.training.loop import descend
from pyro_afslvm.transforms.least_squares import Series
from pyro_afslvm.utils.seeding import Stream, seed_step

PARTICLES = 8  # of a model with latents in validation
VALIDATIONS = 60  # at least so many in a training


class Padded(NamedTuple):
    """Series as one batch."""

    x: Tensor  # (batch, T, D), zero after the end of a series
    lengths: Tensor  # (batch,)
    context: Tensor | None  # (batch, T, context_features)


class Progress(NamedTuple):
    """Course of a training, at each validation; nats per dimension."""

    step: int
    seconds: float
    train: float
    validation: float


class Trained(NamedTuple):
    """What came of a training: the best weights are those of the pair."""

    curve: list[Progress]
    best: Progress

    @property
    def score(self) -> float:
        """Nats per dimension of the validation data."""
        return self.best.validation


def padded(series: Series) -> Padded:
    """Put series of unequal lengths into one batch."""
    longest = max(len(x) for x, _ in series)

    def fill(x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 0, 0, longest - len(x)))

    known = [fill(c) for _, c in series if c is not None]
    return Padded(
        torch.stack([fill(x) for x, _ in series]),
        torch.tensor([len(x) for x, _ in series]),
        torch.stack(known) if known else None,
    )


def crops(
    series: Series, *, context: int, frames: int, batch_size: int, seed: int
) -> Iterator[Padded]:
    """Batches without end of crops with up to ``frames`` after the first ``context`` ones.

    A series is drawn as often as it has frames to score, and is whole if it has no more.
    """
    generator = torch.Generator().manual_seed(seed)
    scored = torch.tensor([max(0, len(x) - context) for x, _ in series])
    while True:
        chosen = torch.multinomial(scored.double(), batch_size, True, generator=generator)
        part = []
        for i in chosen.tolist():
            x, known = series[i]
            room = max(1, int(scored[i]) - frames + 1)
            first = int(torch.randint(room, (), generator=generator))
            rows = slice(first, first + context + frames)
            part.append((x[rows], None if known is None else known[rows]))
        yield padded(part)


@torch.no_grad()
def score(pair: Pair, series: Series, *, skip: int, seed: int = 0) -> float:
    """Mean nats per frame (of a model with latents, its bound) after the first ``skip`` frames.

    Raises:
        ValueError: if the model is given more frames than these, or no series has more.
    """
    given = context_length(pair.model)
    if given > skip:
        raise ValueError(f"the model is given {given} frames, and scoring starts after {skip}")
    held = [
        (x[skip - given :], None if c is None else c[skip - given :])
        for x, c in series
        if len(x) > skip
    ]
    if not held:
        raise ValueError(f"no series has more than {skip} frames")
    seed_step(seed, 0, Stream.VALIDATION)
    batch = padded(held)
    terms = bound_terms(
        pair.model,
        pair.guide,
        batch.x,
        num_particles=PARTICLES,
        lengths=batch.lengths,
        context=batch.context,
    )
    return float(terms.bound.sum() / len(terms.bound) / (batch.lengths - given).sum())


def train_series(
    pair: Pair,
    train: Series,
    validation: Series,
    *,
    skip: int,
    seconds: float = 30.0,
    steps: int = 3000,
    batch_size: int = 32,
    frames: int = 32,
    learning_rate: float = 2e-3,
    average: float = 0.99,
    clip_norm: float = 1.0,
    seed: int = 0,
) -> Trained:
    r"""Train a model on series, and leave it with the weights that were best in validation.

    The linear part is set in closed form first; the model as it then is, before any step, is the
    first that is validated. Adam's rate falls as a cosine over the steps or the seconds, whatever
    is spent first, and running averages of the weights are validated.

    Args:
        pair: model and guide.
        train: frames and covariates of each series to learn from, of any lengths.
        validation: of each to choose by.
        skip: frames at the start of a validation series that are not scored.
        seconds: to spend on steps and validations.
        steps: at most.
        batch_size: crops in a step.
        frames: scored in a crop at most.
        learning_rate: of Adam.
        average: decay of the averages.
        clip_norm: largest norm of a gradient.
        seed: of crops, and of latents.

    Raises:
        ValueError: where series are too short.
        DivergenceError: if the bound is not finite.
    """
    given, size = context_length(pair.model), train[0][0].shape[-1]
    if max(len(x) for x, _ in train) <= given:
        raise ValueError(f"expected training series of more than {given} frames")
    estimate_series(pair.model, train, validation)
    loss = BoundLoss(pair)
    mean = running_average(loss, average)
    optimizer = torch.optim.Adam(loss.parameters(), learning_rate, fused=True)
    start, curve, since = time.perf_counter(), list[Progress](), list[float]()

    def validate(step: int) -> Progress:
        held = mean.module.eval()
        assert isinstance(held, BoundLoss)
        value = score(Pair(held.model, held.guide), validation, skip=skip, seed=seed) / size
        fitted = sum(since) / max(1, len(since))
        return Progress(step, time.perf_counter() - start, -fitted / size, value)

    best, weights = validate(0), copy.deepcopy(loss.state_dict())
    curve.append(best)
    # a validation costs what it costs: as many as there is time for, but a few at least
    interval = max(1, min(50, steps // VALIDATIONS))
    batches = crops(train, context=given, frames=frames, batch_size=batch_size, seed=seed)
    for step, value in enumerate(descend(loss, optimizer, batches, clip_norm=clip_norm), 1):
        mean.update_parameters(loss)
        since.append(float(value))
        spent = max(step / steps, (time.perf_counter() - start) / seconds)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _cosine(spent) * min(1.0, step / 50)
        if step % interval == 0 or spent >= 1:
            curve.append(validate(step))
            since.clear()
            if curve[-1].validation > best.validation:
                best, weights = curve[-1], copy.deepcopy(mean.module.state_dict())
        if spent >= 1:
            break
    loss.load_state_dict(weights)
    loss.eval()
    return Trained(curve, best)


def _cosine(spent: float) -> float:
    return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(1.0, spent)))))
