"""The ResNet VAE: its bound layer by layer, its shared pass, its IAFs and free bits."""

import copy
import math
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import Pair, ResNetVAE, ResNetVAEGuide
from pyro_afslvm.models.vae.handover import Handover
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
    below, layer = pair.guide.bottom_up(x)[2], pair.model.top_down[2]
    for of_z in (
        lambda above: pair.model.prior(layer, above, (4, 1)),
        lambda above: pair.guide.posterior(2, below, above),
    ):
        one, two = (of_z(pair.model.features(tuple(latents))) for latents in (z, other))
        changed = one.base_dist.loc != two.base_dist.loc
        assert changed[0].any()
        assert not changed[1:].any()
    moved = x.clone()
    moved[2, 0, 0, 7, 7] = 1 - moved[2, 0, 0, 7, 7]
    for a, b in zip(pair.guide.bottom_up(x), pair.guide.bottom_up(moved), strict=True):
        assert (a[2] != b[2]).any()
        assert torch.equal(a[:2], b[:2])


@pytest.mark.parametrize("layers", [(1,), (2,), (1, 2)])
def test_the_top_down_pass_runs_once(layers: tuple[int, ...]) -> None:
    pair, x = make(layers=layers), images()
    with ExitStack() as stack:
        inner = [stack.enter_context(calls(layer.outer)) for layer in pair.model.top_down]
        flows = [stack.enter_context(calls(iaf.networks[0])) for iaf in pair.guide.iaf]
        Trace_ELBO().differentiable_loss(pair.model, pair.guide, x).backward()
        assert [counter.count for counter in inner] == [1] * sum(layers)
        assert [counter.count for counter in flows] == [1] * sum(layers)


def joint(pair: Pair, x: Tensor, trace: Any) -> poutine.Trace:
    """The model replayed with a trace of a guide, scored."""
    p = poutine.trace(poutine.replay(pair.model, trace=trace)).get_trace(x)
    p.compute_log_prob()
    return p


def log_joint(pair: Pair, x: Tensor, trace: Any) -> Tensor:
    return joint(pair, x, trace).log_prob_sum()


def without_handover(trace: poutine.Trace) -> poutine.Trace:
    """The same latents from a guide that hands over nothing."""
    trace = trace.copy()
    for node in trace.nodes.values():
        if node["type"] == "sample":
            node["infer"] = {}
    return trace


def _in_place(pair: Pair) -> None:
    with torch.no_grad():
        pair.model.down[0].outer.weight.mul_(2.0)


def _of_the_last_layer(pair: Pair) -> None:
    with torch.no_grad():
        pair.model.down[2].inner.weight.mul_(2.0)


def _of_the_top(pair: Pair) -> None:
    with torch.no_grad():
        pair.model.top.add_(1.0)


def _of_a_prior(pair: Pair) -> None:
    with torch.no_grad():
        pair.model.down[1].prior.bias.add_(1.0)


def _fused_step(pair: Pair) -> None:
    for p in pair.model.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.Adam(pair.model.parameters(), lr=1e-2, fused=True).step()


def _another_layer(pair: Pair) -> None:
    pair.model.down[1].outer = nn.Conv2d(4, 4, 3, padding=1).double()


def _hook(pair: Pair) -> None:
    pair.model.down[0].inner.register_forward_hook(lambda _module, _inputs, out: 0.5 * out)


@pytest.mark.parametrize(
    "change",
    [
        _in_place,
        _of_the_last_layer,
        _of_the_top,
        _of_a_prior,
        _fused_step,
        _another_layer,
        _hook,
    ],
)
def test_features_of_before_a_change_are_not_taken(change: Any) -> None:
    """A model is replayed with what its guide drew when the parameters were others."""
    pair, x = make(layers=(1, 2)), images()
    q = poutine.trace(pair.guide).get_trace(x)
    before = log_joint(pair, x, without_handover(q))
    change(pair)
    after = log_joint(pair, x, q)
    assert after == log_joint(copy.deepcopy(pair), x, without_handover(q))
    assert after != before


def test_features_are_taken_once() -> None:
    pair, x = make(), images()
    with ExitStack() as stack:
        seen = [stack.enter_context(calls(layer.outer)) for layer in pair.model.top_down]
        q = poutine.trace(pair.guide).get_trace(x)
        found, counts = [], []
        for _ in range(3):
            before = sum(counter.count for counter in seen)
            found.append(log_joint(pair, x, q))
            counts.append(sum(counter.count for counter in seen) - before)
    assert counts == [1, 3, 3]  # no guide needs what is below the last layer
    assert found[0] == found[1] == found[2]


def test_features_go_with_their_latents() -> None:
    """Of two guide traces each model run takes its own, in any order; other latents have none."""
    pair, x = make(), images()
    traces = [poutine.trace(pair.guide).get_trace(x) for _ in range(3)]
    expected = [log_joint(pair, x, without_handover(q)) for q in traces]
    assert [log_joint(pair, x, q) for q in traces[1::-1]] == expected[1::-1]
    mixed = traces[2].copy()
    mixed.nodes["z_3"]["value"] = traces[0].nodes["z_3"]["value"]
    assert log_joint(pair, x, mixed) == log_joint(pair, x, without_handover(mixed))
    moved = poutine.trace(pair.guide).get_trace(x)
    with torch.no_grad():
        moved.nodes["z_2"]["value"].mul_(2.0)
    assert log_joint(pair, x, moved) == log_joint(pair, x, without_handover(moved))


def test_features_without_a_gradient_are_not_trained_on() -> None:
    pair, other, x = make(), make(), images()
    with torch.no_grad():
        q = poutine.trace(pair.guide).get_trace(x)
    log_joint(pair, x, q).backward()
    log_joint(other, x, without_handover(q)).backward()
    for mine, theirs in zip(pair.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    detached = poutine.trace(pair.guide).get_trace(x)
    detached.detach_()  # as wake-sleep does
    log_joint(pair, x, detached).backward()
    assert all(p.grad is None for p in pair.guide.parameters())
    with torch.no_grad():
        assert not log_joint(pair, x, poutine.trace(pair.guide).get_trace(x)).requires_grad


def test_gradients_with_and_without_the_handover(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for shared in (True, False):
        pair, x = make(), images()
        if not shared:
            monkeypatch.setattr(Handover, "take", lambda *_: None)
        pyro.set_rng_seed(2)
        Trace_ELBO()(pair.model, pair.guide)(x).backward()
        found.append([p.grad for p in parameters(pair)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_guide_of_another_kind_with_the_same_sites() -> None:
    pair, x = make(), images()
    shapes = ((2, 2, 2), (2, 2, 2), (2, 4, 4))

    def guide(x: Tensor) -> None:
        with pyro.plate("image", len(x), dim=-1):
            for site, shape in zip(pair.model.sites, shapes, strict=True):
                normal = dist.Normal(torch.zeros(1, *shape, dtype=torch.float64), 1.0)
                pyro.sample(site, normal.to_event(4))

    q = poutine.trace(guide).get_trace(x)
    p = poutine.trace(poutine.replay(pair.model, trace=q)).get_trace(x)
    latents = tuple(q.nodes[site]["value"] for site in pair.model.sites)
    logits = p.nodes["x"]["fn"].base_dist.logits
    assert torch.equal(logits, pair.model.logits(latents))
    assert math.isfinite(Trace_ELBO().loss(pair.model, guide, x))


def test_names_of_the_parameters() -> None:
    """By which stored runs are loaded."""
    pair = make(layers=(1, 1))
    of_model = {name.split(".")[0] for name in pair.model.state_dict()}
    assert of_model == {"top", "down", "pixels"}
    layer = {name.split(".")[2] for name in pair.model.state_dict() if name.startswith("down.0.")}
    assert layer == {"prior", "inner", "latent", "outer", "up"}
    of_guide = {name.split(".")[0] for name in pair.guide.state_dict()}
    assert of_guide == {"stem", "up", "from_below", "from_above", "iaf"}


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
    for parallel in (True, False):
        predictive = Predictive(pair.model, guide=pair.guide, num_samples=3, parallel=parallel)
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
