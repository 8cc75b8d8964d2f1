"""The importance-weighted bound against the evidence that a Kalman filter gives."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_afslvm import ConvConditioner, FlowModel, TemporalAffine
from pyro_afslvm.objectives import bound_terms, iwae
from pyro_afslvm.objectives.importance import estimate
from tests.support.kalman import (
    build,
    evidence,
    exact_posterior,
    noise,
    plain_guide,
    random_guide,
    sequences,
    system,
)


@pytest.mark.parametrize("flow", [False, True])
def test_between_elbo_and_evidence_and_rising(flow: bool, float64: None):
    model = build(flow=flow)
    x, guide = sequences(model), random_guide(model, 3)
    truth, repeats, means, errors = evidence(model, x), 60, [], []
    for k in (1, 8, 64):
        estimates = [iwae(model, guide, x, num_particles=k, chunk=k) for _ in range(repeats)]
        values = torch.stack([e.log_evidence.mean() for e in estimates])
        means.append(values.mean().item())
        errors.append(values.std().item() / repeats**0.5)
    assert means[0] + 3 * errors[0] < means[1] - 3 * errors[1]
    assert means[1] + 3 * errors[1] < means[2] - 3 * errors[2]
    assert means[2] - 4 * errors[2] <= truth.mean().item()


def test_one_particle_is_the_elbo(float64: None):
    model = build()
    x, guide = sequences(model), random_guide(model, 3)
    pyro.set_rng_seed(0)
    one = iwae(model, guide, x, num_particles=1).log_evidence
    pyro.set_rng_seed(0)
    terms = bound_terms(model, guide, x)
    torch.testing.assert_close(one, terms.bound[0].sum(-1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("flow", [False, True])
def test_the_exact_posterior_gives_the_evidence(flow: bool, float64: None):
    model = build(flow=flow)
    x = sequences(model)
    guide = plain_guide(exact_posterior(system(model), noise(model, x)[0]))
    found = iwae(model, guide, x, num_particles=3)
    torch.testing.assert_close(found.log_evidence, evidence(model, x), rtol=0, atol=1e-8)
    assert found.error.max() < 1e-8


def test_error_is_that_of_repetition(float64: None):
    model = build()
    x = sequences(model)
    exact = exact_posterior(system(model), noise(model, x)[0])
    guide = plain_guide(exact._replace(b=exact.b + 0.1, L=1.2 * exact.L))
    runs = [iwae(model, guide, x, num_particles=500, chunk=500) for _ in range(100)]
    spread = torch.stack([run.log_evidence for run in runs]).std(0)
    said = torch.stack([run.error for run in runs]).median(0).values
    assert (said < 0.3).all()  # where few particles are enough
    torch.testing.assert_close(said, spread, rtol=0.4, atol=0)


@pytest.mark.parametrize("spread", [0.3, 2.0, 6.0, 15.0])
def test_error_grows_with_the_spread_of_the_weights(spread: float):
    """Of log-weights as an untrained guide has them it is off by nats, not by at most one."""
    log_weights = spread * torch.randn(64, 2000, dtype=torch.float64)
    found = estimate(log_weights)
    assert found.error.mean().item() == pytest.approx(found.log_evidence.std().item(), rel=0.2)
    if spread > 5:
        assert found.error.median() > 1.0


def test_error_of_a_guide_that_was_not_trained(float64: None):
    model = build()
    x, guide = sequences(model), random_guide(model, 3)
    runs = [iwae(model, guide, x, num_particles=32, chunk=32) for _ in range(60)]
    spread = torch.stack([run.log_evidence for run in runs]).std(0)
    assert (spread > 1.0).all()
    said = torch.stack([run.error for run in runs]).mean(0)
    assert (said > spread / 2).all()
    assert (said < 2 * spread).all()


def test_one_particle_has_no_error(float64: None):
    model = build()
    found = iwae(model, random_guide(model, 3), sequences(model), num_particles=1)
    assert found.error.isnan().all()


def test_chunks_change_nothing_but_memory(float64: None):
    model = build()
    x, guide = sequences(model), random_guide(model, 1)
    sizes = []
    original = guide.forward

    def watch(*arguments, **options):
        z = original(*arguments, **options)
        sizes.append(z.shape[0])
        return z

    guide.forward = watch
    found = iwae(model, guide, x, num_particles=10, chunk=4)
    assert sizes == [4, 4, 2]
    assert found.log_evidence.shape == (len(x),)


def test_particles_are_per_sequence(float64: None):
    """A sequence's estimate does not depend on the others in its batch."""
    model = build()
    x = sequences(model)
    guide = plain_guide(exact_posterior(system(model), noise(model, x)[0]))
    worse = torch.cat([x[:1], x[1:] + 30.0])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(evidence(model, x), evidence(model, worse))
    one = iwae(model, guide, x, num_particles=5).log_evidence
    two = iwae(model, guide, worse, num_particles=5).log_evidence
    torch.testing.assert_close(one[0], two[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("particles", "chunk"), [(0, 1), (4, 0), (-1, 1)])
def test_no_particles(particles: int, chunk: int):
    model = build()
    x = sequences(model)
    with pytest.raises(ValueError, match="at least 1 particle"):
        iwae(model, random_guide(model, 0), x, num_particles=particles, chunk=chunk)


def test_works_on_video_in_single_precision():
    flow = TemporalAffine(ConvConditioner(1, hidden=4, depth=1))
    model = FlowModel(flow, (1, 8, 8))
    x = torch.rand(2, 6, 1, 8, 8)
    found = iwae(model, lambda *_, **__: None, x, num_particles=2)
    assert found.log_evidence.dtype == torch.float64
    torch.testing.assert_close(found.log_evidence.float(), model.log_prob(x).sum(-1))


def test_ragged_sequences_weigh_as_they_do_alone(float64: None):
    model = build(flow=True)
    x, lengths = sequences(model), torch.tensor([6, 2, 4])
    z = torch.randn(7, *x.shape[:2], 2)

    def guide(x, *, lengths=None, rows=slice(None)):
        """Gives these latents, of density 1 / e."""
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", dist.Delta(z[:, rows, : x.shape[1]], -1.0, event_dim=2))

    together = iwae(model, guide, x, num_particles=7, chunk=7, lengths=lengths).log_evidence
    for i, length in enumerate(lengths.tolist()):
        one = partial(guide, rows=slice(i, i + 1))
        alone = iwae(model, one, x[i : i + 1, :length], num_particles=7, chunk=7)
        torch.testing.assert_close(together[i : i + 1], alone.log_evidence, rtol=1e-10, atol=0)


def test_the_error_of_few_good_particles_does_not_end_at_one_nat() -> None:
    even = torch.randn(400, 1, dtype=torch.float64) * 0.3
    relative = (even - even.logsumexp(0)).exp() * len(even)
    usual = relative.std(0) / len(even) ** 0.5
    torch.testing.assert_close(estimate(even).error, usual, rtol=0.02, atol=0)
    one = torch.full((100, 1), -50.0, dtype=torch.float64)
    one[17] = 0.0  # without it the estimate would be 45 nats lower, which is spread and bias
    assert 45 < float(estimate(one).error) < 45 * 2**0.5
    assert estimate(one[:1]).error.isnan()
