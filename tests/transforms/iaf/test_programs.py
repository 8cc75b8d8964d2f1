"""The inverse autoregressive flow of vectors remembered, in distributions, trained and stored."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_afslvm.distributions import across_time, standard_normal
from pyro_afslvm.transforms import InverseAutoregressive, LSTMConditioner, TemporalAffine
from tests.support.iaf import CONTEXT, FEATURES, ORDER, context_for, draw, make, passes, sgd_step
from tests.support.registry import calls, perturb

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


def _load(iaf: InverseAutoregressive) -> None:
    iaf.load_state_dict(make(seed=2, order=ORDER).state_dict())


@pytest.mark.parametrize(("change", "sampled"), [(sgd_step, True), (_load, False)])
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
        sgd_step(twin)
        assert not torch.allclose(twin.condition(h)(z), value)
        assert torch.equal(iaf.condition(h)(z), value)  # nothing is shared
        conditioned = copied(iaf.condition(h))
        assert torch.equal(conditioned(z), value)


def test_it_shows_its_networks() -> None:
    assert "MaskedLinear(in_features=5" in repr(make())
