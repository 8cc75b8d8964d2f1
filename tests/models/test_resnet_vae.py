"""The ResNet VAE: its bound layer by layer, its shared pass, its IAFs and free bits."""

import copy
import math
from contextlib import ExitStack
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import Pair, ResNetVAE, ResNetVAEGuide
from pyro_afslvm.objectives import FreeBitsELBO, bound_terms, iwae
from tests.support.pairs import check_training, parameters
from tests.support.registry import calls, perturb

SHAPE = (1, 8, 8)


def make(
    *, layers: tuple[int, ...] = (1, 2), iaf_depth: int = 1, seed: int = 1, moved: bool = True
) -> Pair:
    """A small pair in float64 with random weights, or as it is at the start of training."""
    torch.manual_seed(seed)
    model = ResNetVAE(SHAPE, layers=layers, channels=2, width=4)
    guide = ResNetVAEGuide(model, iaf_depth=iaf_depth, iaf_hidden=(4,), context_channels=3)
    for part in (model.double(), guide.double()):
        with torch.no_grad():
            if moved:
                perturb(part)
    return Pair(model, guide)


def images(batch: int = 4, length: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, length, *SHAPE, generator=generator, dtype=torch.float64).round()


def traces(pair: Pair, x: Tensor) -> tuple[Any, Any]:
    q = poutine.trace(pair.guide).get_trace(x)
    return q, poutine.trace(poutine.replay(pair.model, trace=q)).get_trace(x)


# the mathematics ------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("iaf_depth", [0, 2])
def test_the_bound_is_the_sum_of_its_layers_terms(length: int, iaf_depth: int) -> None:
    """Every term is written out here: Gaussians, Algorithm 1, and Bernoulli pixels."""
    pair, x = make(iaf_depth=iaf_depth), images(length=length)
    pyro.set_rng_seed(5)
    q, _ = traces(pair, x)
    latents = [q.nodes[site]["value"] for site in ("z_3", "z_2", "z_1")]
    below = pair.guide.bottom_up(x)
    features, total = pair.model.top.expand(4, length, *pair.model.top.shape), 0.0
    for i, z in enumerate(latents):
        layer, index = pair.model.top_down[i], 2 - i
        head = _each(layer.prior, nn.functional.elu(features))
        total += _normal(z, *head.chunk(2, -3)).sum()
        head = below[i] + _each(pair.guide.from_above[index], nn.functional.elu(features))
        mean, log_scale = head[..., :2, :, :], head[..., 2:4, :, :]
        iaf = pair.guide.iaf[index]
        context = nn.functional.elu(head[..., 4:, :, :]) if iaf_depth else None
        z0 = iaf.condition(context).inv(z.detach().clone())  # by the sequential inverse
        log_q, moved = _normal(z0, mean, log_scale).sum(), z0
        for network in iaf.networks:
            m, s = network(moved, context)
            sigma = torch.sigmoid(s)
            moved = sigma * moved + (1 - sigma) * m
            log_q -= sigma.log().sum()
        torch.testing.assert_close(moved, z)
        total -= log_q
        mixed = _each(layer.inner, nn.functional.elu(features)) + _each(layer.latent, z)
        features = features + _each(layer.outer, nn.functional.elu(mixed))
        features = features if layer.up is None else _each(layer.up, features)
    logits = _each(pair.model.pixels, nn.functional.elu(features))
    total += nn.functional.logsigmoid(torch.where(x.bool(), logits, -logits)).sum()
    pyro.set_rng_seed(5)
    assert -Trace_ELBO().loss(pair.model, pair.guide, x) == pytest.approx(total.item(), rel=1e-9)
    pyro.set_rng_seed(5)
    terms = bound_terms(pair.model, pair.guide, x)
    assert terms.bound.shape == (1, 4, length)
    assert terms.bound.sum().item() == pytest.approx(total.item(), rel=1e-9)


def _each(network: nn.Module, x: Tensor) -> Tensor:
    y = network(x.flatten(0, 1))
    return y.unflatten(0, x.shape[:2])


def _normal(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    standard = (z - mean) / log_scale.exp()
    return -(standard**2 / 2 + log_scale + math.log(2 * math.pi) / 2)


def test_sites_from_the_top_down() -> None:
    pair, x = make(layers=(2, 1)), images()
    q, p = traces(pair, x)
    shapes = {"z_3": (4, 1, 2, 2, 2), "z_2": (4, 1, 2, 4, 4), "z_1": (4, 1, 2, 4, 4)}
    assert list(q.stochastic_nodes)[-3:] == list(pair.model.sites) == list(shapes)
    for site, shape in shapes.items():
        for trace in (q, p):
            assert trace.nodes[site]["value"].shape == shape
            assert trace.nodes[site]["fn"].event_shape == shape[1:]
            assert [f.name for f in trace.nodes[site]["cond_indep_stack"]] == ["image"]


def test_a_layer_sees_those_above_and_the_image() -> None:
    """In the posterior all of the image; in the prior what was drawn above."""
    pair, x = make(iaf_depth=0), images()
    z = [torch.randn(4, 1, 2, 2, 2, dtype=torch.float64) for _ in range(2)]
    other = [a.clone() for a in z]
    other[0][0] += 1.0
    below = pair.guide.bottom_up(x)[2]
    for level in (pair.model.level, lambda above: pair.guide.posterior(below, above)):
        changed = _parameters(level(tuple(z))) != _parameters(level(tuple(other)))
        assert changed[0].any()
        assert not changed[1:].any()
    moved = x.clone()
    moved[2, 0, 0, 7, 7] = 1 - moved[2, 0, 0, 7, 7]
    for a, b in zip(pair.guide.bottom_up(x), pair.guide.bottom_up(moved), strict=True):
        assert (a[2] != b[2]).any()
        assert torch.equal(a[:2], b[:2])


def _parameters(level: Any) -> Tensor:
    return level.prior if hasattr(level, "prior") else level.base_dist.loc


@pytest.mark.parametrize("layers", [(1,), (2,), (1, 2)])
def test_the_top_down_pass_runs_once(layers: tuple[int, ...]) -> None:
    pair, x = make(layers=layers), images()
    with ExitStack() as stack:
        inner = [stack.enter_context(calls(layer.outer)) for layer in pair.model.top_down]
        flows = [stack.enter_context(calls(iaf.networks[0])) for iaf in pair.guide.iaf]
        Trace_ELBO().differentiable_loss(pair.model, pair.guide, x).backward()
        assert [counter.count for counter in inner] == [1] * sum(layers)
        assert [counter.count for counter in flows] == [1] * sum(layers)


def test_the_shared_pass_is_never_stale() -> None:
    pair, x = make(), images()
    adam = torch.optim.Adam(parameters(pair), lr=1e-2)
    loss = Trace_ELBO()(pair.model, pair.guide)
    for _ in range(2):
        adam.zero_grad()
        loss(x).backward()
        adam.step()
    latents = tuple(torch.randn(4, 1, 2, 2, 2, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        before = pair.model.level(latents)
        pair.model.down[1].outer.weight.mul_(2)  # of the layer before
        after = pair.model.level(latents)
        assert not torch.allclose(before.features, after.features)
        pair.model.down[2].prior.weight.mul_(2)  # of the layer itself
        assert not torch.allclose(after.prior, pair.model.level(latents).prior)
        pair.model.top.add_(1.0)  # of the very top
        assert not torch.allclose(after.features, pair.model.level(latents).features)
        fresh = copy.deepcopy(pair.model).level(latents)
        assert torch.equal(fresh.features, pair.model.level(latents).features)


def test_gradients_with_and_without_the_shared_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for shared in (True, False):
        pair, x = make(), images()
        if not shared:
            for memo in pair.model._memos:
                monkeypatch.setattr(memo, "find", lambda *_: None)
        pyro.set_rng_seed(2)
        Trace_ELBO()(pair.model, pair.guide)(x).backward()
        found.append([p.grad for p in parameters(pair)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


# estimates and gradients ----------------------------------------------------------------


def test_vectorised_particles_are_the_same_estimate() -> None:
    pair, x = make(moved=False), images()
    one = iwae(pair.model, pair.guide, x, num_particles=1000, chunk=250)
    other = iwae(pair.model, pair.guide, x, num_particles=100, chunk=1)
    error = (one.error**2 + other.error**2).sqrt()
    assert ((one.log_evidence - other.log_evidence).abs() < 5 * error + 0.05).all()
    bound = bound_terms(pair.model, pair.guide, x, num_particles=50).bound.mean(0).sum(-1)
    assert (one.log_evidence > bound).all()


@pytest.mark.parametrize("iaf_depth", [0, 1])
def test_every_parameter_moves_and_svi_and_torch_agree(iaf_depth: int) -> None:
    check_training(make(iaf_depth=iaf_depth), images())


def test_distributions_are_in_single_precision_under_autocast() -> None:
    model, guide = (part.float() for part in make())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q, p = traces(Pair(model, guide), images().float())
    for site in model.sites:
        assert q.nodes[site]["value"].dtype == p.nodes[site]["fn"].base_dist.loc.dtype
        assert q.nodes[site]["value"].dtype == torch.float32
    assert p.nodes["x"]["fn"].base_dist.logits.dtype == torch.float32


# free bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("iaf_depth", [0, 2])
def test_free_bits_by_hand(channels: bool, iaf_depth: int) -> None:
    """With a sample's own divergences, group by group, and a lambda between them."""
    pair, x = make(iaf_depth=iaf_depth), images(length=2)
    pyro.set_rng_seed(5)
    q, p = traces(pair, x)
    likelihood = p.nodes["x"]["fn"].log_prob(x).sum()
    groups = []
    for site in pair.model.sites:
        z, of_q = q.nodes[site]["value"], q.nodes[site]["fn"]
        log_q = torch.zeros(())
        if iaf_depth:
            (transform,) = of_q.transforms
            z0, of_q = transform.inv(z), of_q.base_dist
            log_q = -transform.log_scale(z)
        else:
            z0 = z
        log_q = log_q + of_q.base_dist.log_prob(z0)
        kl = (log_q - p.nodes[site]["fn"].base_dist.log_prob(z)).sum((-2, -1)).sum(1).mean(0)
        groups += kl.tolist() if channels else [kl.sum().item()]
    assert len(groups) == (6 if channels else 3)
    nats = sorted(groups)[len(groups) // 2] + 1e-3  # above half of them
    expected = likelihood - 4 * sum(max(nats, kl) for kl in groups)
    elbo = FreeBitsELBO(nats, channels=channels)
    pyro.set_rng_seed(5)
    assert -elbo.loss(pair.model, pair.guide, x) == pytest.approx(expected.item(), rel=1e-9)
    pyro.set_rng_seed(5)
    assert -elbo.loss(pair.model, pair.guide, x) < -Trace_ELBO().loss(pair.model, pair.guide, x)


def test_no_free_bits_is_the_plain_bound_where_divergences_are_positive() -> None:
    pair, x = make(), images()
    found = []
    for elbo in (FreeBitsELBO(0.0), Trace_ELBO()):
        for part in pair:
            part.zero_grad()
        pyro.set_rng_seed(4)
        found.append((elbo.loss_and_grads(pair.model, pair.guide, x), parameters(pair)[0].grad))
    (free, of_free), (plain, of_plain) = found
    assert free == pytest.approx(plain, rel=1e-12)
    torch.testing.assert_close(of_free, of_plain)


def test_free_bits_leave_a_cheap_group_alone() -> None:
    """No gradient of the divergence where all groups are below lambda."""
    pair, x = make(), images()
    pyro.set_rng_seed(3)
    FreeBitsELBO(1e6).differentiable_loss(pair.model, pair.guide, x).backward()
    heads = [layer.prior for layer in pair.model.top_down]
    assert all(head.weight.grad is None or not head.weight.grad.any() for head in heads)


@pytest.mark.parametrize("nats", [-1.0, math.inf, math.nan])
def test_free_bits_are_a_number(nats: float) -> None:
    with pytest.raises(ValueError, match=rf"finite free bits of at least 0 nats, got {nats:g}$"):
        FreeBitsELBO(nats)


def test_free_bits_are_scaled_as_the_programs_are() -> None:
    pair, x = make(), images()
    losses = []
    for scale in (1.0, 0.25):
        pyro.set_rng_seed(3)
        programs = (poutine.scale(part, scale) for part in pair)
        losses.append(FreeBitsELBO(5.0).loss(*programs, x))
    assert losses[1] == pytest.approx(losses[0] / 4, rel=1e-12)


def test_samples_from_nothing_and_after_images() -> None:
    pair = make()
    assert pair.model(horizon=5).shape == (1, 5, *SHAPE)
    predictive = Predictive(pair.model, guide=pair.guide, num_samples=3, parallel=True)
    sampled = predictive(images(), horizon=2)
    assert sampled["x_future"].shape == (3, 4, 2, *SHAPE)
    assert sampled["z_3_future"].shape == (3, 4, 2, 2, 2, 2)
    assert pair.model.sample_mean(7).shape == (7, *SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, r"at each size, channel and width, got \(\), 4 and 32"),
        ({"layers": (1, 0)}, r"got \(1, 0\), 4 and 32"),
        ({"channels": 0}, r"got \(1, 2\), 0 and 32"),
        ({"layers": (1, 1, 1, 1)}, "images of 8 x 8 cannot be halved 4 times"),
    ],
)
def test_what_cannot_be_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ResNetVAE(SHAPE, **options)
    assert "\n" not in str(error.value)
