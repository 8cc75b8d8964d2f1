"""The bound: Eq. 20 term by term, one flow pass per evaluation, ragged batches."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    TemporalAffine,
    TemporalChain,
)
from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, mlp
from pyro_afslvm.objectives import bound_terms, log_prob_per_step
from pyro_afslvm.transforms import TemporalTransform

FRAME, LATENT, BATCH, SCORED = (1, 16, 16), 3, 2, 4
CASES = ["1-AF", "2-AF", "SLVM", "SLVM w/ 1-AF", "SLVM w/ 2-AF", "vectors", "vectors w/ 2-AF"]
WITH_FLOW = [case for case in CASES if "AF" in case]
WITH_LATENTS = CASES[2:]


def build(case: str, norm: str | None = "group") -> Pair:
    """Every case of Eq. 20, with small networks and weights that are not small."""
    pyro.set_rng_seed(3)
    depth = int(case[-4]) if "AF" in case else 0
    vectors = "vectors" in case
    frame_shape = (2,) if vectors else FRAME
    flow = stack([_flow(vectors, norm, level) for level in range(depth)])
    if "SLVM" not in case and not vectors:
        pair = Pair(FlowModel(flow, frame_shape), None)
    else:
        prior = LSTMConditioner(LATENT, hidden=8, pre_network=mlp(LATENT, 5))
        decoder = (
            MLPDecoder(LATENT, 2, hidden=(8,))
            if vectors
            else ConvDecoder(LATENT, frame_shape, width=4, norm=norm)
        )
        encoder = (
            MLPEncoder(2, features=6, hidden=(8,))
            if vectors
            else ConvEncoder(frame_shape, features=6, width=4, norm=norm)
        )
        model = SLVM(frame_shape, LATENT, prior=TemporalAffine(prior), decoder=decoder, flow=flow)
        pair = Pair(model, FilteringGuide(model, encoder, hidden=8, layers=2))
    for module in filter(None, pair):
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return pair


def _flow(vectors: bool, norm: str | None, level: int) -> TemporalAffine:
    residual = level == 1
    if vectors:
        conditioner = MLPConditioner(2, hidden=(8,), window=2, residual=residual)
        return TemporalAffine(conditioner, initial="learned")
    return TemporalAffine(ConvConditioner(1, hidden=4, depth=2, norm=norm, residual=residual))


def stack(flows: list[TemporalAffine]) -> TemporalTransform | None:
    if len(flows) < 2:
        return flows[0] if flows else None
    return TemporalChain(flows)


def levels(model: nn.Module) -> list[TemporalAffine]:
    """The flows, the one nearest to the frames first."""
    if isinstance(model.flow, TemporalChain):
        return list(reversed(model.flow.parts))
    return [model.flow] if model.flow is not None else []


def frames(model: nn.Module, batch: int = BATCH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, model.context_length + SCORED, *model.frame_shape)
    return torch.rand(shape, generator=generator)


def loss(pair: Pair, x: Tensor, *, seed: int = 7, **arguments: Any) -> Tensor:
    pyro.set_rng_seed(seed)
    elbo = Trace_ELBO()
    return elbo.differentiable_loss(pair.model, pair.guide or no_guide, x, **arguments)


def gradients(pair: Pair) -> dict[str, Tensor]:
    owners = {"model": pair.model, "guide": pair.guide}
    return {
        f"{owner}.{name}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for owner, module in owners.items()
        if module is not None
        for name, p in module.named_parameters()
    }


def sample(pair: Pair, x: Tensor, **arguments: Any) -> poutine.Trace:
    return poutine.trace(pair.guide).get_trace(x, **arguments)


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
            shift, log_scale = (p[:, 0] for p in flow.conditioner(x[t][:, None], history=history))
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
            total(normal(z[:, i], a.shift[:, 0], a.log_scale[:, 0].exp()))
            for a in (posterior, prior)
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
        distribution = model.frames(torch.randn(BATCH, SCORED, LATENT), model.split(x))
    scored = x[:, model.context_length :]
    per_step = log_prob_per_step(distribution, scored)
    assert per_step.shape == (BATCH, SCORED)
    torch.testing.assert_close(per_step.sum(1), distribution.log_prob(scored), rtol=1e-12, atol=0)


def test_no_log_prob_per_step_of_what_couples_time() -> None:
    whole = dist.MultivariateNormal(torch.zeros(3), torch.eye(3)).expand([2]).to_event(1)
    with pytest.raises(TypeError, match="no log-probability per step of"):
        log_prob_per_step(whole, torch.zeros(2, 3))


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


# ---- one pass of the flow per evaluation, and never a stale one ----


def count(pair: Pair) -> dict[str, int]:
    """Calls of each part of the flow's networks, counted from now on."""
    calls: dict[str, int] = {}
    for level, flow in enumerate(levels(pair.model)):
        for part in ("encoder", "body"):
            name = f"{part} {level}"
            calls[name] = 0

            def hook(*_: Any, name: str = name) -> None:
                calls[name] += 1

            getattr(flow.conditioner, part).register_forward_hook(hook)
    return calls


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("case", WITH_FLOW)
def test_the_flow_runs_once_per_evaluation(case: str, particles: int) -> None:
    pair = build(case)
    x, calls = frames(pair.model), count(pair)
    assert calls
    elbo = Trace_ELBO(
        num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1
    )
    for evaluation in range(1, 4):
        elbo.loss_and_grads(pair.model, pair.guide or no_guide, x)
        assert set(calls.values()) == {evaluation}


@pytest.mark.parametrize("case", WITH_FLOW)
def test_the_flow_runs_once_with_padding_and_without_gradients(case: str) -> None:
    pair = build(case)
    x, calls = frames(pair.model), count(pair)
    lengths = torch.full((BATCH,), x.shape[1])
    lengths[0] -= 1
    loss(pair, x, lengths=lengths).backward()
    assert set(calls.values()) == {1}
    with torch.no_grad():
        bound_terms(pair.model, pair.guide, x, num_particles=5)
    assert set(calls.values()) == {2}


def take_a_step(pair: Pair, x: Tensor, optimizer: type, **options: Any) -> None:
    parameters = list(pair.model.parameters())
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer(parameters, lr=1e-2, **options).step()


CHANGES: dict[str, Callable[[Pair, Tensor], Any]] = {
    "SGD": lambda pair, x: take_a_step(pair, x, torch.optim.SGD, foreach=False),
    "Adam, foreach": lambda pair, x: take_a_step(pair, x, torch.optim.Adam, foreach=True),
    "Adam, fused": lambda pair, x: take_a_step(pair, x, torch.optim.Adam, fused=True),
    "eval": lambda pair, x: pair.model.eval(),
    "eval of the flow": lambda pair, x: pair.model.flow.eval(),
    "load_state_dict": lambda pair, x: pair.model.load_state_dict(
        {k: v * 1.1 if v.is_floating_point() else v for k, v in pair.model.state_dict().items()}
    ),
    "parameter data": lambda pair, x: [
        setattr(p, "data", p.data * 1.1) for p in pair.model.flow.parameters()
    ],
    "statistics of a frozen norm": lambda pair, x: pair.model.flow.get_buffer(
        next(name for name, _ in pair.model.flow.named_buffers() if "mean" in name)
    ).add_(0.5),
    "new parameter": lambda pair, x: setattr(
        levels(pair.model)[0].conditioner.heads, "bias", nn.Parameter(torch.ones(2))
    ),
    "x in place": lambda pair, x: x.mul_(0.5),
    "context in place": lambda pair, x: x[:, 0].mul_(0.5),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("case", ["1-AF", "SLVM w/ 2-AF"])
def test_no_value_outlives_what_it_was_made_from(case: str, change: str, grad: bool) -> None:
    pair = build(case, norm="batch")
    x = frames(pair.model)
    if change.endswith("norm"):
        for module in pair.model.modules():
            module.train(not isinstance(module, nn.BatchNorm2d))
    with torch.set_grad_enabled(grad):
        before = loss(pair, x).item()
        CHANGES[change](pair, x)
        fresh = copy.deepcopy(pair)  # remembers nothing
        after = loss(pair, x).item()
        assert after == loss(fresh, x).item()
    assert after != before


def test_arrays_that_share_memory_are_told_apart() -> None:
    model = build("1-AF").model
    array = frames(model).numpy()
    with torch.no_grad():
        first = model.log_prob(torch.from_numpy(array))
        array *= 0.5
        second = model.log_prob(torch.from_numpy(array))
    assert not torch.equal(first, second)
    assert torch.equal(second, copy.deepcopy(model).log_prob(torch.from_numpy(array)))


def test_a_buffer_that_is_read_in_training_counts(float64: None) -> None:
    pair = build("vectors w/ 2-AF")
    flow = levels(pair.model)[0]
    flow.conditioner.body = nn.Sequential(flow.conditioner.body, Scaled())
    x = frames(pair.model)
    before = loss(pair, x).item()
    flow.conditioner.body[1].factor.fill_(2.0)
    after = loss(pair, x).item()
    assert after == loss(copy.deepcopy(pair), x).item()
    assert after != before


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize("case", WITH_FLOW)
def test_no_value_without_gradient_is_trained_on(case: str) -> None:
    pair = build(case)
    x, fresh = frames(pair.model), build(case)
    with torch.no_grad():
        loss(pair, x)
    for each in (pair, fresh):
        loss(each, x).backward()
    for name, gradient in gradients(fresh).items():
        assert torch.equal(gradients(pair)[name], gradient), name
    flow = [p for p in pair.model.flow.parameters() if p.grad is not None]
    assert len(flow) == len(list(pair.model.flow.parameters()))
    with torch.no_grad():
        assert not loss(pair, x).requires_grad


@pytest.mark.parametrize("case", WITH_FLOW)
def test_the_gradient_is_that_of_finite_differences(case: str, float64: None) -> None:
    pair = build(case)
    x, step = frames(pair.model), 1e-6
    loss(pair, x).backward()
    flow = levels(pair.model)[0].conditioner.heads
    bias = flow.bias.grad[0].item()
    both = []
    for sign in (1, -1):
        with torch.no_grad():
            flow.bias[0] += sign * step if sign > 0 else -2 * step
            both.append(loss(pair, x).item())
    assert (both[0] - both[1]) / (2 * step) == pytest.approx(bias, rel=1e-5)


# ---- ragged batches ----


def ragged(pair: Pair) -> tuple[Tensor, Tensor]:
    x = frames(pair.model, batch=3)
    context = pair.model.context_length
    return x, torch.tensor([context + 1, context + SCORED, context + 2])


@pytest.mark.parametrize("norm", [None, "group"])
@pytest.mark.parametrize("case", CASES)
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
@pytest.mark.parametrize("case", CASES)
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


@pytest.mark.parametrize("case", CASES)
def test_full_lengths_change_nothing(case: str, float64: None) -> None:
    pair = build(case)
    x = frames(pair.model)
    lengths = torch.full((BATCH,), x.shape[1])
    assert loss(pair, x, lengths=lengths).item() == pytest.approx(loss(pair, x).item(), rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_terms_of_a_ragged_batch_are_zero_after_the_end(case: str, float64: None) -> None:
    pair = build(case)
    x, lengths = ragged(pair)
    terms = bound_terms(pair.model, pair.guide, x, lengths=lengths)
    for i, length in enumerate((lengths - pair.model.context_length).tolist()):
        assert terms.log_likelihood[0, i, :length].all()
        assert not terms.log_likelihood[0, i, length:].any()
        assert not terms.kl[0, i, length:].any()


# ---- any guide with a site z ----


@pytest.mark.parametrize("case", WITH_LATENTS)
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
