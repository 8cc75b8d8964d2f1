"""The inverse autoregressive flow: Algorithm 1 by hand, its Jacobian, and what surrounds it."""

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from pyro_afslvm.distributions import across_time, standard_normal
from pyro_afslvm.transforms import InverseAutoregressive, LSTMConditioner, TemporalAffine
from tests.support.registry import calls, perturb

FEATURES, CONTEXT = 3, 2
ORDER = (2, 0, 1)


def make(
    *,
    features: int = FEATURES,
    context: int = CONTEXT,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> InverseAutoregressive:
    """A small one with random weights; the same seed gives the same."""
    torch.manual_seed(seed)
    options = {"hidden": (5, 4), "initial_bias": 1.0} | options
    iaf = InverseAutoregressive(features, context_features=context, **options).to(dtype)
    for made in iaf.networks:
        nn.init.normal_(made.layers[-1].weight)
    perturb(iaf)
    return iaf


def draw(*batch: int, size: int = FEATURES) -> Tensor:
    return torch.randn(*batch, size, dtype=torch.float64)


def context_for(iaf: InverseAutoregressive, *batch: int) -> Tensor | None:
    return draw(*batch, size=iaf.context_features) if iaf.context_features else None


@contextmanager
def passes(iaf: InverseAutoregressive) -> Iterator[Callable[[], int]]:
    """How often any step's network has run so far."""
    with ExitStack() as stack:
        counters = [stack.enter_context(calls(made)) for made in iaf.networks]
        yield lambda: sum(counter.count for counter in counters)


def dense(
    layer: Any, inputs: list[float], activation: Callable[[float], float] | None
) -> list[float]:
    weight, mask, bias = layer.weight.tolist(), layer.mask.tolist(), layer.bias.tolist()
    outputs = []
    for row, seen, total in zip(weight, mask, bias, strict=True):
        for w, counts, value in zip(row, seen, inputs, strict=True):
            total += w * value if counts else 0.0
        outputs.append(activation(total) if activation else total)
    return outputs


def algorithm_1(iaf: InverseAutoregressive, z: Tensor, h: Tensor | None) -> tuple[Tensor, float]:
    """One vector, number after number."""
    values, log_det = z.tolist(), 0.0
    for made in iaf.networks:
        outputs = [*([] if h is None else h.tolist()), *values]
        for layer in made.layers[:-1]:
            outputs = dense(layer, outputs, lambda a: a if a > 0 else math.expm1(a))
        outputs = dense(made.layers[-1], outputs, None)
        for i, (m, s) in enumerate(
            zip(outputs[: len(values)], outputs[len(values) :], strict=True)
        ):
            sigma = 1 / (1 + math.exp(-s))
            values[i] = sigma * values[i] + (1 - sigma) * m
            log_det += math.log(sigma)
    return torch.tensor(values, dtype=torch.float64), log_det


KINDS = [
    {"context": 0},
    {"context": CONTEXT},
    {"context": CONTEXT, "order": ORDER},
    {"context": 0, "features": 1},
    {"context": CONTEXT, "features": 1},
    {"context": 0, "features": 2},
]
# every kind with one depth, every depth with one kind
CASES = [(kind, 2) for kind in KINDS] + [(KINDS[2], depth) for depth in (0, 1, 3)]
cases = pytest.mark.parametrize(
    ("kind", "depth"),
    CASES,
    ids=["-".join(map(str, [*kind.values(), depth])) for kind, depth in CASES],
)


# the mathematics ------------------------------------------------------------------------


@cases
def test_algorithm_1_by_hand(kind: dict[str, Any], depth: int) -> None:
    iaf = make(depth=depth, **kind)
    z, h = draw(4, size=iaf.features), context_for(iaf, 4)
    conditioned = iaf.condition(h)
    value = conditioned(z)
    log_det = conditioned.log_abs_det_jacobian(z, value)
    for n in range(4):
        known, known_log_det = algorithm_1(iaf, z[n], None if h is None else h[n])
        torch.testing.assert_close(value[n], known, rtol=0, atol=1e-10)
        assert abs(log_det[n].item() - known_log_det) < 1e-10
    if depth:
        assert (value - z).abs().max() > 0.1  # the weights are no identity


@cases
def test_log_det_is_that_of_the_jacobian(kind: dict[str, Any], depth: int) -> None:
    iaf = make(depth=depth, **kind)
    z, h = draw(size=iaf.features), context_for(iaf)
    conditioned = iaf.condition(h)
    value = conditioned(z)
    expected = torch.linalg.slogdet(jacobian(conditioned, z)).logabsdet
    torch.testing.assert_close(
        conditioned.log_abs_det_jacobian(z, value), expected, rtol=0, atol=1e-10
    )
    backwards = torch.linalg.slogdet(jacobian(conditioned.inv, value.detach())).logabsdet
    torch.testing.assert_close(-backwards, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("context", [0, CONTEXT])
def test_jacobian_of_a_step_is_triangular_in_its_order(context: int) -> None:
    iaf = make(depth=1, context=context, order=ORDER)
    assert iaf.networks[0].permutation.tolist() == list(ORDER)
    full = jacobian(iaf.condition(context_for(iaf)), draw())[ORDER, :][:, ORDER]
    assert (full.triu(1) == 0).all()  # exactly
    assert (full.tril()[full.tril() != 0]).numel() == 6  # and whatever may be seen is seen


def test_each_order_is_the_reverse_of_the_one_before() -> None:
    orders = [made.permutation.tolist() for made in make(depth=3, order=ORDER).networks]
    assert orders == [[2, 0, 1], [1, 0, 2], [2, 0, 1]]
    assert make(depth=2).networks[1].permutation.tolist() == [2, 1, 0]


@cases
def test_inverse(kind: dict[str, Any], depth: int) -> None:
    sampler, scorer = make(depth=depth, **kind), make(depth=depth, **kind)  # no cache can help
    z, h = draw(4, 5, size=sampler.features), context_for(sampler, 4, 5)
    forward, backward = sampler.condition(h), scorer.condition(h)
    torch.testing.assert_close(backward.inv(forward(z)), z, rtol=0, atol=1e-10)
    torch.testing.assert_close(forward(backward.inv(z)), z, rtol=0, atol=1e-10)


def test_gradient_through_the_inverse() -> None:
    iaf = make()
    h = context_for(iaf).requires_grad_()
    parameters = list(iaf.parameters())

    def score(value: Tensor, h: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        iaf.clear_cache()
        conditioned = iaf.condition(h)
        z = conditioned.inv(value)
        return z, conditioned.log_abs_det_jacobian(z, value)

    assert torch.autograd.gradcheck(score, (draw().requires_grad_(), h, *parameters))


def test_own_and_foreign_values_have_the_same_gradient() -> None:
    own, foreign = make(), make()
    z, h = draw(4), draw(4, size=CONTEXT)

    def gradients(iaf: InverseAutoregressive, value: Tensor, noise: Tensor) -> list[Tensor]:
        conditioned = iaf.condition(h)
        loss = conditioned.log_abs_det_jacobian(noise, value).sum()
        return list(torch.autograd.grad(loss, list(iaf.parameters())))

    value = own.condition(h)(z)
    by_cache = gradients(own, value, z)
    by_noise = gradients(foreign, value, z)  # nothing remembered: a pass from the noise
    for a, b in zip(by_cache, by_noise, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_depth_zero_is_exactly_the_identity() -> None:
    iaf = InverseAutoregressive(400, depth=0)  # wider than the default networks, which it lacks
    z = draw(4, size=400)
    assert torch.equal(iaf(z), z)
    assert torch.equal(iaf.inv(z), z)
    assert torch.equal(iaf.log_abs_det_jacobian(z, z), torch.zeros(4, dtype=torch.float64))
    assert not list(iaf.parameters())


@pytest.mark.parametrize(("bias", "depth"), [(1.0, 1), (2.0, 4), (8.0, 4)])
def test_started_near_the_identity(bias: float, depth: int) -> None:
    """z_K = sigma^K z and little more: the gates are open, and m is small."""
    iaf = InverseAutoregressive(32, context_features=8, depth=depth, initial_bias=bias)
    z, h = torch.randn(100, 32), torch.randn(100, 8)
    conditioned, sigma = iaf.condition(h), torch.tensor(bias).sigmoid()
    value = conditioned(z)
    log_det = conditioned.log_abs_det_jacobian(z, value)
    moved = 1 - sigma**depth
    assert (value - sigma**depth * z).abs().max() < 0.3 * moved
    assert (value - z).abs().max() < moved * (z.abs().max() + 0.3)
    for made in iaf.networks:
        assert made.layers[-1].bias.tolist() == [0.0] * 32 + [bias] * 32
    torch.testing.assert_close(
        log_det, (32 * depth * sigma.log()).expand(100), rtol=0.02, atol=1e-6
    )
    assert (log_det != log_det[0]).any()  # and yet it already depends on what it sees


# shapes, padding, precision -------------------------------------------------------------


def test_particles_are_a_loop() -> None:
    iaf = make()
    z, h = draw(6, 2, 4), draw(2, 4, size=CONTEXT)
    conditioned = iaf.condition(h)
    value = conditioned(z)
    log_det = conditioned.log_abs_det_jacobian(z, value)
    assert log_det.shape == (6, 2, 4)
    for n in range(6):
        alone = conditioned(z[n])
        torch.testing.assert_close(value[n], alone, rtol=0, atol=1e-12)
        known = conditioned.log_abs_det_jacobian(z[n], alone)
        torch.testing.assert_close(log_det[n], known, rtol=0, atol=1e-12)
    iaf.clear_cache()
    torch.testing.assert_close(conditioned.inv(value), z, rtol=0, atol=1e-10)


def test_values_are_broadcast_to_their_context() -> None:
    iaf, h = make(), draw(2, 4, size=CONTEXT)
    base = dist.Normal(torch.zeros(FEATURES).double(), 1.0).to_event(1)
    moved = dist.TransformedDistribution(base, [iaf.condition(h)])
    assert moved.batch_shape == (2, 4)
    assert iaf.condition(h).inv.forward_shape((FEATURES,)) == (2, 4, FEATURES)
    value = moved.rsample((5,))
    assert value.shape == (5, 2, 4, FEATURES)
    assert value.unique().numel() == value.numel()  # each context has noise of its own
    assert moved.log_prob(value).shape == (5, 2, 4)
    z = draw()
    torch.testing.assert_close(iaf.condition(h)(z)[1, 3], iaf.condition(h[1, 3])(z))


def test_the_context_matters_to_every_entry() -> None:
    iaf = make()
    z = draw()
    seen = jacobian(lambda h: iaf.condition(h)(z), draw(size=CONTEXT))
    assert (seen != 0).all()


@pytest.mark.parametrize(("rubbish", "depth"), [(0.0, 2), (1e30, 2), (math.nan, 2), (math.nan, 0)])
def test_padding_adds_exactly_zero(rubbish: float, depth: int) -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    z, h = draw(2, 3), draw(2, 3, size=CONTEXT)
    iaf, plain = make(depth=depth), make(depth=depth)
    padded_z, padded_h = (a.masked_fill(~mask[..., None], rubbish) for a in (z, h))
    conditioned = iaf.condition(padded_h, mask=mask)
    value = conditioned(padded_z)
    log_det = conditioned.log_abs_det_jacobian(padded_z, value)
    assert torch.equal(log_det[~mask], torch.zeros(2, dtype=torch.float64))
    assert torch.allclose(value[~mask], padded_z[~mask], rtol=0, atol=0, equal_nan=True)
    iaf.clear_cache()
    inverse = conditioned.inv(value)
    assert torch.allclose(inverse[~mask], padded_z[~mask], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(inverse[mask], z[mask], rtol=0, atol=1e-10)
    torch.testing.assert_close(
        conditioned.log_abs_det_jacobian(inverse, value), log_det, rtol=0, atol=1e-10
    )
    # the same numbers and the same gradients as without the padded vectors
    lone = plain.condition(h[mask])
    known = lone(z[mask])
    known_log_det = lone.log_abs_det_jacobian(z[mask], known)
    torch.testing.assert_close(value[mask], known, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det[mask], known_log_det, rtol=0, atol=1e-12)
    if depth:
        for some in (value[mask].square().sum() + log_det.sum(), inverse[mask].sum()):
            for parameter in iaf.parameters():
                (gradient,) = torch.autograd.grad(some, parameter, retain_graph=True)
                assert gradient.isfinite().all()
        (value[mask].square().sum() + log_det.sum()).backward()
        (known.square().sum() + known_log_det.sum()).backward()
        for a, b in zip(iaf.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [0, 2])
def test_values_are_float32_or_better(depth: int) -> None:
    iaf = make(dtype=torch.float32, depth=depth)
    for given, wanted in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        z, h = draw(4).to(given), draw(4, size=CONTEXT).to(given)
        conditioned = iaf.condition(h)
        value = conditioned(z)
        assert value.dtype == wanted
        assert conditioned.log_abs_det_jacobian(z, value).dtype == wanted
        assert conditioned.inv(value.clone()).dtype == wanted


def test_autocast_reaches_the_networks_alone() -> None:
    iaf = make(dtype=torch.float32, depth=1)
    z, h = draw(4).float(), draw(4, size=CONTEXT).float()
    full = iaf.condition(h)(z)
    seen: list[tuple[Tensor, Tensor]] = []
    iaf.networks[0].register_forward_hook(lambda *hook: seen.append(hook[-1]))
    with torch.autocast("cpu", torch.bfloat16):
        conditioned = iaf.condition(h.bfloat16())  # as an encoder under autocast gives it
        value = conditioned(z)
        log_det = conditioned.log_abs_det_jacobian(z, value)
        iaf.clear_cache()
        inverse = conditioned.inv(value)
    assert {output.dtype for outputs in seen for output in outputs} == {torch.bfloat16}
    assert {value.dtype, log_det.dtype, inverse.dtype} == {torch.float32}
    m, s = (output.float() for output in seen[0])  # from here on in float32
    torch.testing.assert_close(value, s.sigmoid() * z + (1 - s.sigmoid()) * m)
    torch.testing.assert_close(log_det, s.sigmoid().log().sum(-1))
    torch.testing.assert_close(value, full, rtol=0.05, atol=0.05)
    torch.testing.assert_close(inverse, z, rtol=0.05, atol=0.05)


# what is remembered ---------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, torch.tensor([True, True, False, True])])
def test_an_own_sample_is_scored_for_nothing(mask: Tensor | None) -> None:
    z, h = draw(4), draw(4, size=CONTEXT)
    for grad in (False, True):
        iaf = make(depth=3)
        with torch.set_grad_enabled(grad), passes(iaf) as count:
            value = iaf.condition(h, mask=mask)(z)
            assert count() == 3
            again = iaf.condition(h, mask=mask)  # conditioned anew, as whoever scores may do
            assert again.inv(value) is z
            again.log_abs_det_jacobian(z, value)
            assert count() == 3


def test_another_value_takes_a_pass_per_entry() -> None:
    iaf = make(depth=2)
    value, conditioned = draw(4), iaf.condition(draw(4, size=CONTEXT))
    with passes(iaf) as count:
        z = conditioned.inv(value)
        assert count() == 2 * FEATURES
        log_det = conditioned.log_abs_det_jacobian(z, value)
        assert count() == 2 * FEATURES
        iaf.clear_cache()
        known = conditioned.log_abs_det_jacobian(z, value)  # the noise is known: no inverse
        assert count() == 2 * FEATURES + 2
    torch.testing.assert_close(log_det, known, rtol=0, atol=1e-10)


def _step(iaf: InverseAutoregressive) -> None:
    optimizer = torch.optim.SGD(iaf.parameters(), lr=0.1)
    for parameter in iaf.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def _load(iaf: InverseAutoregressive) -> None:
    iaf.load_state_dict(make(seed=2, order=ORDER).state_dict())


@pytest.mark.parametrize(("change", "sampled"), [(_step, True), (_load, False)])
def test_nothing_stale_is_handed_out(
    change: Callable[[InverseAutoregressive], None], sampled: bool
) -> None:
    iaf, h = make(), draw(4, size=CONTEXT)
    conditioned = iaf.condition(h)
    value = conditioned(draw(4)) if sampled else draw(4)
    old = conditioned.inv(value)
    change(iaf)
    z = conditioned.inv(value)
    assert not torch.allclose(z, old)
    fresh = copy.deepcopy(iaf).condition(h)
    assert torch.equal(z, fresh.inv(value))
    other = iaf.condition(h + 1)
    assert not torch.allclose(other.inv(value), z)
    assert torch.equal(iaf.condition(h).inv(value), z)
    masked = iaf.condition(h, mask=torch.tensor([True, False, True, True]))
    assert torch.equal(masked.inv(value)[1], value[1])
    assert torch.equal(iaf.condition(h).inv(value), z)


def test_a_leaf_gathers_no_hooks() -> None:
    iaf = make(context=0)
    z = draw(4).requires_grad_()
    for _ in range(3):
        iaf(z).sum().backward()
    assert not z._backward_hooks


# distributions and programs -------------------------------------------------------------


class Posterior(nn.Module):
    """A posterior over sequences, sampled forward in time, with the flow on top.

    The flow is in the same distribution, or in another one around it.
    """

    def __init__(self, *, depth: int = 2, nested: bool = True) -> None:
        super().__init__()
        self.nested = nested
        inner = LSTMConditioner(FEATURES, hidden=4, context_features=CONTEXT)
        self.inner = TemporalAffine(inner)
        self.iaf = InverseAutoregressive(
            FEATURES, context_features=CONTEXT, depth=depth, hidden=(8,)
        )

    def forward(self, h: Tensor, mask: Tensor | None = None) -> dist.TorchDistribution:
        base = standard_normal((h.shape[-2], FEATURES), h).expand(h.shape[:-2])
        inner, iaf = self.inner.condition(context=h, mask=mask), self.iaf.condition(h, mask=mask)
        if not self.nested:
            return across_time(base, inner, iaf)
        return dist.TransformedDistribution(across_time(base, inner), [iaf])


def posterior(**options: Any) -> Posterior:
    torch.manual_seed(3)
    built = Posterior(**options).double()
    perturb(built)
    return built


def test_the_log_det_is_summed_over_the_sequence() -> None:
    q, h = posterior(), draw(5, 4, size=CONTEXT)
    moved = q(h)
    assert (moved.batch_shape, moved.event_shape) == ((5,), (4, FEATURES))
    value = moved.rsample((2,))
    log_prob = moved.log_prob(value)
    assert log_prob.shape == (2, 5)
    z = q.iaf.condition(h).inv(value)
    log_det = q.iaf.condition(h).log_abs_det_jacobian(z, value)
    assert log_det.shape == (2, 5, 4)
    known = moved.base_dist.log_prob(z) - log_det.sum(-1)
    torch.testing.assert_close(log_prob, known, rtol=0, atol=1e-10)
    expanded = moved.expand([2, 5])
    assert (expanded.batch_shape, expanded.event_shape) == ((2, 5), (4, FEATURES))
    torch.testing.assert_close(expanded.log_prob(value.clone()), known, rtol=0, atol=1e-10)
    assert expanded.rsample().shape == value.shape
    torch.testing.assert_close(moved.to_event(1).log_prob(value), known.sum(-1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("nested", [True, False])
def test_in_a_plate_and_a_trace(nested: bool) -> None:
    q, h = posterior(nested=nested), draw(5, 4, size=CONTEXT)

    def program() -> Tensor:
        pyro.module("q", q)
        with pyro.plate("particles", 7, dim=-2), pyro.plate("sequence", 5, dim=-1):
            return pyro.sample("z", q(h))

    with passes(q.iaf) as count, calls(q.inner.conditioner) as inner:
        trace = poutine.trace(program).get_trace()
        site = trace.nodes["z"]
        assert site["value"].shape == (7, 5, 4, FEATURES)
        trace.compute_log_prob()
        assert site["log_prob"].shape == (7, 5)
        assert count() == 2  # a pass per step to sample, none to score
        assert inner.count == 0  # and the distribution below remembers its sample too
    expected = posterior()(h).log_prob(site["value"].detach())  # another object, nested
    torch.testing.assert_close(site["log_prob"], expected, rtol=0, atol=1e-10)


def test_padding_of_a_sequence() -> None:
    q, h = posterior(), draw(2, 4, size=CONTEXT)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    value = q(h, mask).rsample()
    log_prob = q(h, mask).log_prob(value)
    short = q(h[1:, :2]).log_prob(value[1:, :2])
    torch.testing.assert_close(log_prob[1:], short, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_prob[:1], q(h[:1]).log_prob(value[:1]), rtol=0, atol=1e-10)


def test_depth_zero_is_the_distribution_below() -> None:
    q, h = posterior(depth=0), draw(5, 4, size=CONTEXT)
    moved = q(h)
    value = moved.rsample()
    assert torch.equal(moved.log_prob(value), moved.base_dist.log_prob(value))


def test_a_density_integrates_to_one() -> None:
    """In two dimensions, on a grid: the inverse and its log-determinant belong together."""
    iaf = make(features=2, context=0, depth=3)
    grid = torch.linspace(-8, 8, 401, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    moved = dist.TransformedDistribution(standard_normal((2,), points), [iaf])
    with torch.no_grad():
        total = moved.log_prob(points).exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(total.item() - 1) < 1e-6


# training and storage -------------------------------------------------------------------


@pytest.mark.parametrize(("features", "context"), [(1, 0), (1, CONTEXT), (2, 0), (3, CONTEXT)])
def test_every_weight_that_is_seen_moves(features: int, context: int) -> None:
    iaf = InverseAutoregressive(features, context_features=context, hidden=(8, 6)).double()
    before = copy.deepcopy(iaf)
    optimizer = torch.optim.Adam(iaf.parameters(), lr=1e-3)
    z = draw(50, size=features)
    conditioned = iaf.condition(context_for(iaf, 50))
    value = conditioned(z)
    (value.square().sum() - conditioned.log_abs_det_jacobian(z, value).sum()).backward()
    optimizer.step()
    for made, old in zip(iaf.networks, before.networks, strict=True):
        for n, (layer, was) in enumerate(zip(made.layers, old.layers, strict=True)):
            seen = layer.mask.bool()
            assert torch.equal(layer.weight[~seen], was.weight[~seen])
            if features == 1 and not context:  # a constant: only the way to the output is free
                assert (made.layers[-1].bias != old.layers[-1].bias).all()
                continue
            assert (layer.weight != was.weight)[seen].all(), n
            assert (layer.bias != was.bias).all(), n
    assert all(parameter.grad is not None for parameter in iaf.parameters())


def test_the_state_holds_the_order() -> None:
    iaf, other = make(order=ORDER), make(seed=2)
    z, h = draw(4), draw(4, size=CONTEXT)
    value = iaf.condition(h)(z)
    assert not torch.allclose(other.condition(h)(z), value)
    buffer = io.BytesIO()
    torch.save(iaf.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert [made.permutation.tolist() for made in other.networks] == [[2, 0, 1], [1, 0, 2]]
    assert torch.equal(other.condition(h)(z), value)
    torch.testing.assert_close(other.condition(h).inv(value.clone()), z, rtol=0, atol=1e-10)
    other.clear_cache()  # the inverse takes its order from the state too
    torch.testing.assert_close(other.condition(h).inv(value), z, rtol=0, atol=1e-10)


def test_copies() -> None:
    iaf, h, z = make(order=ORDER), draw(4, size=CONTEXT), draw(4)
    value = iaf.condition(h)(z).detach()
    for copied in (copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))):
        twin = copied(iaf)
        assert torch.equal(twin.condition(h)(z), value)
        _step(twin)
        assert not torch.allclose(twin.condition(h)(z), value)
        assert torch.equal(iaf.condition(h)(z), value)  # nothing is shared
        conditioned = copied(iaf.condition(h))
        assert torch.equal(conditioned(z), value)


def test_it_shows_its_networks() -> None:
    assert "MaskedLinear(in_features=5" in repr(make())


# what a user may get wrong --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"context": -1}, "context_features must not be negative, got -1"),
        ({"depth": -1}, "depth must not be negative, got -1"),
        ({"hidden": ()}, "hidden must name at least one layer"),
        ({"hidden": (8, 2)}, "at least as wide as the vector of 3 entries, got (8, 2)"),
        ({"order": (0, 1, 1)}, "order must hold each of 0 to 2 once, got [0, 1, 1]"),
        ({"order": (0, 1)}, "order must hold each of 0 to 2 once, got [0, 1]"),
    ],
)
def test_what_cannot_be_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        make(**options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("context", "shape", "message"),
    [
        (0, (CONTEXT,), "expected a context of no features, got 2"),
        (CONTEXT, None, "expected a context of 2 features, got 0"),
        (CONTEXT, (4, 3), "expected a context of 2 features, got 3"),
        (3, (), "expected a context of 3 features, got 1"),
    ],
)
def test_a_context_that_does_not_fit(
    context: int, shape: tuple[int, ...] | None, message: str
) -> None:
    iaf = make(context=context)
    with pytest.raises(ValueError, match=message):
        iaf.condition(None if shape is None else torch.zeros(shape))


def test_values_that_do_not_fit() -> None:
    iaf = make()
    conditioned = iaf.condition(draw(4, size=CONTEXT))
    for use in (conditioned, conditioned.inv, conditioned.forward_shape):
        wrong = torch.Size((4, 2)) if use == conditioned.forward_shape else draw(4, size=2)
        with pytest.raises(ValueError, match=r"vectors of 3 entries, got shape \(4, 2\)"):
            use(wrong)
    with pytest.raises(ValueError, match=r"broadcast: values \(5,\), context \(4,\)$"):
        conditioned(draw(5))
    masked = iaf.condition(draw(4, size=CONTEXT), mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"values \(4,\), context \(4,\), mask \(2,\)$"):
        masked(draw(4))
    with pytest.raises(ValueError, match="expected a context of 2 features, got 0"):
        iaf(draw(4))
    with pytest.raises(ValueError, match=r"the mask must be boolean, got torch\.float32"):
        iaf.condition(draw(4, size=CONTEXT), mask=torch.ones(4))
