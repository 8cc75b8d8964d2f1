"""The bound: Eq. 20 term by term, particles, ragged batches, any guide."""

import copy
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_afslvm import Pair, TemporalAffine
from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.objectives import bound_terms, log_prob_per_step
from tests.support.bounds import (
    BATCH,
    CASES,
    DEEPEST,
    LATENT,
    SCORED,
    WITH_LATENTS,
    build,
    frames,
    gradients,
    levels,
    loss,
    sample,
)

# ---- Eq. 20, written out ----


def normal(value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log N(value; mean, scale) of single numbers."""
    return -0.5 * ((value - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)


def total(terms: Tensor) -> Tensor:
    return terms.reshape(len(terms), -1).sum(1)


def invert(flow: TemporalAffine, x: dict[int, Tensor]) -> tuple[dict[int, Tensor], ...]:
    """Eq. 6, one frame after the other, each from the growing history of those before."""
    y, log_scales = {}, {}
    start, end = min(x), max(x) + 1
    window = flow.conditioner.window
    for t in range(start, end):
        if t - start < window:
            if flow.initial_shift is None:
                continue  # given, not scored
            shift = flow.initial_shift[t - start]
            log_scale = flow.initial_log_scale[t - start]
        else:
            history = torch.stack([x[s] for s in range(start, t)], 1)
            shift, log_scale = flow.conditioner(x[t][:, None], history=history)[:, 0].unbind(-1)
        log_scale = log_scale.clamp(-10.0, math.log(10.0)).expand_as(x[t])
        if t - start >= window and flow.conditioner.residual:
            shift = x[t - 1] + log_scale.exp() * shift
        y[t] = (x[t] - shift) / log_scale.exp()
        log_scales[t] = log_scale
    return y, log_scales


def eq_20(pair: Pair, x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
    """log p(y_t | z_t) - log det and log q(z_t) / p(z_t), each ``(batch, scored)``."""
    model, guide = pair
    y = dict(enumerate(x.unbind(1)))
    log_det: dict[int, Any] = dict.fromkeys(y, 0.0)
    for flow in levels(model):
        y, log_scales = invert(flow, y)
        log_det = {t: log_det[t] + total(log_scales[t]) for t in y}
    likelihood, kl = [], []
    for i, t in enumerate(range(model.context_length, x.shape[1])):
        if z is None:
            terms = normal(y[t], torch.zeros(()), torch.ones(()))
            likelihood.append(total(terms) - log_det[t])
            continue
        likelihood.append(total(normal(y[t], *model.decoder(z[:, i]))) - log_det[t])
        past = z[:, :i] if i else None
        features = [guide.encoder(y[s]) for s in range(model.context_length, t + 1)]
        prior = model.prior.conditioner(z[:, i : i + 1], history=past)
        posterior = guide.posterior.conditioner(
            z[:, i : i + 1], history=past, context=torch.stack(features, 1)
        )
        q, p = (
            total(normal(z[:, i], a[:, 0, :, 0], a[:, 0, :, 1].exp())) for a in (posterior, prior)
        )
        kl.append(q - p)
    zero = torch.zeros(len(x), SCORED)
    return torch.stack(likelihood, 1), torch.stack(kl, 1) if kl else zero


@pytest.mark.parametrize("case", CASES)
def test_trace_elbo_is_eq_20_term_by_term(case: str, float64: None) -> None:
    pair = build(case)
    x = frames(pair.model)
    pyro.set_rng_seed(7)
    z = None if pair.guide is None else sample(pair, x).nodes["z"]["value"]
    likelihood, kl = eq_20(pair, x, z)
    expected = (likelihood - kl).sum().item()
    assert -loss(pair, x).item() == pytest.approx(expected, rel=1e-10)
    pyro.set_rng_seed(7)
    terms = bound_terms(pair.model, pair.guide, x)
    torch.testing.assert_close(terms.log_likelihood[0], likelihood, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(terms.kl[0], kl, rtol=1e-10, atol=1e-10)
    assert terms.bound.sum().item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_terms_per_step_sum_to_the_distribution(case: str, float64: None) -> None:
    pair = build(case)
    model, x = pair.model, frames(pair.model)
    if pair.guide is None:
        distribution = model.distribution(x)
    else:
        distribution = model.emission_distribution(
            torch.randn(BATCH, SCORED, LATENT), model.batch(x)
        )
    scored = x[:, model.context_length :]
    per_step = log_prob_per_step(distribution, scored)
    assert per_step.shape == (BATCH, SCORED)
    torch.testing.assert_close(per_step.sum(1), distribution.log_prob(scored), rtol=1e-12, atol=0)


def test_no_log_prob_per_step_of_what_couples_time() -> None:
    whole = dist.MultivariateNormal(torch.zeros(3), torch.eye(3))
    with pytest.raises(TypeError, match="no log-probability per step of"):
        log_prob_per_step(whole, torch.zeros(3))
    frames = whole.expand([2]).to_event(1)  # what couples the entries of a frame has one
    assert log_prob_per_step(frames, torch.zeros(2, 3)).shape == (2,)


# ---- particles ----


@pytest.mark.parametrize("case", WITH_LATENTS)
def test_vectorised_particles_are_single_ones(case: str, float64: None) -> None:
    pair, particles = build(case), 3
    x = frames(pair.model)
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    pyro.set_rng_seed(5)
    together = elbo.loss(pair.model, pair.guide, x)
    pyro.set_rng_seed(5)
    with pyro.plate("particles", particles, dim=-2):
        z = sample(pair, x).nodes["z"]["value"]
    assert z.shape == (particles, BATCH, SCORED, LATENT)
    one_by_one = []
    for particle in z:
        trace = sample(pair, x)
        trace.nodes["z"]["value"] = particle
        guide = poutine.replay(pair.guide, trace=trace)
        one_by_one.append(Trace_ELBO().loss(pair.model, guide, x))
    assert len({round(value, 6) for value in one_by_one}) == particles
    assert together == pytest.approx(sum(one_by_one) / particles, rel=1e-12)


def test_vectorised_particles_have_the_same_expectation(float64: None) -> None:
    pair, n = build("vectors w/ 2-AF"), 2000
    x = frames(pair.model)
    singles = bound_terms(pair.model, pair.guide, x, num_particles=n // 4).bound.sum((1, 2))
    with torch.no_grad(), pyro.plate("particles", n, dim=-2):
        trace = sample(pair, x)
        joint = poutine.trace(poutine.replay(pair.model, trace=trace)).get_trace(x)
    together = sum(joint.nodes[s]["fn"].log_prob(joint.nodes[s]["value"]) for s in ("z", "x"))
    together = (together - trace.nodes["z"]["fn"].log_prob(trace.nodes["z"]["value"])).sum(1)
    error = (together.var() / n + singles.var() / len(singles)).sqrt()
    assert abs(together.mean() - singles.mean()) < 4 * error


# ---- ragged batches ----


def ragged(pair: Pair) -> tuple[Tensor, Tensor]:
    x = frames(pair.model, batch=3)
    context = pair.model.context_length
    return x, torch.tensor([context + 1, context + SCORED, context + 2])


@pytest.mark.parametrize("norm", [None, "group"])
@pytest.mark.parametrize("case", DEEPEST)
def test_a_ragged_batch_is_its_sequences_one_by_one(
    case: str, norm: str | None, float64: None
) -> None:
    pair = build(case, norm)
    x, lengths = ragged(pair)
    pyro.set_rng_seed(7)
    z = sample(pair, x, lengths=lengths).nodes["z"]["value"] if pair.guide else None
    expected = 0.0
    for i, length in enumerate(lengths.tolist()):
        alone = x[i : i + 1, :length]
        guide = no_guide
        if z is not None:
            trace = sample(pair, alone)
            trace.nodes["z"]["value"] = z[i : i + 1, : length - pair.model.context_length]
            guide = poutine.replay(pair.guide, trace=trace)
        expected += Trace_ELBO().loss(pair.model, guide, alone)
    assert loss(pair, x, lengths=lengths).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("norm", [None, "group"])
@pytest.mark.parametrize("case", DEEPEST)
def test_padding_does_not_matter(case: str, norm: str | None, float64: None) -> None:
    pair = build(case, norm)
    x, lengths = ragged(pair)
    other = x.clone()
    for i, length in enumerate(lengths.tolist()):
        other[i, length:] = 3.0 * torch.randn_like(other[i, length:])
    results = []
    for padded in (x, other):
        for module in filter(None, pair):
            module.zero_grad()
        padded.requires_grad_()
        value = loss(pair, padded, lengths=lengths)
        value.backward()
        results.append((value.item(), gradients(pair)))
        for i, length in enumerate(lengths.tolist()):
            assert not padded.grad[i, length:].any()
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("case", DEEPEST)
def test_full_lengths_change_nothing(case: str, float64: None) -> None:
    pair = build(case)
    x = frames(pair.model)
    lengths = torch.full((BATCH,), x.shape[1])
    assert loss(pair, x, lengths=lengths).item() == pytest.approx(loss(pair, x).item(), rel=1e-12)


@pytest.mark.parametrize("case", DEEPEST)
def test_terms_of_a_ragged_batch_are_zero_after_the_end(case: str, float64: None) -> None:
    pair = build(case)
    x, lengths = ragged(pair)
    terms = bound_terms(pair.model, pair.guide, x, lengths=lengths)
    for i, length in enumerate((lengths - pair.model.context_length).tolist()):
        assert terms.log_likelihood[0, i, :length].all()
        assert not terms.log_likelihood[0, i, length:].any()
        assert not terms.kl[0, i, length:].any()


# ---- any guide with a site z ----


@pytest.mark.parametrize("case", DEEPEST[1:])
def test_a_plain_pyro_guide_fits_any_model(case: str) -> None:
    pair = build(case)
    x = frames(pair.model)

    def mean_field(x: Tensor, horizon: int = 0, lengths: Tensor | None = None) -> None:
        loc = pyro.param("loc", torch.zeros(SCORED, LATENT))
        scale = pyro.param("scale", torch.ones(SCORED, LATENT), dist.constraints.positive)
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, scale).to_event(2))

    before = copy.deepcopy(pair.model.state_dict())
    svi = pyro.infer.SVI(pair.model, mean_field, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(x)
    assert pyro.param("loc").all()
    assert (pyro.param("scale") != 1).all()
    moved = [not torch.equal(p, before[name]) for name, p in pair.model.named_parameters()]
    assert all(moved)
    terms = poutine.trace(poutine.replay(pair.model, trace=poutine.trace(mean_field).get_trace(x)))
    assert terms.get_trace(x).log_prob_sum().isfinite()
