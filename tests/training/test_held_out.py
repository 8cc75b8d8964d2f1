"""A fit that is validated keeps what is best for sequences held out, and knows when to stop."""

from functools import partial
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from pyro_afslvm import FlowModel, MLPConditioner, TemporalAffine, fit
from pyro_afslvm.training.fit import FitResult, ValidatedFit
from tests.support.guides import sequences, system


def walks(count: int, frames: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, frames, 2, generator=generator).cumsum(1)


def flow() -> FlowModel:
    pyro.set_rng_seed(1)
    return FlowModel(TemporalAffine(MLPConditioner(2, hidden=(64,), window=2, residual=True)), (2,))


def overfit(**options: Any) -> tuple[FlowModel, FitResult]:
    """Four sequences are soon known by heart."""
    model = flow()
    result = fit(model, None, walks(4), steps=300, learning_rate=3e-3, progress=False, **options)
    return model, result


def test_the_best_parameters_are_kept() -> None:
    held = walks(50, seed=1)
    model, result = overfit(validation=held, validate_every=20)
    assert isinstance(result, ValidatedFit)
    steps, bounds = result.validation.unbind(1)
    assert steps.tolist() == [*range(20, 301, 20)]
    assert bounds.argmax() < len(bounds) - 1  # later it is learned by heart
    assert result.best_step == steps[bounds.argmax()]
    with torch.no_grad():
        assert float(model.log_prob(held).mean()) == pytest.approx(float(bounds.max()), rel=1e-5)
    assert len(result.bound) == 300


def test_patience_stops() -> None:
    held = walks(50, seed=1)
    _, whole = overfit(validation=held, validate_every=20)
    _, result = overfit(validation=held, validate_every=20, patience=2)
    assert isinstance(whole, ValidatedFit)
    assert isinstance(result, ValidatedFit)
    stopped = len(result.bound)
    assert stopped < 300
    assert torch.equal(result.validation, whole.validation[: stopped // 20])
    since = result.validation[:, 1][-2:]
    assert (since < result.validation[:, 1].max()).all()
    assert result.best_step == stopped - 40


def test_training_is_the_same_with_and_without() -> None:
    _, plain = overfit()
    _, watched = overfit(validation=walks(9, seed=1), validate_every=50)
    assert not isinstance(plain, ValidatedFit)
    assert torch.equal(plain.bound, watched.bound)


def test_lengths_and_latents_and_arrays() -> None:
    pair, x = system("plain", "filtering"), sequences()
    lengths = torch.full((len(x),), x.shape[1] - 1)
    found = [
        fit(*pair, x, steps=2, validation=held, validate_every=1, progress=False)
        for held in (x.numpy(), (np.asarray(x), lengths, None))
    ]
    assert [result.validation.shape for result in found] == [(2, 2)] * 2


def test_a_schedule_moves_the_learning_rate() -> None:
    seen: list[float] = []

    def one_cycle(optimizer: torch.optim.Optimizer) -> LRScheduler:
        schedule = OneCycleLR(optimizer, max_lr=1e-2, total_steps=11)
        seen.append(schedule.get_last_lr()[0])
        step = schedule.step

        def watched(*args: Any) -> None:
            step(*args)
            seen.append(schedule.get_last_lr()[0])

        schedule.step = watched
        return schedule

    fit(flow(), None, walks(4), steps=10, scheduler=one_cycle, progress=False)
    assert len(seen) == 11
    assert max(seen) == pytest.approx(1e-2, rel=0.05)
    assert seen[-1] < seen[0] < max(seen)


def test_a_plateau_is_that_of_the_validation() -> None:
    made: list[ReduceLROnPlateau] = []

    def plateau(optimizer: torch.optim.Optimizer) -> LRScheduler:
        made.append(ReduceLROnPlateau(optimizer, patience=0))
        return made[0]

    overfit(validation=walks(50, seed=1), validate_every=20, scheduler=plateau)
    assert made[0].get_last_lr()[0] < 3e-3


def test_a_callback_sees_each_step_and_may_stop() -> None:
    seen: list[int] = []

    def watch(step: int, bound: float) -> bool:
        seen.append(step)
        return step == 7

    _, result = overfit(callbacks=[watch, lambda step, bound: None])
    assert seen == [*range(1, 8)]
    assert len(result.bound) == len(result.seconds) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 3}, "pass the sequences of `validation=` too"),
        ({"patience": 0, "validation": walks(2)}, "expected at least 1"),
        ({"validate_every": 0}, "expected at least 1"),
        ({"validation": walks(2)[..., :1]}, "expected x of shape"),
        ({"validation": walks(2) * float("nan")}, "NaN"),
    ],
)
def test_refused_before_the_first_step(options: dict[str, Any], message: str) -> None:
    model = flow()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=message):
        partial(fit, model, None, walks(4), steps=5, progress=False)(**options)
    assert all(map(torch.equal, before, model.parameters()))
