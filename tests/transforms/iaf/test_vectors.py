"""The inverse autoregressive flow of vectors: Algorithm 1 by hand, and its Jacobian."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from pyro_afslvm.transforms import InverseAutoregressive
from tests.support.iaf import CONTEXT, ORDER, context_for, draw, make


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
