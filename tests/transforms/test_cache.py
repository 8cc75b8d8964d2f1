"""The inverse is computed once, and serves inverse, log-determinant and gradients."""

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_afslvm.transforms import InverseAutoregressive, TemporalAffine, TemporalChain
from tests.support.cached import SMALL, both, check, draw, fresh, network_calls
from tests.support.registry import TRANSFORMS, Case, affine, mlp

NAMES = ["mlp-1", "conv-batch-1-residual", "lstm-context", "mlp-3-given+lstm"]
each = pytest.mark.parametrize("case", [TRANSFORMS[name] for name in NAMES], ids=NAMES)
each_of_two = pytest.mark.parametrize("case", [TRANSFORMS[n] for n in NAMES[2:]], ids=NAMES[2:])


# what is remembered ---------------------------------------------------------------------


@each
def test_one_pass_gives_inverse_and_log_det_as_often_as_they_are_asked_for(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform)
    parts = sum(isinstance(part, TemporalAffine) for part in transform.modules())
    with network_calls(transform) as count:
        for n, grad in enumerate((False, True), 1):
            with torch.set_grad_enabled(grad):
                for _ in range(2):  # conditioned anew, as model and guide do
                    both(transform, x, **given)
                    transform.condition(**given).log_scale(x)
            assert count() == n * parts
    check(transform, x, **given)


@each_of_two
def test_new_views_of_the_same_part_of_a_tensor_cost_nothing(case: Case) -> None:
    """As when guide and model each split context from frames."""
    transform = case.make()
    full, context = case.frames(2, 3 + 4), case.context(2, 3 + 4)
    with network_calls(transform) as count:
        first = both(transform, full[:, 3:], history=full[:, :3], context=context)
        before = count()
        second = both(transform, full[:, 3:], history=full[:, :3].detach(), context=context)
        assert count() == before
    assert torch.equal(first[0], second[0])
    check(transform, full[:, 3:], history=full[:, :3], context=context)


def test_views_of_another_part_or_form_are_told_apart() -> None:
    transform = SMALL.make()
    full = SMALL.frames(4, 6).movedim(-1, 0).contiguous().movedim(0, -1)
    for x in (full[:, 1:], full[:, :-1], full[:, ::2], full[:, :3], full[:2], full[:2, :3]):
        check(transform, x)
    square = torch.randn(4, 4, 2, dtype=torch.float64)
    for x in (square, square.transpose(0, 1), square):
        check(transform, x)


def test_views_that_take_a_gradient_are_told_apart() -> None:
    transform = SMALL.make().requires_grad_(False)
    full = SMALL.frames(2, 6).requires_grad_()
    for x in (full[:, :4], full[:, :4], full[:, :4].detach(), full.detach()[:, :4]):
        y = transform.inv(x)
        assert y.requires_grad == x.requires_grad
        if x.requires_grad:
            (gradient,) = torch.autograd.grad(y.sum(), full)
            assert (gradient[:, :4] != 0).all()


@each_of_two
def test_the_inverse_of_a_sample_is_its_noise(case: Case) -> None:
    transform = case.make()
    noise, given = draw(case, transform)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    for grad in (False, True):
        with torch.set_grad_enabled(grad), network_calls(transform) as count:
            x = transform.condition(**given, mask=mask)(noise)
            before = count()
            y, log_det = both(transform, x, **given, mask=mask)
            assert count() == before
            assert torch.equal(y, noise)
        expected, known = fresh(transform, x, **given, mask=mask)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(log_det, known, rtol=0, atol=1e-10)


def test_a_new_mask_costs_nothing() -> None:
    transform = TRANSFORMS["mlp-3"].make()
    x = torch.randn(2, 6, 2, dtype=torch.float64)
    full = torch.arange(6) < torch.tensor([6, 6])[:, None]
    short = torch.arange(6) < torch.tensor([2, 5])[:, None]
    with network_calls(transform) as count:
        for mask in (None, full, short, full.clone(), short.clone()):
            both(transform, x, mask=mask)
        assert count() == 1
    for mask in (full, short, None):
        check(transform, x, mask=mask)


def test_each_transform_remembers_for_itself() -> None:
    conditioner = mlp(1)
    one, two = affine(conditioner).double(), affine(conditioner, max_log_scale=-1.0).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64)
    assert not torch.equal(one.inv(x), two.inv(x))
    check(one, x)
    check(two, x)


def test_gradients_are_those_without_a_cache() -> None:
    case = TRANSFORMS["mlp-3-given+lstm"]
    transform, other = case.make(), case.make()
    x, given = draw(case, transform)
    x.requires_grad_()
    twin = x.detach().clone().requires_grad_()
    conditioned = transform.condition(**given)
    loss = conditioned.inv(x).square().sum() + conditioned.log_abs_det_jacobian(x, x).sum()
    (loss + conditioned.inv(x).sum()).backward()
    y, _ = both(other, twin, **given)
    other.clear_cache()
    (y.square().sum() + y.sum() + both(other, twin, **given)[1].sum()).backward()
    torch.testing.assert_close(x.grad, twin.grad)
    for mine, theirs in zip(transform.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_sample_passes_its_gradient_through_the_cache() -> None:
    """log q(x) of a sample x of q, as in the bound."""
    transform, other = SMALL.make(), SMALL.make()
    noise = SMALL.frames(2, 4).requires_grad_()
    gradients = []
    for flow, remember in ((transform, True), (other, False)):
        x = flow(noise)
        if not remember:
            flow.clear_cache()
        y = flow.inv(x)
        value = x.sin().sum() - y.square().sum() / 2 - flow.log_abs_det_jacobian(y, x).sum()
        noise.grad = None
        value.backward()
        gradients.append(noise.grad)
    torch.testing.assert_close(*gradients)
    for mine, theirs in zip(transform.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-9)


# graphs that are spent ------------------------------------------------------------------


@pytest.mark.parametrize("first", ["noise", "log_det", "both"])
def test_a_second_backward(first: str) -> None:
    case = TRANSFORMS["mlp-3-given+lstm"]
    transform, other = case.make(), case.make()
    x, given = draw(case, transform)
    conditioned = transform.condition(**given)

    def loss(some: Any, which: str) -> Tensor:
        y = some.inv(x)
        log_det = some.log_abs_det_jacobian(y, x)
        parts = {"noise": y.square().sum(), "log_det": log_det.sum()}
        return sum(parts.values()) if which == "both" else parts[which]

    for which in (first, "both", "noise", "log_det"):
        loss(conditioned, which).backward()  # not "through the graph a second time"
        parameters = list(other.parameters())
        other.clear_cache()
        gradients = torch.autograd.grad(
            loss(other.condition(**given), which), parameters, allow_unused=True
        )
        for mine, expected in zip(transform.parameters(), gradients, strict=True):
            assert (mine.grad is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(mine.grad, expected)
            mine.grad = None


def test_a_second_backward_after_sampling() -> None:
    transform = SMALL.make()
    for _ in range(2):
        x = transform(SMALL.frames(2, 4))
        y, log_det = both(transform, x)
        (y.sum() + log_det.sum() + x.square().sum()).backward()
    again = x.detach()
    both(transform, again)[1].sum().backward()
    both(transform, again)[1].sum().backward()


def test_gradients_of_gradients() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(transform.inv(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    small = x[:1, :2].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: transform.inv(x), (small,))


# the cache itself -----------------------------------------------------------------------


def test_copies_remember_nothing() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    y = transform.inv(x)
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        with network_calls(twin) as count:
            assert torch.equal(twin.inv(x), y)
            assert count() == 1


BOTH = [SMALL.make, lambda: InverseAutoregressive(2, hidden=(8,))]


@pytest.mark.parametrize("build", BOTH)
def test_sizes_that_torch_knows(build: Any) -> None:
    transform = build()
    conditioned = transform.condition()
    for each in (transform, conditioned):
        assert each.with_cache(0) is each
        cached = each.with_cache(1)
        assert cached.with_cache(1) is cached
        y = torch.randn(4, 3, 2, dtype=next(transform.parameters()).dtype)
        torch.testing.assert_close(cached.with_cache(0)(y), each(y), rtol=0, atol=0)
        with pytest.raises(ValueError, match="cache_size must be 0 or 1, got 2"):
            each.with_cache(2)
    cached = transform.with_cache(1)
    assert [*map(id, cached.parameters())] == [*map(id, transform.parameters())]


@pytest.mark.parametrize("is_leaf", [False, True])
@pytest.mark.parametrize("build", BOTH)
def test_what_torchs_cache_promises_of_a_sample(build: Any, is_leaf: bool) -> None:
    transform = build()
    y = torch.randn(4, 3, 2, dtype=next(transform.parameters()).dtype, requires_grad=is_leaf)
    for each in (transform, transform.with_cache(1), transform.condition().with_cache(1)):
        assert each.inv(each(y)) is y
    assert not y._backward_hooks


@pytest.mark.parametrize("build", BOTH)
def test_what_torchs_cache_promises_of_an_inverse(build: Any) -> None:
    transform = build()
    x = torch.randn(4, 3, 2, dtype=next(transform.parameters()).dtype)
    for each in (
        transform.with_cache(1),
        transform.condition().with_cache(1),
        transform.with_cache(1).condition(),
        transform.inv.with_cache(1).inv,
    ):
        assert each(each.inv(x)) is x
    cached = transform.with_cache(1)
    y = cached.inv(x)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.1)
    again = cached(y)  # torch's own would give x
    assert again is not x
    torch.testing.assert_close(again, transform(y), rtol=0, atol=0)
    y = cached.inv(x)
    assert cached.with_cache(0)(y) is not x
    seen = transform.inv(x)  # has its derivative where nothing else was asked for
    (gradient,) = torch.autograd.grad(transform(seen).sum(), seen)
    assert gradient.abs().min() > 0


def test_of_masked_and_broadcast_sequences() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    masked = transform.condition(mask=mask).with_cache(1)
    assert masked(masked.inv(x)) is x
    y = SMALL.frames(1, 4)
    wide = transform.condition(history=SMALL.frames(3, 2)).with_cache(1)
    sample = wide(y)
    assert sample.shape[0] == 3
    torch.testing.assert_close(wide.inv(sample), y.expand_as(sample))
    narrow = wide.inv(x[:1])  # of another shape than x, which is therefore made anew
    assert wide(narrow).shape == narrow.shape


def test_it_keeps_only_the_last_result_and_no_module_alive() -> None:
    transform: Any = TemporalChain([SMALL.make(), SMALL.make()])
    x = SMALL.frames(2, 4)
    gc.disable()
    try:  # without `inv`, by which torch makes a circle of its own
        gone = weakref.ref(transform._inverse(x))
        transform._inverse(SMALL.frames(2, 4))
        assert gone() is None
        y = transform._inverse(x)
        module = weakref.ref(transform)
        del transform
        assert module() is None
    finally:
        gc.enable()
    y.sum().backward()  # the hook finds no cache, and does not mind


def test_a_sample_is_scored_for_nothing_also_when_it_is_the_first() -> None:
    transform = SMALL.make()
    x = transform(SMALL.frames(2, 4))
    assert transform._cache._kept is not None
    kept = transform._cache._kept.value.noise
    assert transform.inv(x) is kept  # though torch has noted the inverse on the transform
