"""The analytic divergence against sampling, and for whom there is none; annealing."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from pyro_afslvm import fit
from pyro_afslvm.distributions import across_time, standard_normal
from pyro_afslvm.objectives import (
    KLScale,
    bound_terms,
    kl_per_step,
    log_prob_per_step,
    warmed_up,
)
from pyro_afslvm.transforms import TemporalChain
from tests.support.guides import PAIRS, prior, sequences, system
from tests.support.kalman import build, exact_posterior, noise, plain_guide
from tests.support.kalman import sequences as linear_sequences
from tests.support.kalman import system as linear_system
from tests.support.registry import Warped

GAUSSIAN = [pair for pair in PAIRS if "iaf" not in pair[1]]
LENGTHS = torch.tensor([5, 8, 6])


@pytest.mark.parametrize(("model", "guide"), GAUSSIAN)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["even", "ragged"])
def test_analytic_and_sampled_divergence_agree(model: str, guide: str, lengths):
    pair, x, n = system(model, guide), sequences(), 4000
    parts = pair.model.batch(x, lengths)
    with torch.no_grad():
        q = pair.guide.distribution(parts).expand([n, len(x)])
        p = pair.model.transition_distribution(parts)
        z = q.rsample()
        analytic = kl_per_step(q, p.expand([n, len(x)]))
        sampled = log_prob_per_step(q, z) - log_prob_per_step(p, z)
    difference = (analytic - sampled).sum(-1)  # of the same path, so the error is small
    error = difference.std(0) / n**0.5
    assert (difference.mean(0).abs() < 4 * error).all()
    assert (analytic >= 0).all()
    assert (analytic.sum(-1).var(0) < sampled.sum(-1).var(0)).all()
    if lengths is not None:
        assert (analytic[:, ~parts.mask] == 0).all()


@pytest.mark.parametrize(("model", "guide"), [("plain", "filtering"), ("vrnn", "iterative")])
def test_trace_mean_field_elbo_uses_it(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    losses = {}
    for elbo in (Trace_ELBO, TraceMeanField_ELBO):
        pyro.set_rng_seed(0)
        with torch.no_grad():
            found = torch.tensor([elbo().loss(*pair, x) for _ in range(150)])
        losses[elbo] = found
    sampled, analytic = losses[Trace_ELBO], losses[TraceMeanField_ELBO]
    error = ((sampled.var() + analytic.var()) / 150).sqrt()
    assert abs(sampled.mean() - analytic.mean()) < 4 * error
    pyro.set_rng_seed(5)
    loss = TraceMeanField_ELBO().loss(*pair, x)
    pyro.set_rng_seed(5)
    traced = poutine.trace(pair.guide).get_trace(x)
    q, z = traced.nodes["z"]["fn"], traced.nodes["z"]["value"]
    joint = poutine.trace(poutine.replay(pair.model, trace=traced)).get_trace(x)
    of_x = joint.nodes["x"]["fn"].log_prob(joint.nodes["x"]["value"]).sum()
    divergence = kl_per_step(q, joint.nodes["z"]["fn"]).sum()
    assert loss == pytest.approx((divergence - of_x).item(), rel=1e-12)
    assert q.drawn is z


def test_one_step_is_the_divergence_of_two_normals():
    torch.manual_seed(0)
    one, two = prior().double(), prior().double()
    base = standard_normal((1, 4), torch.zeros((), dtype=torch.float64))
    q, p = across_time(base, one.condition()), across_time(base, two.condition())
    q.rsample()
    normals = []
    for part in (one, two):
        (level,) = part.intermediates(torch.zeros(1, 4, dtype=torch.float64))
        normals.append(torch.distributions.Normal(level.shift, level.log_scale.exp()))
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(*normals).sum())


def test_a_decoder_of_noise_that_is_not_standard_counts():
    torch.manual_seed(0)
    transform = prior().double().condition()
    location, scale = torch.randn(3, 4).double(), torch.rand(3, 4).double() + 0.5
    base = dist.Normal(location, scale).to_event(2)
    standard = standard_normal((3, 4), location)
    q, p = across_time(base, transform), across_time(standard, transform)
    q.rsample()
    expected = kl_divergence(base.base_dist, standard.base_dist).sum()  # the transform drops out
    torch.testing.assert_close(kl_divergence(q, p), expected)


@pytest.mark.parametrize("wrap", [False, True], ids=["alone", "in a chain"])
@pytest.mark.parametrize("which", ["q", "p"])
def test_a_transform_that_is_not_affine_has_none(which: str, wrap: bool):
    """Shift and scale of its noise say nothing about its frames: refused, and not guessed."""
    torch.manual_seed(0)
    warped = TemporalChain([prior(), Warped()]) if wrap else Warped()
    of_q, of_p = (warped, prior()) if which == "q" else (prior(), warped)
    base = standard_normal((3, 4), torch.zeros((), dtype=torch.float64))
    q, p = (across_time(base, t.double().condition()) for t in (of_q, of_p))
    z = q.rsample((4000,))
    sampled = q.log_prob(z) - p.log_prob(z)  # which is all that is known of it
    assert sampled.mean() > 3 * sampled.std() / 4000**0.5
    name = "TemporalChain" if wrap else "Warped"
    with pytest.raises(TypeError, match=f"no analytic KL: {name} is not affine in its noise"):
        kl_divergence(q, p)


@pytest.mark.parametrize("guide", ["filtering-iaf", "smoothing-iaf"])
def test_a_guide_with_iaf_is_refused(guide: str):
    pair, x = system("plain", guide), sequences()
    with pytest.raises(TypeError, match=r"no analytic KL: the guide must sample z forward"):
        TraceMeanField_ELBO().loss(*pair, x)


def test_guides_of_another_kind_are_refused(float64: None):
    model = build()
    x = linear_sequences(model)
    exact = plain_guide(exact_posterior(linear_system(model), noise(model, x)[0]))
    with pytest.raises(TypeError, match="no analytic KL of ForwardGaussian"):
        TraceMeanField_ELBO().loss(model, exact, x)

    def independent(x, **_):
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(6, 2), 1.0).to_event(2))

    with pytest.raises(TypeError, match="no analytic KL of Independent"):
        TraceMeanField_ELBO().loss(model, independent, x)

    def squashed(x, **_):
        base = dist.Normal(torch.zeros(6, 2), 1.0).to_event(2)
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", dist.TransformedDistribution(base, [dist.transforms.TanhTransform()]))

    with pytest.raises(TypeError, match="no analytic KL of TransformedDistribution"):
        TraceMeanField_ELBO().loss(model, squashed, x)


def test_a_point_estimate_has_one(float64: None):
    model = build()
    x, z = linear_sequences(model), torch.randn(3, 6, 2)

    def point(x, **_):
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", dist.Delta(z, event_dim=2))

    loss = TraceMeanField_ELBO().loss(model, point, x)
    assert loss == pytest.approx(Trace_ELBO().loss(model, point, x), rel=1e-12)


def test_nothing_drawn_yet():
    pair = system("plain", "filtering")
    parts = pair.model.batch(sequences())
    with pytest.raises(TypeError, match="no sequence has been drawn"):
        kl_per_step(pair.guide.distribution(parts), pair.model.transition_distribution(parts))


# annealing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_the_divergence_is_scaled_in_both_programs(elbo: type):
    pair, x = system("plain", "filtering"), sequences()
    terms = []
    for beta in (0.25, 1.0):
        pyro.set_rng_seed(1)
        scale = KLScale(beta)
        terms.append(-elbo().loss(scale(pair.model), scale(pair.guide), x))
    pyro.set_rng_seed(1)
    assert terms[1] == pytest.approx(-elbo().loss(*pair, x), rel=1e-12)
    pyro.set_rng_seed(1)
    reconstruction = bound_terms(*pair, x).log_likelihood.sum().item()
    divergence = reconstruction - terms[1]
    assert terms[0] == pytest.approx(reconstruction - 0.25 * divergence, rel=1e-10)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_none(scale: float):
    with pytest.raises(ValueError, match="positive scale"):
        KLScale(scale)


def test_fit_warms_up():
    pair = system("plain", "filtering", dtype=torch.float32)
    seen = []
    original = pair.model.forward

    def watch(*arguments, **options):
        with poutine.trace() as traced:
            result = original(*arguments, **options)
        seen.append(traced.trace.nodes["z"]["scale"])
        return result

    pair.model.forward = watch
    x = sequences().float()
    fit(*pair, x, steps=6, batch_size=3, kl_warmup=4, progress=False)
    assert [float(scale) for scale in seen] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    assert [warmed_up(step, 0) for step in (0, 5)] == [1.0, 1.0]
