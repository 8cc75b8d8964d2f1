"""The iterative guide: what its updates are, and that they help."""

from itertools import pairwise
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_afslvm import SLVM, IterativeGuide, LSTMConditioner, TemporalMixture
from pyro_afslvm.networks import MLPDecoder
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.transforms import AffineParameters
from tests.support.guides import LATENT, PAIRS, SIZE, plain, sequences, system
from tests.support.kalman import build as linear_model
from tests.support.kalman import sequences as linear_sequences

each = pytest.mark.parametrize(("model", "guide"), PAIRS)
LENGTHS = torch.tensor([5, 8, 6])


def test_the_bound_rises_with_the_iterations(float64: None):
    model = linear_model(flow=True)
    data, held_out = linear_sequences(model, 64), linear_sequences(model, 200)
    guide = IterativeGuide(model, iterations=4, hidden=(32,))
    adam = torch.optim.Adam(guide.parameters(), 1e-2)
    for _ in range(150):
        adam.zero_grad()
        Trace_ELBO().differentiable_loss(model, guide, data).backward()
        adam.step()
    bounds = []
    for guide.iterations in range(5):
        pyro.set_rng_seed(0)
        with torch.no_grad():
            terms = bound_terms(model, guide, held_out, num_particles=20)
        bounds.append(terms.bound.sum(-1).mean(0))  # (batch,)
    for fewer, more in pairwise(bounds):
        gain = more - fewer
        assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5


def test_the_gradient_the_iterative_guide_uses_is_that_of_the_bound():
    model, guide = system("vrnn", "iterative")
    y, past = torch.randn(2, SIZE).double(), torch.randn(2, 5).double()
    eps, previous = torch.randn(2, LATENT).double(), torch.randn(2, LATENT).double()
    prior = model.prior.initial_state(torch.Size([2]))
    prior = model.prior.inverse_step(previous, prior, context=past)[2]
    shift, log_scale = torch.randn(2, 2, LATENT).double()
    now = AffineParameters(shift, log_scale)
    found = guide.posterior.conditioner._gradient(now, eps, y, prior, past)

    def bound(shift: Tensor, log_scale: Tensor) -> Tensor:
        z = shift + log_scale.exp() * eps
        p = model.prior.predict(z, prior, context=past).transform
        log_p = torch.distributions.Normal(p.shift, p.log_scale.exp()).log_prob(z).sum()
        location, scale = model.decoder(torch.cat([z, past], -1))
        log_y = torch.distributions.Normal(location, scale).log_prob(y).sum()
        return log_y + log_p + log_scale.sum()  # entropy, but for a constant

    expected = torch.autograd.functional.jacobian(bound, (shift, log_scale))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_no_iterations_is_the_prior():
    model, guide = system("plain", "iterative")
    guide.iterations = 0
    x = sequences()
    z = torch.randn(3, 6, LATENT, dtype=torch.float64)
    batch = model.batch(x)
    torch.testing.assert_close(
        guide.distribution(batch).log_prob(z), model.transition_distribution(batch).log_prob(z)
    )


def test_iterations_work_in_every_mode_of_autograd():
    model, guide = system("plain", "iterative")
    x, found = sequences(), []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        pyro.set_rng_seed(0)
        with mode():
            found.append(Trace_ELBO().loss(model, guide, x))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0] == pytest.approx(found[2], rel=1e-12)


def test_the_posterior_is_searched_again_when_the_model_changed():
    model, guide = system("plain", "iterative")
    batch = model.batch(sequences())
    context = guide.context(batch)
    guide.context = lambda _: context
    with torch.no_grad():
        z = guide.distribution(batch).sample()
        before = guide.distribution(batch).log_prob(z)
        model.decoder.heads.bias.add_(1.0)
        after = guide.distribution(batch).log_prob(z)
    assert (before != after).all()


def test_wrong_iterations():
    with pytest.raises(ValueError, match="at least 0 iterations, got -1"):
        IterativeGuide(plain(), iterations=-1)
    guide = IterativeGuide(plain())
    with pytest.raises(ValueError, match="at least 0 iterations, got -2"):
        guide.iterations = -2
    with pytest.raises(ValueError, match="at least 1 hidden layer"):
        IterativeGuide(plain(), hidden=())


def test_a_prior_without_shift_and_scale_is_refused() -> None:
    prior = TemporalMixture(LSTMConditioner(4, hidden=8, num_parameters=9))
    model = SLVM((2,), 4, prior=prior, decoder=MLPDecoder(4, 2))
    with pytest.raises(TypeError, match="no iterative guide: TemporalMixture is not affine"):
        IterativeGuide(model)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("name", ["JitTrace_ELBO", "JitTraceGraph_ELBO"])
@pytest.mark.parametrize("model", ["plain", "vrnn"])
def test_a_jit_objective_follows_data_and_parameters(name: str, model: str) -> None:
    """It is traced once; nothing of that run is a constant afterwards."""
    pair = system(model, "iterative")
    parameters = [p for part in pair for p in part.parameters()]

    def loss_and_gradients(elbo: Any, x: torch.Tensor) -> Any:
        pyro.set_rng_seed(7)
        loss = elbo.loss_and_grads(*pair, x)
        found = [p.grad.clone() for p in parameters if p.grad is not None]
        for p in parameters:
            p.grad = None
        return loss, found

    jit = getattr(pyro.infer, name)(ignore_jit_warnings=True)
    loss_and_gradients(jit, sequences())
    with torch.no_grad():
        for p in parameters:
            p.add_(0.05 * torch.randn_like(p))
    x = sequences()
    plain = getattr(pyro.infer, name.removeprefix("Jit"))()
    loss, gradients = loss_and_gradients(jit, x)
    expected, of_plain = loss_and_gradients(plain, x)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradients, of_plain)
