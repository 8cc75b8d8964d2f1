"""The inverse autoregressive flow of images: order, Jacobian, and one pass per step."""

import copy
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from pyro_afslvm.transforms import ConvInverseAutoregressive
from tests.support.registry import calls, perturb

CHANNELS, CONTEXT, SIZE = 2, 3, (4, 3)


def make(*, seed: int = 1, channels: int = CHANNELS, **options: Any) -> ConvInverseAutoregressive:
    """A small one with random weights; the same seed gives the same."""
    torch.manual_seed(seed)
    chosen = {"context_channels": CONTEXT, "depth": 2, "hidden": (5, 4)} | options
    iaf = ConvInverseAutoregressive(channels, **chosen).double()
    for network in iaf.networks:
        nn.init.normal_(network.last.weight, std=0.3)  # the inverse divides by sigmoids
    perturb(iaf)
    return iaf


def draw(*batch: int, channels: int = CHANNELS) -> Tensor:
    return torch.randn(*batch, channels, *SIZE, dtype=torch.float64)


def by_hand(iaf: ConvInverseAutoregressive, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Algorithm 1 as it is printed."""
    log_det = torch.zeros(len(z), dtype=z.dtype)
    for network in iaf.networks:
        m, s = network(z, h)
        sigma = 1 / (1 + torch.exp(-s))
        z = sigma * z + (1 - sigma) * m
        log_det = log_det + sigma.log().flatten(1).sum(1)
    return z, log_det


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_algorithm_1(depth: int) -> None:
    iaf, z, h = make(depth=depth), draw(4), draw(4, channels=CONTEXT)
    value = iaf.condition(h)(z)
    expected, log_det = by_hand(iaf, z, h)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    found = iaf.condition(h).log_abs_det_jacobian(z, value)
    torch.testing.assert_close(found, log_det, rtol=0, atol=1e-12)
    if not depth:
        assert torch.equal(value, z)
        assert not found.any()


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(("hidden", "channels"), [((5,), 1), ((2, 3), 2), ((4, 4, 4), 3)])
def test_each_entry_sees_only_those_before_it(
    step: int, hidden: tuple[int, ...], channels: int
) -> None:
    """Exact zeros in the network's Jacobian, and no more of them than the order demands."""
    hidden = tuple(max(width, channels) for width in hidden)
    iaf = make(channels=channels, context_channels=0, hidden=hidden, kernel=7)
    network = iaf.networks[step]
    places = [(c * SIZE[0] + i) * SIZE[1] + j for c, i, j in network.order(*SIZE)]
    for of_output in jacobian(lambda z: network(z, None), draw(channels=channels)):
        count = len(places)
        in_order = of_output.reshape(count, count)[places][:, places]
        assert not in_order.triu().any()
        seen = in_order != 0
        below = torch.ones(count, count).tril(-1).bool()
        assert seen[below].float().mean() > 0.99  # kernels of 7 reach every earlier pixel


def test_the_steps_have_opposite_orders() -> None:
    iaf = make(depth=3)
    orders = [list(network.order(2, 2)) for network in iaf.networks]
    assert orders[0] == orders[2] == orders[1][::-1]
    assert orders[0][:3] == [(0, 0, 0), (1, 0, 0), (0, 0, 1)]


@pytest.mark.parametrize("depth", [1, 2])
def test_log_det_against_autograd(depth: int) -> None:
    iaf, z, h = make(depth=depth), draw(), draw(channels=CONTEXT)
    conditioned = iaf.condition(h)
    matrix = jacobian(conditioned, z).reshape(z.numel(), z.numel())
    known = torch.linalg.slogdet(matrix).logabsdet
    found = conditioned.log_abs_det_jacobian(z, conditioned(z))
    torch.testing.assert_close(found, known, rtol=0, atol=1e-10)
    torch.testing.assert_close(conditioned.log_scale(conditioned(z)).sum(), known)


@pytest.mark.parametrize(("bias", "depth"), [(1.0, 1), (8.0, 4)])
def test_started_near_the_identity(bias: float, depth: int) -> None:
    """z_K = sigma^K z and little more: the gates are open, and m is small."""
    iaf = ConvInverseAutoregressive(4, context_channels=3, depth=depth, initial_bias=bias)
    z, h = torch.randn(20, 4, 7, 7), torch.randn(20, 3, 7, 7)
    conditioned, sigma = iaf.condition(h), torch.tensor(bias).sigmoid()
    value = conditioned(z)
    log_scale = conditioned.log_scale(value)
    moved = 1 - sigma**depth
    assert (value - sigma**depth * z).abs().max() < 0.3 * moved
    assert (log_scale - depth * sigma.log()).abs().max() < 0.3 * depth * (1 - sigma)
    assert log_scale.std() > 0  # and yet it already depends on what it sees


def test_the_inverse_of_a_foreign_value() -> None:
    iaf, h, value = make(), draw(4, channels=CONTEXT), draw(4)
    conditioned = iaf.condition(h)
    z = conditioned.inv(value)
    torch.testing.assert_close(conditioned(z), value, rtol=0, atol=1e-10)
    scored = conditioned.log_abs_det_jacobian(z, value)
    _, log_det = by_hand(iaf, z, h)
    torch.testing.assert_close(scored, log_det, rtol=0, atol=1e-10)


def test_gradients_through_the_inverse() -> None:
    iaf, h, value = make(), draw(1, channels=CONTEXT), draw(1).requires_grad_()
    inverse = iaf.condition(h).inv(value)
    (of_inverse,) = torch.autograd.grad(inverse.sum(), value)
    matrix = jacobian(iaf.condition(h), inverse.detach()).reshape(value.numel(), -1)
    expected = torch.linalg.inv(matrix).sum(0).reshape(value.shape)
    torch.testing.assert_close(of_inverse, expected, rtol=0, atol=1e-9)


def test_one_pass_per_step_to_sample_and_score() -> None:
    iaf, h = make(), draw(4, channels=CONTEXT)
    zeros = torch.zeros(4, CHANNELS, *SIZE, dtype=torch.float64)
    q = dist.TransformedDistribution(dist.Normal(zeros, 1.0).to_event(3), [iaf.condition(h)])
    with calls(iaf.networks[0]) as first, calls(iaf.networks[1]) as second:
        value = q.rsample((6,))
        log_prob = q.log_prob(value)
        assert (first.count, second.count) == (1, 1)
    again = copy.deepcopy(iaf).condition(h)
    fresh = dist.TransformedDistribution(dist.Normal(zeros, 1.0).to_event(3), [again])
    torch.testing.assert_close(log_prob, fresh.log_prob(value.detach()), rtol=0, atol=1e-9)
    assert log_prob.shape == (6, 4)


def test_nothing_stale_after_a_step() -> None:
    iaf, h, z = make(), draw(4, channels=CONTEXT), draw(4)
    value = iaf.condition(h)(z)
    assert torch.equal(iaf.condition(h).inv(value), z)
    with torch.no_grad():
        next(iaf.parameters()).mul_(2)
    assert not torch.allclose(iaf.condition(h).inv(value), z)


def test_the_state_holds_the_order_and_the_masks() -> None:
    iaf, other = make(), make(seed=2)
    for key, value in other.state_dict().items():
        if key.endswith(("mask", "reverse")):
            value.zero_()
    other.load_state_dict(iaf.state_dict())
    h, z = draw(4, channels=CONTEXT), draw(4)
    assert torch.equal(other.condition(h)(z), iaf.condition(h)(z))
    assert [bool(network.reverse) for network in other.networks] == [False, True]


def test_every_weight_that_is_seen_moves() -> None:
    iaf, z, h = make(), draw(20), draw(20, channels=CONTEXT)
    value = iaf.condition(h)(z)
    loss = value.square().sum() - iaf.condition(h).log_abs_det_jacobian(z, value).sum()
    loss.backward()
    for name, parameter in iaf.named_parameters():
        mask = dict(iaf.named_buffers()).get(name.replace("weight", "mask"))
        seen = torch.ones_like(parameter).bool() if mask is None else mask.bool()
        assert (parameter.grad[seen] != 0).all(), name
        assert not parameter.grad[~seen].any(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"depth": -1}, "depth must not be negative, got 3 and -1"),
        ({"hidden": ()}, "at least one layer"),
        ({"hidden": (1,)}, "as many channels as the image's 2, got (1,)"),
        ({"hidden": (), "depth": 0}, "at least one layer"),
        ({"kernel": 4}, "kernel must be odd and at least 3, got 4"),
    ],
)
def test_what_cannot_be_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        make(**options)
    assert message in str(error.value)


def test_values_that_do_not_fit() -> None:
    iaf = make()
    with pytest.raises(ValueError, match="expected a context of 3 channels, got 0"):
        iaf(draw(4))
    with pytest.raises(ValueError, match="expected a context of 3 channels, got 2"):
        iaf.condition(draw(4))
    conditioned = iaf.condition(draw(4, channels=CONTEXT))
    with pytest.raises(ValueError, match=r"images of 2 channels, got shape \(4, 3, 4, 3\)"):
        conditioned(draw(4, channels=3))
    with pytest.raises(ValueError, match=r"values \(5, 2, 4, 3\) and context \(4, 3, 4, 3\)"):
        conditioned(draw(5))
