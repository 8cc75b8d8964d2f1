"""Every transform: inverse, causality and log det in float64; then what follows, of each kind."""

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jacobian

from pyro_afslvm.transforms import (
    ConvConditioner,
    GlowMap,
    LSTMConditioner,
    MLPConditioner,
    TemporalChain,
    TemporalHierarchy,
    WithinFrame,
    compose,
)
from tests.support.registry import (
    KINDS,
    TRANSFORMS,
    Case,
    Warped,
    affine,
    perturb,
)
from tests.support.transforms import close, draw, log_prob, time_blocks

each = pytest.mark.parametrize("case", TRANSFORMS.values(), ids=TRANSFORMS)
each_kind = pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)


# the mathematics, of all of them --------------------------------------------------------


@each
def test_inverse_of_transforms_that_are_not_trivial(case: Case) -> None:
    density, sampler = case.make(), case.make()  # two objects: no cache can help
    x, given = draw(case, density, 3)
    for step in density.condition(**given).intermediates(x):
        assert getattr(step, "shift", step.noise).abs().max() > 0.01
        assert step.log_scale.min() > -5
        if density.is_affine:
            assert step.log_scale.max() < math.log(10.0)  # no clamp, so that nothing is cut off
    density, sampler = density.condition(**given), sampler.condition(**given)
    if list(density.transform.parameters()) and not mixes(density.transform):
        assert (density.log_scale(x) != 0).all()
    assert close(sampler(density.inv(x)), x, 1e-10)
    noise = case.frames(3, 4)
    assert close(density.inv(sampler(noise)), noise, 1e-10)


@each
def test_jacobian_of_the_inverse(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform)
    conditioned = transform.condition(**given)
    full = jacobian(conditioned.inv, x)
    blocks = time_blocks(full, len(x))
    for t in range(len(x)):
        assert (blocks[t, :, t + 1 :] == 0).all()  # exactly: the future is not looked at
        present = blocks[t, :, t]
        own = torch.tril(present) if is_hierarchy(transform) else torch.diag(present.diag())
        assert mixes(transform) or torch.equal(present, own)
    sign, log_det = torch.linalg.slogdet(full.reshape(x.numel(), x.numel()))
    assert sign == 1 or mixes(transform)
    assert close(conditioned.log_abs_det_jacobian(conditioned.inv(x), x), -log_det, 1e-8)


def is_hierarchy(transform: Any) -> bool:
    """Whether entries see others of the same step."""
    return any(isinstance(part, TemporalHierarchy) for part in transform.modules())


def mixes(transform: Any) -> bool:
    """Whether entries of a step depend on each other in any way."""
    return any(isinstance(part, WithinFrame | GlowMap) for part in transform.modules())


# the mathematics, of each kind ----------------------------------------------------------


@each_kind
def test_jacobian_of_the_forward_direction(case: Case) -> None:
    transform = case.make()
    y, given = draw(case, transform)
    conditioned = transform.condition(**given)
    full = jacobian(conditioned, y)
    blocks = time_blocks(full, len(y))
    for t in range(len(y)):
        assert (blocks[t, :, t + 1 :] == 0).all()
    _, log_det = torch.linalg.slogdet(full.reshape(y.numel(), y.numel()))
    x = case.make().condition(**given)(y)
    assert close(conditioned.log_abs_det_jacobian(y, x), log_det, 1e-8)


@each_kind
def test_the_past_is_looked_at(case: Case) -> None:
    transform = case.make()
    reach = 6 if transform.reach is None else transform.reach
    x, given = draw(case, transform, length=7, more=reach - transform.context_length)
    blocks = time_blocks(jacobian(transform.condition(**given).inv, x), len(x))
    seen = (blocks != 0).any(3).any(1)  # (time of the noise, time of the frame)
    for lag in range(1, 7):  # a ReLU may be off at one time, hardly at all of them
        assert seen.diagonal(-lag).any() == (lag <= reach), lag


@each_kind
def test_history_is_looked_at_as_far_as_the_reach(case: Case) -> None:
    transform = case.make()
    x = case.frames(1)
    past = (transform.reach or transform.context_length) + 2
    history = case.frames(past)
    context = case.context(past + 1)

    def first(history: Tensor) -> Tensor:
        return transform.condition(history=history, context=context).inv(x)

    seen = jacobian(first, history).reshape(x.numel(), past, -1).abs().amax((0, 2)) > 0
    assert seen.tolist() == [s >= past - (transform.reach or past) for s in range(past)]


@each_kind
def test_log_prob_is_that_of_noise_and_log_scale(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, 3)
    conditioned = transform.condition(**given)
    steps = conditioned.intermediates(x)
    log_scale = sum(step.log_scale for step in steps)
    noise = steps[-1].noise
    expected = (dist.Normal(0.0, 1.0).log_prob(noise) - log_scale).flatten(1).sum(1)
    assert close(log_prob(transform, x, **given), expected, 1e-10)
    assert close(conditioned.log_scale(x), log_scale, 1e-12)
    if transform.is_affine:
        shift, composed = compose(steps)
        assert close(composed, log_scale, 1e-12)
        assert close(shift + log_scale.exp() * noise, x, 1e-10)
        of_x = dist.Normal(shift, log_scale.exp()).log_prob(x).flatten(1).sum(1)
        assert close(of_x, expected, 1e-10)


SCALARS = {
    "mlp-2": lambda: affine(MLPConditioner(1, hidden=(8,), window=2)),
    "conv": lambda: affine(ConvConditioner(1, hidden=4, window=1, depth=1)),
    "lstm+mlp": lambda: TemporalChain(
        [affine(LSTMConditioner(1, hidden=4)), affine(MLPConditioner(1, hidden=(8,), window=1))]
    ),
    "warped": Warped,
}


@pytest.mark.parametrize("build", SCALARS.values(), ids=SCALARS)
def test_density_integrates_to_one(build: Any) -> None:
    case = Case(build, (1, 1, 1) if build is SCALARS["conv"] else (1,))
    transform = case.make()
    grid = torch.linspace(-60, 60, 6001, dtype=torch.float64)
    x = grid.reshape(-1, 1, *case.frame_shape)
    first = log_prob(transform, x).exp()
    assert abs(torch.trapezoid(first, grid) - 1) < 1e-9
    history = case.frames(1)
    second = log_prob(transform, x, history=history).exp()
    assert abs(torch.trapezoid(second, grid) - 1) < 1e-9
    assert (first - second).abs().max() > 1e-3  # another density, given the first frame


def test_joint_density_of_two_frames_integrates_to_one() -> None:
    transform = Case(SCALARS["lstm+mlp"]).make()
    grid = torch.linspace(-25, 25, 501, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)[..., None]
    density = log_prob(transform, x).exp().reshape(501, 501)
    total = torch.trapezoid(torch.trapezoid(density, grid), grid)
    assert abs(total - 1) < 1e-6


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(window=st.integers(1, 4), length=st.integers(1, 6), features=st.integers(1, 3))
def test_log_det_of_any_size(window: int, length: int, features: int) -> None:
    torch.manual_seed(0)
    transform = affine(MLPConditioner(features, hidden=(5,), window=window)).double()
    perturb(transform)
    x = torch.randn(length, features, dtype=torch.float64)
    full = jacobian(transform.inv, x).reshape(x.numel(), x.numel())
    log_det = transform.log_abs_det_jacobian(transform.inv(x), x)
    assert close(log_det, -torch.linalg.slogdet(full).logabsdet, 1e-8)


@each_kind
def test_as_a_distribution(case: Case) -> None:
    transform, other = case.make(), case.make()
    _, given = draw(case, transform, 3)
    base = dist.Normal(case.frames(3, 4), torch.rand(3, 4, *case.frame_shape).double() + 0.5)
    base = base.to_event(1 + len(case.frame_shape))
    sequences = dist.TransformedDistribution(base, [transform.condition(**given)])
    assert sequences.batch_shape == (3,)
    assert sequences.event_shape == (4, *case.frame_shape)
    x = sequences.rsample((2,))
    assert x.shape == (2, 3, 4, *case.frame_shape)
    conditioned = other.condition(**given)
    y = conditioned.inv(x)
    expected = base.log_prob(y) - conditioned.log_abs_det_jacobian(y, x)
    assert close(sequences.log_prob(x), expected, 1e-9)
