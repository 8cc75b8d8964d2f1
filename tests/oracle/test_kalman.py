"""Bounds on a linear-Gaussian SLVM against its evidence, which a Kalman filter gives."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_afslvm.objectives import bound_terms
from tests.support.kalman import (
    STEPS,
    Chain,
    bounds,
    build,
    dense,
    divergence,
    evidence,
    exact_pair,
    exact_posterior,
    kalman,
    log_normal,
    moments,
    noise,
    plain_guide,
    random_guide,
    sequences,
    smoother,
    system,
)

pytestmark = pytest.mark.usefixtures("float64")


# ---- the oracle against the dense joint Gaussian ----


def test_the_kalman_filter_is_the_dense_gaussian() -> None:
    model = build()
    s, y = system(model), sequences(model)
    covariance, emission = dense(s, STEPS)
    noise_covariance = torch.block_diag(*[s.R] * STEPS)
    flat = y.flatten(1)
    of_y = emission @ covariance @ emission.T + noise_covariance
    torch.testing.assert_close(
        kalman(s, y).log_evidence, log_normal(flat, torch.zeros(()), of_y), rtol=1e-10, atol=0
    )
    gain = covariance @ emission.T @ of_y.inverse()
    mean, posterior_covariance = moments(exact_posterior(s, y))
    torch.testing.assert_close(mean, flat @ gain.T, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        posterior_covariance, covariance - gain @ emission @ covariance, rtol=1e-9, atol=1e-10
    )


def test_the_smoother_has_the_marginals_of_the_chain() -> None:
    model = build()
    s, y = system(model), sequences(model)
    means, covariances = smoother(s, y)
    mean, covariance = moments(exact_posterior(s, y))
    torch.testing.assert_close(mean.reshape(means.shape), means)
    size = means.shape[-1]
    for t in range(STEPS):
        block = slice(t * size, (t + 1) * size)
        torch.testing.assert_close(covariance[block, block], covariances[t])


def test_the_flow_in_front_is_the_dense_gaussian() -> None:
    model = build(flow=True)
    s, x = system(model), sequences(model)
    F, scale = model.flow.conditioner.matrix, model.flow.conditioner.log_scale.exp()
    root = torch.zeros(STEPS * 3, STEPS * 3)
    for t in range(STEPS):
        root[3 * t : 3 * t + 3, 3 * t : 3 * t + 3] = torch.diag(scale)
        if t:
            root[3 * t : 3 * t + 3] += F @ root[3 * t - 3 : 3 * t]
    covariance, emission = dense(s, STEPS)
    of_y = emission @ covariance @ emission.T + torch.block_diag(*[s.R] * STEPS)
    y, log_det = noise(model, x)
    expected = log_normal(x.flatten(1), torch.zeros(()), root @ of_y @ root.T)
    torch.testing.assert_close(kalman(s, y).log_evidence - log_det, expected, rtol=1e-9, atol=0)


def test_the_library_samples_the_model_of_the_oracle() -> None:
    model, n = build(flow=True), 20_000
    y, _ = noise(model, sequences(model, batch=n))
    s = system(model)
    covariance, emission = dense(s, STEPS)
    expected = emission @ covariance @ emission.T + torch.block_diag(*[s.R] * STEPS)
    y = y.flatten(1)
    products = y.unsqueeze(2) * y.unsqueeze(1)
    assert ((products.mean(0) - expected).abs() < 5 * products.std(0) / n**0.5).all()


# ---- the bound ----


@pytest.mark.parametrize("flow", [False, True])
def test_the_bound_of_a_random_guide_is_below_the_evidence(flow: bool) -> None:
    model = build(flow=flow)
    x, n = sequences(model), 1000
    log_evidence = evidence(model, x)
    for seed in range(20):
        samples = bounds(model, random_guide(model, seed), x, n)
        assert (samples.mean(0) <= log_evidence + 4 * samples.std(0) / n**0.5).all()


def test_the_samples_are_those_of_trace_elbo() -> None:
    model = build(flow=True)
    x, n = sequences(model), 50
    guide = random_guide(model, 0)
    elbo = Trace_ELBO(num_particles=n, vectorize_particles=True, max_plate_nesting=1)
    pyro.set_rng_seed(9)
    loss = elbo.loss(model, guide, x)
    pyro.set_rng_seed(9)
    assert -loss == pytest.approx(bounds(model, guide, x, n).mean(0).sum().item(), rel=1e-10)


@pytest.mark.parametrize("flow", [False, True])
def test_the_gap_is_the_divergence_of_the_guide(flow: bool) -> None:
    model = build(flow=flow)
    x, n = sequences(model), 20_000
    exact = exact_posterior(system(model), noise(model, x)[0])
    for seed in range(5):
        pyro.set_rng_seed(seed)
        chain = Chain(
            exact.K + 0.1 * torch.randn_like(exact.K),
            exact.b + 0.2 * torch.randn_like(exact.b),
            exact.L * torch.empty(STEPS, 1, 1).uniform_(0.7, 1.3),
        )
        gap = divergence(chain, exact)
        assert (gap > 0.05).all()
        samples = bounds(model, plain_guide(chain), x, n)
        error = samples.std(0) / n**0.5
        assert ((samples.mean(0) - (evidence(model, x) - gap)).abs() < 4 * error).all()
        assert (samples.mean(0) + 4 * error < evidence(model, x)).all()


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("latent_size", [1, 2, 4])
def test_every_sample_is_the_evidence_under_the_exact_posterior(
    flow: bool, latent_size: int
) -> None:
    model = build(latent_size, flow=flow)
    x = sequences(model)
    guide = plain_guide(exact_posterior(system(model), noise(model, x)[0]))
    log_evidence = evidence(model, x)
    samples = bounds(model, guide, x, 100)
    torch.testing.assert_close(samples, log_evidence.expand_as(samples), rtol=0, atol=1e-8)
    for seed in range(5):
        pyro.set_rng_seed(seed)
        assert abs(Trace_ELBO().loss(model, guide, x) + log_evidence.sum().item()) < 1e-8


# ---- the exact posterior as a transform across time with a context ----


@pytest.mark.parametrize("flow", [False, True])
def test_the_exact_posterior_as_a_transform_across_time(flow: bool) -> None:
    pair = exact_pair(flow=flow)
    x = sequences(pair.model)
    log_evidence = evidence(pair.model, x)
    samples = bounds(pair.model, pair.guide, x, 100)
    torch.testing.assert_close(samples, log_evidence.expand_as(samples), rtol=0, atol=1e-8)
    assert samples.std(0).max() < 1e-8
    terms = bound_terms(pair.model, pair.guide, x, num_particles=3).bound.sum(-1)
    torch.testing.assert_close(terms, log_evidence.expand_as(terms), rtol=0, atol=1e-8)
    assert abs(Trace_ELBO().loss(pair.model, pair.guide, x) + log_evidence.sum().item()) < 1e-8


@pytest.mark.parametrize("flow", [False, True])
def test_the_gradient_is_that_of_the_evidence(flow: bool) -> None:
    """With the guide at the exact posterior, and as a function of the model's parameters."""
    pair = exact_pair(flow=flow)
    x, parameters = sequences(pair.model), list(pair.model.parameters())
    expected = torch.autograd.grad(evidence(pair.model, x).sum(), parameters)
    loss = Trace_ELBO().differentiable_loss(pair.model, pair.guide, x)
    for actual, gradient in zip(torch.autograd.grad(-loss, parameters), expected, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=1e-6, atol=1e-8)


def test_ragged_evidence_is_that_of_the_shorter_sequences() -> None:
    pair = exact_pair(flow=True)
    x, n = sequences(pair.model), 4000
    lengths = torch.tensor([STEPS, 2, 4])
    guide = random_guide(pair.model, 0)
    bound = bound_terms(pair.model, guide, x, num_particles=n // 10, lengths=lengths).bound.sum(-1)
    for i, length in enumerate(lengths.tolist()):
        mean, error = bound[:, i].mean(), bound[:, i].std() / len(bound) ** 0.5
        alone = bounds(pair.model, guide, x[i : i + 1, :length], n)
        error = (error**2 + alone.var() / n).sqrt()
        assert abs(mean - alone.mean()) < 4 * error
        assert mean <= evidence(pair.model, x[i : i + 1, :length]) + 4 * error
