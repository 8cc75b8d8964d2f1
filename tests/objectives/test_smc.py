"""The particle filter against the Kalman filter."""

import importlib
import math
from itertools import pairwise

import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn

from pyro_afslvm import SLVM, ConvConditioner, FlowModel, IterativeGuide, TemporalAffine
from pyro_afslvm.objectives import bound_terms, iwae, smc
from pyro_afslvm.objectives.smc import systematic
from pyro_afslvm.transforms import LastFrame
from tests.support.guides import GIVEN, PAIRS, system
from tests.support.guides import sequences as random_sequences
from tests.support.kalman import (
    Chain,
    bounds,
    build,
    divergence,
    evidence,
    exact_pair,
    exact_posterior,
    kalman,
    noise,
    plain_guide,
    random_guide,
    sequences,
)
from tests.support.kalman import system as linear_system

each = pytest.mark.parametrize(("model", "guide"), PAIRS)
FILTER = importlib.import_module("pyro_afslvm.objectives.smc")
LENGTHS = torch.tensor([5, 8, 6])


# the oracle ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("resample_below", "frames"), [(0.0, 2), (0.5, 6), (1.0, 6)])
@pytest.mark.parametrize("flow", [False, True])
def test_the_evidence_is_unbiased(
    flow: bool, resample_below: float, frames: int, float64: None
) -> None:
    model = build(flow=flow)
    x = sequences(model, 1)[:, :frames].expand(4000, -1, -1)  # filtered afresh in every row
    guide = IterativeGuide(model, iterations=0)  # proposes from the prior: weights are bounded
    with torch.no_grad():
        found = smc(model, guide, x, num_particles=64, resample_below=resample_below)
    ratio = (found.log_evidence - evidence(model, x[:1])).exp()
    assert ratio.std() > 0.1
    assert ratio.std() < 3  # so that the error below can be trusted
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / len(ratio) ** 0.5


@pytest.mark.parametrize("flow", [False, True])
def test_the_bounds_are_ordered(flow: bool, float64: None):
    """ELBO < IWAE < evidence, each rising with particles; so does the filter's bound."""
    model = build(flow=flow)
    x = sequences(model, 1).expand(500, -1, -1)
    guide, truth = random_guide(model, 3), evidence(model, x[:1]).item()

    def mean(values: Tensor) -> tuple[float, float]:
        return values.mean().item(), values.std().item() / len(values) ** 0.5

    with torch.no_grad():
        elbo = mean(bound_terms(model, guide, x).bound[0].sum(-1))
        weighted = [mean(iwae(model, guide, x, num_particles=k, chunk=k)[0]) for k in (4, 32)]
        filtered = [mean(smc(model, guide, x, num_particles=k)[0]) for k in (4, 32)]
    for series in ([elbo, *weighted], [elbo, *filtered]):
        for (low, error), (high, other) in pairwise(series):
            assert low + 3 * (error**2 + other**2) ** 0.5 < high
        assert series[-1][0] - 4 * series[-1][1] <= truth


def test_the_exact_smoother_closes_the_gap(float64: None):
    pair = exact_pair(flow=True)
    x = sequences(pair.model)
    with torch.no_grad():
        found = smc(pair.model, pair.guide, x, num_particles=3, resample_below=0.0)
    torch.testing.assert_close(found.log_evidence, evidence(pair.model, x), rtol=0, atol=1e-8)


def filters(model, y: Tensor) -> dict[str, Chain]:
    """What is known of z_t from y_1:t: its marginals, and given z_t-1 besides."""
    s = linear_system(model)
    found = kalman(s, y)
    means, covariances = torch.stack(found.means, 1), torch.stack(found.covariances)
    nothing = torch.zeros_like(s.A).expand(len(covariances), *s.A.shape)
    innovation = s.C @ s.Q @ s.C.T + s.R
    gain = torch.linalg.solve(innovation, s.C @ s.Q).T
    kept = torch.eye(len(s.A)) - gain @ s.C
    local = torch.linalg.cholesky(kept @ s.Q)
    steps = y.shape[1]
    return {
        "marginals": Chain(nothing, means, torch.linalg.cholesky(covariances)),
        "given the last": Chain(
            (kept @ s.A).expand(steps, *s.A.shape), y @ gain.T, local.expand(steps, *s.A.shape)
        ),
    }


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("kind", ["marginals", "given the last"])
def test_the_exact_filter_does_not_and_by_the_amount_theory_gives(
    kind: str, flow: bool, float64: None
):
    model, n = build(flow=flow), 20_000
    x = sequences(model)
    y, _ = noise(model, x)
    q = filters(model, y)[kind]
    gap = divergence(q, exact_posterior(linear_system(model), y))
    assert (gap > 0.05).all()
    samples = bounds(model, plain_guide(q), x, n)
    error = samples.std(0) / n**0.5
    assert ((evidence(model, x) - gap - samples.mean(0)).abs() < 4 * error).all()


# the algorithm -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "guide", "lengths"),
    [
        *((*pair, LENGTHS) for pair in PAIRS),
        ("plain", "filtering", None),
        ("vrnn", "iterative", None),
    ],
)
def test_without_resampling_the_weights_are_those_of_the_programs(
    model: str, guide: str, lengths: Tensor | None, monkeypatch: pytest.MonkeyPatch
):
    pair, x, k = system(model, guide), random_sequences(), 5
    context = pair.guide.context(pair.model.batch(x, lengths))
    pair.guide.context = lambda _: context  # one draw of the iterative guide's noise
    steps = context.shape[1]
    eps = torch.randn(k, len(x), steps, pair.model.latent_size, dtype=torch.float64)
    given = iter(eps.unbind(2))
    monkeypatch.setattr(FILTER, "draw", lambda *_: next(given))
    with torch.no_grad():
        found = smc(*pair, x, num_particles=k, resample_below=0.0, lengths=lengths)
        z = eps
        for transform in pair.guide.distribution(pair.model.batch(x, lengths)).transforms:
            z = transform(z)
        conditioned = [poutine.condition(part, {"z": z}) for part in pair]
        totals = []
        for program in conditioned:
            with pyro.plate("particles", k, dim=-2):
                trace = poutine.trace(program).get_trace(x, lengths=lengths)
            trace.compute_log_prob()
            sites = [trace.nodes[name] for name in ("x", "z") if name in trace.nodes]
            totals.append(sum(site["log_prob"] for site in sites))
    log_weights = totals[0] - totals[1]
    expected = log_weights.logsumexp(0) - math.log(k)
    torch.testing.assert_close(found.log_evidence, expected, rtol=1e-9, atol=1e-9)
    weights = log_weights.softmax(0)
    last = 1 / weights.square().sum(0)
    torch.testing.assert_close(found.effective_sizes[:, -1], last, rtol=1e-9, atol=1e-9)
    if lengths is not None:
        ended = ~pair.model.batch(x, lengths).mask
        assert (found.log_likelihood[ended] == 0).all()


@each
def test_one_particle_gives_the_terms_of_the_bound(
    model: str, guide: str, monkeypatch: pytest.MonkeyPatch
):
    pair, x = system(model, guide), random_sequences()
    context = pair.guide.context(pair.model.batch(x))
    pair.guide.context = lambda _: context
    pyro.set_rng_seed(4)
    with torch.no_grad():
        terms = bound_terms(*pair, x)
    pyro.set_rng_seed(4)
    eps = torch.randn(len(x), context.shape[1], pair.model.latent_size, dtype=torch.float64)
    given = iter(eps.unbind(1))
    monkeypatch.setattr(FILTER, "draw", lambda *_: next(given)[None])
    with torch.no_grad():
        found = smc(*pair, x, num_particles=1)
    torch.testing.assert_close(found.log_likelihood, terms.bound[0], rtol=1e-9, atol=1e-9)
    assert (found.effective_sizes - 1).abs().max() < 1e-12


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_systematic_resampling(size: int):
    log_weights = torch.randn(size, 50, dtype=torch.float64).log_softmax(0)
    ancestors = systematic(log_weights)
    assert ancestors.shape == (size, 50)
    counts = torch.stack([(ancestors == i).sum(0) for i in range(size)])
    expected = size * log_weights.exp()
    assert ((counts - expected).abs() < 1 + 1e-9).all()  # each is rounded up or down
    repeats = torch.stack([(systematic(log_weights) == 0).sum(0).double() for _ in range(2000)])
    error = repeats.std(0) / 2000**0.5 + 1e-9
    assert ((repeats.mean(0) - expected[0]).abs() < 5 * error).all()


def test_a_particle_without_weight_has_no_children():
    log_weights = torch.tensor([[-math.inf], [0.0], [-math.inf]])
    assert systematic(log_weights).flatten().tolist() == [1, 1, 1]


def test_resampling_keeps_the_effective_number_up():
    torch.set_default_dtype(torch.float64)
    model = build(size=3)
    with torch.no_grad():
        x = model(horizon=40)
    guide = random_guide(model, 5)
    with torch.no_grad():
        never = smc(model, guide, x, num_particles=100, resample_below=0.0)
        often = smc(model, guide, x, num_particles=100, resample_below=0.5)
    assert never.effective_sizes[:, -1].item() < 10
    assert often.effective_sizes.mean() > 3 * never.effective_sizes.mean()
    assert often.effective_sizes.max() <= 100 + 1e-9
    assert never.log_evidence < often.log_evidence


def test_particles_are_per_sequence():
    pair, x = system("plain", "filtering"), random_sequences()
    changed = x.clone()
    changed[1:] += 3.0
    found = []
    for batch in (x, changed):
        generator = torch.Generator().manual_seed(0)
        found.append(smc(*pair, batch, num_particles=6, generator=generator))
    torch.testing.assert_close(found[0].log_evidence[0], found[1].log_evidence[0])
    assert (found[0].log_evidence[1:] != found[1].log_evidence[1:]).all()


def test_it_can_be_maximised(float64: None):
    model = build(flow=True)
    x, guide = sequences(model, 40), random_guide(model, 1)
    adam = torch.optim.Adam(guide.parameters(), 2e-2)
    bounds = []
    for _ in range(40):
        adam.zero_grad()
        loss = -smc(model, guide, x, num_particles=4).log_evidence.mean()
        loss.backward()
        adam.step()
        bounds.append(-loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in guide.parameters())
    gain = sum(bounds[-10:]) / 10 - sum(bounds[:10]) / 10
    assert gain > 0.5


class Coarse(nn.Module):
    """A decoder whose outputs bf16 can hold, so that only the sums could lose anything."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        location = torch.linspace(-1, 1, self.size).bfloat16().float()
        return location.expand(*z.shape[:-1], -1), torch.full((*z.shape[:-1], self.size), 0.25)


@pytest.mark.parametrize("bound", ["elbo", "iwae", "smc"])
def test_in_bf16_nothing_is_lost_in_sums(bound: str):
    size = 3000  # thousands of nats: bf16 would be off by tens
    prior = TemporalAffine(LastFrame(1))
    model = SLVM((size,), 2, prior=prior, decoder=Coarse(size))
    guide = IterativeGuide(model, iterations=0)
    x = torch.randn(2, 4, size)
    found = []
    for enabled in (True, False):
        pyro.set_rng_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), torch.no_grad():
            if bound == "elbo":
                found.append(bound_terms(model, guide, x).bound[0].sum(-1))
            else:
                estimate = smc if bound == "smc" else iwae
                found.append(estimate(model, guide, x, num_particles=3).log_evidence)
    assert found[0].abs().min() > 10_000
    assert found[0].dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)


def test_ended_sequences_are_not_resampled():
    pair, x = system("plain", "filtering"), random_sequences()
    lengths, rows = torch.tensor([4, 8, 6]), []
    original = FILTER.systematic

    def watch(log_weights, generator=None):
        rows.append(log_weights.detach().clone())
        return original(log_weights, generator)

    FILTER.systematic = watch
    try:
        with torch.no_grad():
            smc(*pair, x, num_particles=6, resample_below=1.0, lengths=lengths)
    finally:
        FILTER.systematic = original
    weights = torch.stack(rows)  # (T, K, batch), before each resampling
    alive = pair.model.batch(x, lengths).mask.T  # (T, batch)
    for i in range(3):
        last = int(alive[:, i].sum())
        after = weights[last:, :, i]  # equal since the resampling after the last frame
        torch.testing.assert_close(after, torch.full_like(after, -math.log(6)))


# what a user may get wrong -------------------------------------------------------------------


def test_what_cannot_be_filtered():
    pair, x = system("plain", "filtering"), random_sequences()
    with pytest.raises(TypeError, match="expected an SLVM and a guide that samples forward"):
        smc(pair.model, lambda *_, **__: None, x)
    flow = FlowModel(TemporalAffine(ConvConditioner(1, hidden=4, depth=1)), (1, 8, 8))
    with pytest.raises(TypeError, match="got FlowModel and FilteringGuide"):
        smc(flow, pair.guide, x)
    with pytest.raises(ValueError, match="at least 1 particle, got 0"):
        smc(*pair, x, num_particles=0)
    with pytest.raises(ValueError, match="at least 1 particle, got 0"):
        bound_terms(*pair, x, num_particles=0)
    twin = system("plain", "filtering")
    with pytest.raises(ValueError, match="made for another model"):
        smc(twin.model, pair.guide, x)
    with pytest.raises(ValueError, match=r"expected resample_below in 0..1, got 1.5"):
        smc(*pair, x, resample_below=1.5)
    with pytest.raises(ValueError, match="lengths must lie in"):
        smc(*pair, x, lengths=torch.tensor([GIVEN, 8, 8]))
