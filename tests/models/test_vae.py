"""The variational autoencoder: Algorithm 1 by hand, its estimates, and what it refuses."""

import copy
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_afslvm import VAE, InverseAutoregressive, Pair, VAEGuide, fit
from pyro_afslvm.networks import ResidualDecoder, ResidualEncoder
from pyro_afslvm.networks.residual import halved
from pyro_afslvm.objectives import bound_terms, iwae
from tests.support.pairs import check_training, parameters
from tests.support.registry import calls, perturb

SHAPE, LATENTS = (1, 8, 8), 3


def make(*, depth: int | None = 2, context: int = 5, seed: int = 1) -> Pair:
    """A small pair in float64 with random weights; ``depth=None`` for no IAF at all."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"features": 6, "channels": (4, 8)}
    model = VAE(SHAPE, LATENTS, decoder=ResidualDecoder(LATENTS, SHAPE, **sizes))
    encoder = ResidualEncoder(SHAPE, **sizes)
    iaf = None
    if depth is not None:
        iaf = InverseAutoregressive(
            LATENTS, context_features=context, depth=depth, hidden=(7,), initial_bias=1.0
        )
    guide = VAEGuide(model, encoder, iaf=iaf)
    torch.manual_seed(seed)
    for part in (model.double(), guide.double()):
        with torch.no_grad():
            perturb(part)
    return Pair(model, guide)


def images(batch: int = 4, length: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, length, *SHAPE, generator=generator, dtype=torch.float64)
    return x.round()


def by_hand(pair: Pair, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Algorithm 1, step by step: z and log q(z | x) from the noise of the diagonal Gaussian."""
    guide = pair.guide
    features = guide.encoder(x)
    mean, log_scale = guide.posterior(features).chunk(2, -1)
    z = mean + log_scale.exp() * noise
    log_q = -(log_scale + noise**2 / 2 + math.log(2 * math.pi) / 2).sum(-1)
    for made in guide.iaf.networks:
        m, s = made(z, context=guide.context(features))
        sigma = 1 / (1 + torch.exp(-s))
        z = sigma * z + (1 - sigma) * m
        log_q = log_q - sigma.log().sum(-1)
    return z, log_q.sum(-1)


# the posterior --------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_log_q_is_algorithm_1(depth: int) -> None:
    pair, x = make(depth=depth), images(length=2)
    q = pair.guide.distribution(x)
    assert (q.batch_shape, q.event_shape) == ((4,), (2, LATENTS))
    z = q.rsample()
    with torch.no_grad():
        noise = (q.transforms[0].inv(z) - q.base_dist.base_dist.loc) / q.base_dist.base_dist.scale
    expected, log_q = by_hand(pair, x, noise)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(q.log_prob(z), log_q, rtol=0, atol=1e-10)
    foreign = pair.guide.distribution(x).log_prob(z.detach().clone())  # by the sequential inverse
    torch.testing.assert_close(foreign, log_q, rtol=0, atol=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_one_pass_per_step_to_sample_and_score(depth: int) -> None:
    pair, x = make(depth=depth), images()
    networks = pair.guide.iaf.networks
    with calls(pair.guide.encoder) as encoder:
        counters = [calls(made) for made in networks]
        seen = [counter.__enter__() for counter in counters]
        Trace_ELBO().differentiable_loss(pair.model, pair.guide, x).backward()
        assert [counter.count for counter in seen] == [1] * depth
        assert encoder.count == 1


def test_depth_zero_is_the_diagonal_posterior() -> None:
    none, zero = make(depth=None), make(depth=0)
    zero.guide.load_state_dict(none.guide.state_dict())
    x = images()
    of_none, of_zero = none.guide.distribution(x), zero.guide.distribution(x)
    assert isinstance(of_zero.base_dist, dist.Normal)
    assert torch.equal(of_none.base_dist.loc, of_zero.base_dist.loc)
    pyro.set_rng_seed(3)
    expected = Trace_ELBO().loss(none.model, none.guide, x)
    pyro.set_rng_seed(3)
    assert Trace_ELBO().loss(zero.model, zero.guide, x) == expected


def test_an_iaf_near_the_identity_is_near_the_diagonal_posterior() -> None:
    pair, x = make(depth=2), images()
    for made in pair.guide.iaf.networks:
        last = made.layers[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        last.bias.data[LATENTS:] = 40.0  # sigma is 1 in float64
    q = pair.guide.distribution(x)
    z = q.rsample()
    torch.testing.assert_close(q.log_prob(z), q.base_dist.log_prob(z), rtol=0, atol=1e-12)


def test_the_diagonal_posterior_has_an_analytic_divergence() -> None:
    pair, x = make(depth=None), images()
    q = pair.guide.distribution(x)
    p = dist.Normal(torch.zeros_like(q.mean), 1.0).to_event(2)
    known = torch.distributions.kl_divergence(q, p)
    z = q.rsample((20_000,))
    sampled = q.log_prob(z) - p.log_prob(z)
    assert ((sampled.mean(0) - known).abs() < 5 * sampled.std(0) / math.sqrt(20_000)).all()
    pyro.set_rng_seed(1)
    terms = bound_terms(pair.model, pair.guide, x)
    pyro.set_rng_seed(1)
    loss = TraceMeanField_ELBO().loss(pair.model, pair.guide, x)
    expected = (known - terms.log_likelihood.sum((0, 2))).sum()
    assert loss == pytest.approx(expected.item())


# bound and estimates --------------------------------------------------------------------


def test_the_bound_by_hand() -> None:
    pair, x = make(), images(length=2)
    pyro.set_rng_seed(2)
    guide_trace = poutine.trace(pair.guide).get_trace(x)
    z = guide_trace.nodes["z"]["value"]
    logits = pair.model.decoder(z)
    log_x = torch.where(x.bool(), logits, -logits)
    log_p = nn.functional.logsigmoid(log_x).sum() - (z**2 / 2 + math.log(2 * math.pi) / 2).sum()
    expected = log_p - guide_trace.nodes["z"]["fn"].log_prob(z).sum()
    pyro.set_rng_seed(2)
    assert -Trace_ELBO().loss(pair.model, pair.guide, x) == pytest.approx(expected.item())
    pyro.set_rng_seed(2)
    terms = bound_terms(pair.model, pair.guide, x)
    assert terms.bound.shape == (1, 4, 2)
    assert terms.bound.sum().item() == pytest.approx(expected.item())


def test_vectorised_particles_are_the_same_estimate() -> None:
    pair, x = make(), images()
    one = iwae(pair.model, pair.guide, x, num_particles=4000, chunk=1000)
    other = iwae(pair.model, pair.guide, x, num_particles=200, chunk=1)
    error = (one.error**2 + other.error**2).sqrt()
    assert ((one.log_evidence - other.log_evidence).abs() < 5 * error + 0.02).all()


def test_importance_sampling_against_quadrature() -> None:
    """One latent: the evidence is an integral on a line."""
    torch.manual_seed(0)
    decoder = ResidualDecoder(1, SHAPE, features=6, channels=(4, 8)).double()
    model = VAE(SHAPE, 1, decoder=decoder)
    guide = VAEGuide(model, ResidualEncoder(SHAPE, features=6, channels=(4, 8)))
    guide.double()
    perturb_no_grad(model)
    x = images(2)
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    with torch.no_grad():
        logits = model.logits(grid[:, None, None])  # (grid, 1, C, H, W)
        log_x = dist.Bernoulli(logits=logits[:, None]).log_prob(x).flatten(2).sum(-1)
    log_prior = dist.Normal(0.0, 1.0).log_prob(grid)[:, None]
    known = (log_x + log_prior).logsumexp(0) + (grid[1] - grid[0]).log()
    found = iwae(model, guide, x, num_particles=20_000, chunk=2000)
    assert ((found.log_evidence - known).abs() < 5 * found.error + 1e-3).all()


def perturb_no_grad(module: nn.Module) -> None:
    with torch.no_grad():
        perturb(module)


@pytest.fixture(scope="module")
def trained() -> tuple[Pair, Tensor]:
    """A small model, briefly trained on two patterns with noise."""
    pyro.clear_param_store()
    pair = make(depth=1)
    pair = Pair(pair.model.float(), pair.guide.float())
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(2, *SHAPE, generator=generator)
    chosen = patterns[torch.arange(200) % 2]
    x = (torch.rand(chosen.shape, generator=generator) < chosen).float()[:, None]
    fit(pair.model, pair.guide, x, steps=100, batch_size=50, learning_rate=1e-2, progress=False)
    return pair, x


def test_importance_sampling_is_above_the_bound_and_rises(trained: tuple[Pair, Tensor]) -> None:
    pair, x = trained
    torch.manual_seed(0)
    means = [
        iwae(pair.model, pair.guide, x, num_particles=k, chunk=min(k, 16)).log_evidence.mean()
        for k in (1, 4, 64)
    ]
    bound = bound_terms(pair.model, pair.guide, x, num_particles=50).bound.mean()
    assert means[0] < means[1] < means[2]
    assert means[2] > bound


def test_training_helps(trained: tuple[Pair, Tensor]) -> None:
    pair, x = trained
    untrained = make(depth=1)
    before = -Trace_ELBO().loss(untrained.model, untrained.guide, x.double())
    assert -Trace_ELBO().loss(pair.model, pair.guide, x) > before


# gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [None, 0, 2])
def test_every_parameter_moves_and_svi_and_torch_agree(depth: int | None) -> None:
    check_training(make(depth=depth), images())


def test_distributions_are_in_single_precision_under_autocast() -> None:
    pair = make()
    model, guide, x = pair.model.float(), pair.guide.float(), images().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = poutine.trace(guide).get_trace(x)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    assert q.nodes["z"]["value"].dtype == torch.float32
    assert p.nodes["x"]["fn"].base_dist.logits.dtype == torch.float32


# sampling -------------------------------------------------------------------------------


def test_samples_from_nothing_and_after_images() -> None:
    pair = make()
    sampled = pair.model(horizon=5)
    assert sampled.shape == (1, 5, *SHAPE)
    assert set(sampled.unique().tolist()) <= {0.0, 1.0}
    for parallel in (False, True):
        predictive = Predictive(pair.model, guide=pair.guide, num_samples=3, parallel=parallel)
        assert predictive(images(), horizon=2)["x_future"].shape == (3, 4, 2, *SHAPE)
    mean = pair.model.sample_mean(7)
    assert mean.shape == (7, *SHAPE)
    assert 0 <= mean.min() <= mean.max() <= 1


def test_a_copy_stands_alone() -> None:
    pair = make()
    twin = copy.deepcopy(pair)
    SVI(twin.model, twin.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(images())
    fresh = make()
    for p, q in zip(parameters(pair), parameters(fresh), strict=True):
        assert torch.equal(p, q)


# what a user may get wrong --------------------------------------------------------------


def test_what_is_refused() -> None:
    pair, x = make(), images()
    half = x.clone()
    half[0, 0, 0, 0, 0] = 0.5
    nan = x.clone()
    nan[1, 0, 0, 0, 0] = math.nan
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (half, {}, r"^x holds 0\.5; expected binary pixels 0 and 1"),
        (nan, {}, r"^x holds nan; expected binary pixels"),
        (x[:, 0], {}, r"^expected x of shape \(batch, time, 1, 8, 8\), got \(4, 1, 8, 8\)"),
        (x[:0], {}, "^expected at least 1 sequence"),
        (x.to(torch.uint8), {}, r"^expected binary images as floating point numbers, got torch\."),
        (x, {"lengths": torch.ones(4).long()}, "^expected no lengths: images are independent"),
        (None, {}, "^expected horizon >= 1 without x"),
    ]
    for program in pair:
        for value, options, message in refused:
            with pytest.raises(ValueError, match=message) as error:
                program(value, **options)
            assert "\n" not in str(error.value)


def test_parts_that_do_not_fit() -> None:
    pair = make()
    with pytest.raises(ValueError, match="an IAF of 3 latents, as the model has, got one of 4"):
        VAEGuide(pair.model, pair.guide.encoder, iaf=InverseAutoregressive(4, hidden=(8,)))
    other = VAE(SHAPE, 2, decoder=ResidualDecoder(2, SHAPE)).double()
    with pytest.raises(ValueError, match="expected z of 2 entries, got 3: the guide was made for"):
        Trace_ELBO().loss(other, pair.guide, images())
    with pytest.raises(ValueError, match="images of 28 x 30 cannot be halved 2 times"):
        ResidualEncoder((1, 28, 30))
    with pytest.raises(ValueError, match=r"expected images \(C, H, W\), got \(28, 28\)"):
        halved((28, 28), 1)
    with pytest.raises(ValueError, match=r"expected images \(C, H, W\), got \(8, 8\)"):
        VAE((8, 8), 2, decoder=nn.Identity())
    with pytest.raises(ValueError, match="latent_size must be at least 1, got 0"):
        VAE(SHAPE, 0, decoder=nn.Identity())
    for sizes in ({"channels": ()}, {"channels": (4, 0)}, {"features": 0}):
        with pytest.raises(ValueError, match="at least one size of channels, and none below 1"):
            ResidualEncoder(SHAPE, **sizes)
        with pytest.raises(ValueError, match="at least one size of channels, and none below 1"):
            ResidualDecoder(2, SHAPE, **sizes)
    wide = VAE(SHAPE, LATENTS, decoder=ResidualDecoder(LATENTS, (1, 8, 12))).double()
    with pytest.raises(ValueError, match=r"decoder of images \(1, 8, 8\), got \(1, 8, 12\)"):
        wide(horizon=1)
