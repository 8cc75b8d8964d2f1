"""The loop takes the gradients of SVI, clips them together, and stops at what is not finite."""

import math
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from pyro_afslvm import Pair, fit
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.errors import DivergenceError, TrainingError
from pyro_afslvm.training.loop import descend, parameters
from tests.support.guides import sequences, system

SYSTEMS = [
    ("plain", "filtering"),
    ("no-flow", "filtering"),
    ("vrnn", "iterative"),
    ("plain", "smoothing-iaf"),
]


class Keep(torch.optim.SGD):
    """Keeps the gradients of its first step, and moves nothing."""

    kept: list[Tensor] | None = None

    def step(self, closure: None = None) -> None:
        if self.kept is None:
            self.kept = [p.grad.clone() for p in parameters(self)]


def gradients(loss: BoundLoss, x: Tensor, *, clip_norm: float = math.inf) -> list[Tensor]:
    optimizer = Keep(loss.parameters(), 0.1)
    pyro.set_rng_seed(3)
    next(descend(loss, optimizer, [x], clip_norm=clip_norm))
    return optimizer.kept


@pytest.mark.parametrize(
    ("model", "guide", "elbo"),
    [*((*s, Trace_ELBO) for s in SYSTEMS), *((*s, TraceMeanField_ELBO) for s in SYSTEMS[:-1])],
)
def test_gradients_are_those_of_svi(model: str, guide: str, elbo: type) -> None:
    pair, x = system(model, guide), sequences()
    pair.model.train(), pair.guide.train()
    found = gradients(BoundLoss(pair, elbo()), x)
    svi = SVI(pair.model, pair.guide, pyro.optim.SGD({"lr": 0.0}), elbo())
    pyro.set_rng_seed(3)
    svi.loss_and_grads(svi.model, svi.guide, x)
    terms = len(x) * (x.shape[1] - pair.model.context_length)
    expected = [p.grad / terms for part in pair for p in part.parameters()]
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)


def test_all_gradients_are_clipped_together() -> None:
    pair, x = system("plain", "filtering"), sequences()
    whole = torch.cat([g.flatten() for g in gradients(BoundLoss(pair), x)])
    clipped = torch.cat([g.flatten() for g in gradients(BoundLoss(pair), x, clip_norm=0.1)])
    assert whole.norm() > 0.2
    torch.testing.assert_close(clipped, 0.1 * whole / whole.norm(), rtol=1e-4, atol=1e-8)


def test_fit_and_the_command_line_take_the_same_steps() -> None:
    """Both are ``descend``: given the same batches and noise they end with the same weights."""
    one, other, x = system("plain", "filtering"), system("plain", "filtering"), sequences()
    pyro.set_rng_seed(5)
    fit(*one, x, steps=4, batch_size=len(x), learning_rate=1e-2, progress=False)
    loss = BoundLoss(other)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2, fused=True)
    pyro.set_rng_seed(5)
    for _ in descend(loss, optimizer, [x] * 4, clip_norm=1.0):  # all of them, in their order
        pass
    for mine, theirs in zip(BoundLoss(one).parameters(), loss.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_batches_are_asked_for_one_at_a_time() -> None:
    pair, x, drawn = system("plain", "filtering"), sequences(), []

    def batches() -> Iterator[Tensor]:
        while True:
            drawn.append(x)
            yield x

    loss = BoundLoss(pair)
    losses = descend(loss, torch.optim.Adam(loss.parameters()), batches(), clip_norm=1.0)
    for _ in range(3):
        next(losses)
    assert len(drawn) == 3


def test_a_loss_that_is_not_finite_takes_no_step() -> None:
    pair, x = system("plain", "filtering"), sequences()
    loss = BoundLoss(pair)
    before = [p.detach().clone() for p in loss.parameters()]
    bad = x.clone()
    bad[0, -1] = 1e200
    optimizer = torch.optim.Adam(loss.parameters())
    with pytest.raises(DivergenceError, match="at step 7: lower the learning rate") as error:
        list(descend(loss, optimizer, [bad], clip_norm=1.0, first_step=7))
    assert error.value.step == 7
    assert error.value.x is bad
    assert all(torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True))


def test_an_error_that_has_nothing_to_do_with_the_learning_rate_says_so() -> None:
    model, x = system("plain", "filtering").model, sequences()

    def guide(x: Tensor, **_: object) -> None:
        with pyro.plate("sequence", len(x), dim=-1):
            loc = pyro.param("loc", torch.zeros(3, dtype=x.dtype))
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    with pytest.raises(ValueError, match="expected z of shape") as error:
        fit(model, guide, x, steps=1, progress=False)
    assert "learning rate" not in str(error.value)
    assert not isinstance(error.value, TrainingError)


# objectives that take their gradients themselves ------------------------------------------


def test_an_objective_without_a_differentiable_loss_gives_its_own_gradients() -> None:
    pair, x = system("plain", "filtering"), sequences()
    pair.model.train(), pair.guide.train()
    loss = BoundLoss(pair, RenyiELBO(num_particles=2))
    assert not hasattr(RenyiELBO, "differentiable_loss")
    found = gradients(loss, x)
    loss.zero_grad()
    pyro.set_rng_seed(3)
    number = RenyiELBO(num_particles=2).loss_and_grads(*pair, x)
    terms = len(x) * (x.shape[1] - pair.model.context_length)
    for mine, parameter in zip(found, loss.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad / terms, rtol=1e-10, atol=1e-14)
    pyro.set_rng_seed(3)
    assert float(loss(x).detach()) == pytest.approx(number / terms)


def moved(pair: Pair, before: list[Tensor]) -> list[bool]:
    after = [p for part in pair for p in part.parameters()]
    return [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]


def test_a_parameter_of_two_names_is_divided_once() -> None:
    pair, x = system("plain", "filtering"), sequences()
    pair.model.train(), pair.guide.train()

    def guide(x: Tensor, **options: object) -> None:
        pyro.module("shared", pair.model.flow)
        pair.guide(x, **options)

    alone = gradients(BoundLoss(pair, RenyiELBO(num_particles=2)), x)
    shared = gradients(BoundLoss(Pair(pair.model, guide), RenyiELBO(num_particles=2)), x)
    for one, other in zip(alone, shared, strict=False):  # those of the model come first
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_gradients_are_left_to_nobody() -> None:
    pair, x = system("plain", "filtering"), sequences()
    learned = [p for part in pair for p in part.parameters()]
    for parameter in learned:
        parameter.grad = torch.full_like(parameter, 1e9)  # of a training that was cut off
    assert all(g.abs().max() < 1e6 for g in gradients(BoundLoss(pair), x))
    fit(*pair, x, steps=1, progress=False)
    assert all(p.grad is None for p in learned)
    bad = x.clone()
    bad[0, -1] = 1e200
    with pytest.raises(TrainingError):
        fit(*pair, bad, steps=1, elbo=RenyiELBO(num_particles=2), progress=False)
    assert all(p.grad is None for p in learned)


def test_wake_sleep_trains_model_and_guide() -> None:
    pair, x = system("plain", "filtering"), sequences()
    before = [p.detach().clone() for part in pair for p in part.parameters()]
    elbo = ReweightedWakeSleep(num_particles=2, vectorize_particles=False, max_plate_nesting=1)
    result = fit(*pair, x, steps=3, elbo=elbo, progress=False)
    assert result.bound.isfinite().all()
    assert all(moved(pair, before))


# parameters that come to be while the programs run -----------------------------------------


def test_parameters_that_an_automatic_guide_makes_are_trained() -> None:
    model, x = system("plain", "filtering").model, sequences()
    guide = AutoNormal(pyro.poutine.block(model, hide=["x"]))
    fit(model, guide, x, steps=1, batch_size=len(x), progress=False)
    before = [p.detach().clone() for p in guide.parameters()]
    fit(model, guide, x, steps=2, batch_size=len(x), progress=False)
    assert before
    assert all(not torch.equal(a, b) for a, b in zip(before, guide.parameters(), strict=True))


def test_a_parameter_that_comes_late_is_trained_from_then_on() -> None:
    model, x = system("plain", "filtering").model, sequences()
    length, size = x.shape[1] - model.context_length, model.latent_size
    calls = []

    def guide(x: Tensor, **_: object) -> None:
        calls.append(x)
        shape = torch.Size([length, size])
        loc = pyro.param("loc", x.new_zeros(shape))
        scale = x.new_ones(shape)
        if len(calls) > 2:
            scale = pyro.param("scale", x.new_ones(shape), dist.constraints.positive)
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, scale).to_event(2))

    fit(model, guide, x, steps=2, batch_size=len(x), progress=False)
    assert "scale" not in pyro.get_param_store()
    fit(model, guide, x, steps=3, batch_size=len(x), progress=False)
    assert not (pyro.param("scale") == 1).any()
    assert not (pyro.param("loc") == 0).any()


def test_a_network_that_pyro_does_not_know_is_trained() -> None:
    """A plain module that never registers: ``SVI`` would leave it as it is, without a word."""
    model, x = system("plain", "filtering").model, sequences()

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shape = (x.shape[1] - model.context_length, model.latent_size)
            self.loc = nn.Parameter(torch.zeros(shape, dtype=x.dtype))

        def forward(self, x: Tensor, **_: object) -> None:
            with pyro.plate("sequence", len(x), dim=-1):
                pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(2))

    guide = Guide()
    fit(model, guide, x, steps=2, progress=False)
    assert not (guide.loc == 0).any()
