"""Every transform of the registry: identities in float64, then what a user may get wrong."""

import copy
import io
import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from pyro_afslvm.transforms import (
    ConvConditioner,
    LastFrame,
    LSTMConditioner,
    MLPConditioner,
    TemporalAffine,
    TemporalChain,
    TemporalDifference,
    TemporalHierarchy,
    compose,
)
from tests.support.registry import (
    AFFINE,
    CHAINS,
    HIERARCHIES,
    TRANSFORMS,
    VIDEO,
    Case,
    affine,
    calls,
    conv,
    lstm,
    mlp,
    perturb,
)

each = pytest.mark.parametrize("case", TRANSFORMS.values(), ids=TRANSFORMS)


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal in shape and dtype, and to the tolerance in value."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    return True


def cut(x: Tensor | None, case: Case, start: int | None, stop: int | None = None) -> Any:
    """Frames ``start:stop`` of ``(*batch, T, *frame_shape)``."""
    if x is None:
        return None
    return x[(..., slice(start, stop), *[slice(None)] * len(case.frame_shape))]


def until(context: Tensor | None, stop: int) -> Tensor | None:
    return None if context is None else context[..., :stop, :]


def log_prob(transform: Any, x: Tensor, **given: Any) -> Tensor:
    """Log-density of x under N(0, I) noise: ``(*batch,)``."""
    event = x.shape[-1 - transform.frame_dims :]
    base = dist.Normal(x.new_zeros(event), x.new_ones(event)).to_event(len(event))
    return dist.TransformedDistribution(base, [transform.condition(**given)]).log_prob(x)


def draw(case: Case, transform: Any, *batch: int, length: int = 4, more: int = 0) -> Any:
    """Frames, and the history and context they are given."""
    past = transform.context_length + more
    history = case.frames(*batch, past) if past else None
    return case.frames(*batch, length), {
        "history": history,
        "context": case.context(*batch, past + length),
    }


def time_blocks(full: Tensor, length: int) -> Tensor:
    """A Jacobian as ``(T, frame, T, frame)``."""
    side = full[0].numel() if full.ndim == 2 else math.isqrt(full.numel())
    return full.reshape(length, side // length, length, side // length)


# the mathematics ------------------------------------------------------------------------


@each
def test_registry_is_not_trivial(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, 3)
    for level in transform.condition(**given).intermediates(x):
        assert level.shift.abs().max() > 0.01
        assert level.log_scale.min() > -5
        assert level.log_scale.max() < math.log(10.0)  # no clamp, so that nothing is cut off
    if list(transform.parameters()):
        assert (transform.condition(**given).log_scale(x) != 0).all()


@each
@pytest.mark.parametrize("more", [0, 2])
def test_inverse(case: Case, more: int) -> None:
    density, sampler = case.make(), case.make()  # two objects: no memo can help
    x, given = draw(case, density, 3, more=more)
    density, sampler = density.condition(**given), sampler.condition(**given)
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
        own = torch.tril(present) if case in HIERARCHIES.values() else torch.diag(present.diag())
        assert torch.equal(present, own)
    sign, log_det = torch.linalg.slogdet(full.reshape(x.numel(), x.numel()))
    assert sign == 1
    assert close(conditioned.log_abs_det_jacobian(conditioned.inv(x), x), -log_det, 1e-8)


@each
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


@each
def test_the_past_is_looked_at(case: Case) -> None:
    transform = case.make()
    reach = 6 if transform.reach is None else transform.reach
    x, given = draw(case, transform, length=7, more=reach - transform.context_length)
    blocks = time_blocks(jacobian(transform.condition(**given).inv, x), len(x))
    seen = (blocks != 0).any(3).any(1)  # (time of the noise, time of the frame)
    for lag in range(1, 7):  # a ReLU may be off at one time, hardly at all of them
        assert seen.diagonal(-lag).any() == (lag <= reach), lag


@each
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


@each
def test_log_prob_is_that_of_noise_and_log_scale(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, 3)
    conditioned = transform.condition(**given)
    levels = conditioned.intermediates(x)
    shift, log_scale = compose(levels)
    assert close(shift + log_scale.exp() * levels[-1].noise, x, 1e-10)
    expected = dist.Normal(shift, log_scale.exp()).log_prob(x).flatten(1).sum(1)
    assert close(log_prob(transform, x, **given), expected, 1e-10)
    assert close(conditioned.log_scale(x), log_scale, 1e-12)


SCALARS = {
    "mlp": lambda: affine(MLPConditioner(1, hidden=(8,), window=1)),
    "mlp-2": lambda: affine(MLPConditioner(1, hidden=(8,), window=2)),
    "conv": lambda: affine(ConvConditioner(1, hidden=4, window=1, depth=1)),
    "lstm": lambda: affine(LSTMConditioner(1, hidden=4)),
    "lstm+mlp": lambda: TemporalChain(
        [affine(LSTMConditioner(1, hidden=4)), affine(MLPConditioner(1, hidden=(8,), window=1))]
    ),
    "difference": TemporalDifference,
    "last-frame": lambda: affine(LastFrame(1, learned_scale=True)),
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


# batches and histories ------------------------------------------------------------------


@each
def test_leading_batch_dimensions(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, 2, 3)
    noise = case.frames(2, 3, 4)
    flat = {k: None if v is None else v.flatten(0, 1) for k, v in given.items()}
    one = {k: None if v is None else v[0] for k, v in flat.items()}
    y, sample = transform.condition(**given).inv(x), transform.condition(**given)(noise)
    log_density = log_prob(transform, x, **given)
    assert log_density.shape == (2, 3)
    assert close(y.flatten(0, 1), transform.condition(**flat).inv(x.flatten(0, 1)), 1e-12)
    assert close(sample.flatten(0, 1), transform.condition(**flat)(noise.flatten(0, 1)), 1e-12)
    assert close(log_density.flatten(), log_prob(transform, x.flatten(0, 1), **flat), 1e-12)
    assert close(y[0, 0], transform.condition(**one).inv(x[0, 0]), 1e-12)
    assert close(sample[0, 0], transform.condition(**one)(noise[0, 0]), 1e-12)
    assert close(log_density[0, 0], log_prob(transform, x[0, 0], **one), 1e-12)


@each
@pytest.mark.parametrize("more", [0, 1])
def test_history_is_broadcast(case: Case, more: int) -> None:
    """History and context of B sequences stand for every one of S particles."""
    transform, other = case.make(), case.make()
    _, given = draw(case, transform, 3, more=more)
    expanded = {k: None if v is None else v.expand(2, *v.shape) for k, v in given.items()}
    x = case.frames(2, 3, 4)
    mine, theirs = transform.condition(**given), other.condition(**expanded)
    assert close(mine.inv(x), theirs.inv(x), 1e-12)
    assert close(mine.log_scale(x), theirs.log_scale(x), 1e-12)
    assert close(mine(x), theirs(x), 1e-12)


@each
def test_history_split_anywhere(case: Case) -> None:
    transform = case.make()
    start = transform.context_length
    total = start + (transform.reach or 3) + 3
    x, context = case.frames(2, total), case.context(2, total)

    def score(begin: int, end: int) -> Tensor:
        history = cut(x, case, 0, begin)
        return log_prob(
            transform, cut(x, case, begin, end), history=history, context=until(context, end)
        )

    whole = score(start, total)
    for split in range(start + 1, total):
        assert close(score(start, split) + score(split, total), whole, 1e-10)


@each
def test_sampling_continues_wherever_it_was_cut(case: Case) -> None:
    transform = case.make()
    start = transform.context_length
    length = (transform.reach or 3) + 2
    head = case.frames(2, start) if start else None
    noise, context = case.frames(2, length), case.context(2, start + length)
    x = transform.condition(history=head, context=context)(noise)
    full = x if head is None else torch.cat([head, x], -1 - transform.frame_dims)
    for split in range(1, length):
        history = cut(full, case, 0, start + split)
        rest = transform.condition(history=history, context=context)(cut(noise, case, split))
        assert close(rest, cut(x, case, split), 1e-10)


@each
def test_inverting_step_by_step(case: Case) -> None:
    transform = case.make()
    past, length = transform.context_length, 5
    head = case.frames(2, past) if past else None
    x, context = case.frames(3, 2, length), case.context(2, past + length)
    inverse = case.make().condition(history=head, context=context)
    before = None if context is None or not past else until(context, past)
    state = transform.initial_state(x.shape[:2], history=head, context=before)
    for t in range(length):
        frame = cut(x, case, t, t + 1).squeeze(-1 - transform.frame_dims)
        present = None if context is None else context[..., past + t, :]
        noise, log_scale, state = transform.inverse_step(frame, state, context=present)
        assert close(noise, inverse.inv(x)[:, :, t], 1e-12)
        assert close(log_scale.expand_as(noise), inverse.log_scale(x)[:, :, t], 1e-12)


@pytest.mark.parametrize(
    "name", ["mlp-3", "mlp-1+mlp-2+mlp-1", "lstm+mlp-3-given", "conv-1+conv-3"]
)
def test_a_frame_is_predicted_before_it_is_there(name: str) -> None:
    case = TRANSFORMS[name]
    transform = case.make()
    past, length = transform.context_length, 5
    head = case.frames(2, past) if past else None
    x = case.frames(2, length)
    shift, log_scale = compose(transform.condition(history=head).intermediates(x))
    state = transform.initial_state(x.shape[:1], history=head)
    for t in range(length):
        predicted = transform.predict(torch.zeros_like(x[:, 0]), state)
        assert close(predicted.shift, shift[:, t], 1e-12)
        assert close(predicted.log_scale, log_scale[:, t], 1e-12)
        noise, _, state = transform.absorb(x[:, t], predicted)
        assert close(noise, (x - shift)[:, t] / log_scale[:, t].exp(), 1e-12)


@pytest.mark.parametrize("name", [k for k in HIERARCHIES if not k.startswith("chain")])
def test_a_level_sees_the_present_of_the_levels_above(name: str) -> None:
    case = HIERARCHIES[name]
    transform = case.make()
    x, given = draw(case, transform)
    blocks = time_blocks(jacobian(transform.condition(**given).inv, x), len(x))
    for t, size in enumerate([transform.sizes[0]] * len(x)):
        assert (blocks[t, size:, t, :size] != 0).all()


def test_a_hierarchy_without_levels() -> None:
    part = affine(lstm())
    for parts, sizes in (([], []), ([part], [1, 1]), ([part], [0])):
        with pytest.raises(ValueError, match="a size for each level"):
            TemporalHierarchy(parts, sizes)
    with pytest.raises(ValueError, match="starts from nothing"):
        TemporalHierarchy([affine(mlp(2), None)], [2])
    with pytest.raises(ValueError, match="vectors of 2 numbers, got 3"):
        TemporalHierarchy([part], [2]).inv(torch.zeros(4, 3))


finite = {k: v for k, v in TRANSFORMS.items() if v.make().reach is not None}


@pytest.mark.parametrize("case", finite.values(), ids=finite)
def test_the_reach_stands_for_any_longer_past(case: Case) -> None:
    transform, other = case.make(), case.make()
    long, x = case.frames(2, transform.reach + 3), case.frames(2, 4)
    recent = cut(long, case, 3)
    mine, theirs = transform.condition(history=long), other.condition(history=recent)
    assert close(mine.inv(x), theirs.inv(x), 1e-12)
    assert close(mine.log_scale(x), theirs.log_scale(x), 1e-12)
    assert close(mine(x), theirs(x), 1e-12)


@each
def test_no_frame_of_history_is_no_history(case: Case) -> None:
    transform = case.make()
    if transform.context_length:
        return
    x = case.frames(2, 4)
    given = {"context": case.context(2, 4)}
    none = transform.condition(**given)
    empty = transform.condition(history=case.frames(2, 0), **given)
    assert torch.equal(none.inv(x), empty.inv(x))
    assert torch.equal(none(x), empty(x))


def test_reach_and_context_length_of_chains_add() -> None:
    made = {name: case.make() for name, case in CHAINS.items()}
    assert [made["mlp-2+mlp-3-given"].context_length, made["mlp-2+mlp-3-given"].reach] == [3, 5]
    assert [made["mlp-1+mlp-3"].context_length, made["mlp-1+mlp-3"].reach] == [0, 4]
    assert [made["lstm+mlp-3-given"].context_length, made["lstm+mlp-3-given"].reach] == [3, None]
    assert [made["nested"].context_length, made["nested"].reach] == [0, 4]
    twice = made["difference+difference"]
    assert [twice.context_length, twice.reach] == [0, 2]


def test_a_chain_is_its_parts_one_after_the_other() -> None:
    case = TRANSFORMS["mlp-1+mlp-2+mlp-1"]
    transform, noise = case.make(), case.frames(3, 5)
    first, second, third = transform.parts
    assert close(transform(noise), third(second(first(noise))), 1e-12)
    x = case.frames(3, 5)
    levels = transform.intermediates(x)
    assert close(levels[0].noise, third.inv(x), 1e-12)
    assert close(levels[1].noise, second.inv(third.inv(x)), 1e-12)
    assert close(levels[2].noise, transform.inv(x), 1e-12)


def test_difference_is_the_change() -> None:
    x = torch.randn(2, 30, 4, dtype=torch.float64)
    u = TemporalDifference().inv(x)
    assert torch.equal(u[:, 1:], x[:, 1:] - x[:, :-1])
    assert torch.equal(u[:, 0], x[:, 0])
    assert (TemporalDifference().log_abs_det_jacobian(u, x) == 0).all()


# masks ----------------------------------------------------------------------------------


LENGTHS = torch.tensor([2, 5, 3])


def padded(case: Case, transform: Any) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Frames with garbage after the end of each sequence, what is given, and the mask."""
    x, given = draw(case, transform, 3, length=5)
    mask = torch.arange(5) < LENGTHS[:, None]
    x[~mask] = 30 * torch.randn_like(x[~mask])
    return x, given, mask


def shorter(case: Case, given: dict[str, Any], index: int, past: int) -> dict[str, Any]:
    """What one sequence is given, without padding."""
    history, context = given["history"], given["context"]
    end = past + int(LENGTHS[index])
    return {
        "history": None if history is None else history[index],
        "context": None if context is None else context[index, :end],
    }


@each
def test_padding_is_the_identity_and_counts_zero(case: Case) -> None:
    transform, other = case.make(), case.make()
    x, given, mask = padded(case, transform)
    conditioned = transform.condition(**given, mask=mask)
    y, log_scale = conditioned.inv(x), conditioned.log_scale(x)
    log_det = conditioned.log_abs_det_jacobian(y, x)
    sample = other.condition(**given, mask=mask)(x)
    assert torch.equal(y[~mask], x[~mask])
    assert torch.equal(sample[~mask], x[~mask])
    assert (log_scale[~mask] == 0).all()
    for i, length in enumerate(LENGTHS.tolist()):
        alone = other.condition(**shorter(case, given, i, transform.context_length))
        frames = x[i, :length]
        assert close(y[i, :length], alone.inv(frames), 1e-12)
        assert close(sample[i, :length], alone(frames), 1e-12)
        assert close(log_det[i], alone.log_abs_det_jacobian(y[i, :length], frames), 1e-12)


@each
def test_sampling_with_a_mask_is_remembered_right(case: Case) -> None:
    transform, other = case.make(), case.make()
    noise, given, mask = padded(case, transform)
    conditioned = transform.condition(**given, mask=mask)
    x = conditioned(noise)
    assert torch.equal(conditioned.inv(x), noise)
    expected = other.condition(**given, mask=mask).log_abs_det_jacobian(noise, x)
    assert close(conditioned.log_abs_det_jacobian(noise, x), expected, 1e-10)


@each
def test_no_gradient_comes_through_padding(case: Case) -> None:
    transform, other = case.make(), case.make()
    x, given, mask = padded(case, transform)
    x.requires_grad_()
    conditioned = transform.condition(**given, mask=mask)
    y = conditioned.inv(x)
    (y[mask].square().sum() + conditioned.log_abs_det_jacobian(y, x).sum()).backward()
    assert (x.grad[~mask] == 0).all()
    assert (x.grad[mask] != 0).any()
    for i, length in enumerate(LENGTHS.tolist()):
        alone = other.condition(**shorter(case, given, i, transform.context_length))
        frames = x.detach()[i, :length]
        y = alone.inv(frames)
        loss = y.square().sum() + alone.log_abs_det_jacobian(y, frames)
        if loss.requires_grad:
            loss.backward()
    for mine, theirs in zip(transform.parameters(), other.parameters(), strict=True):
        assert close(
            mine.grad, torch.zeros_like(mine) if theirs.grad is None else theirs.grad, 1e-9
        )


# log-scales, gradients, precision -------------------------------------------------------


@pytest.mark.parametrize("name", ["conv-group-3", "mlp-1", "lstm", "last-frame-learned"])
def test_log_scale_is_clamped(name: str) -> None:
    case = TRANSFORMS[name]
    conditioner = case.make().conditioner
    transform = affine(conditioner, min_log_scale=-0.05, max_log_scale=0.1).double()
    for factor in (30.0, -30.0):
        with torch.no_grad():
            for name, parameter in transform.named_parameters():
                if "log_scale" in name:
                    parameter.mul_(factor)
        x = case.frames(8, 6)
        log_scale = transform.intermediates(x)[0].log_scale
        assert log_scale.min() >= -0.05
        assert log_scale.max() <= 0.1
        assert ((log_scale == -0.05) | (log_scale == 0.1)).any()
        noise = case.frames(8, 6)
        assert close(copy.deepcopy(transform).inv(transform(noise)), noise, 1e-9)


@pytest.mark.parametrize(("extreme", "clamp"), [(100.0, math.log(10.0)), (-100.0, -10.0)])
def test_default_clamps_keep_everything_finite(extreme: float, clamp: float) -> None:
    transform = affine(mlp(1)).double()
    nn.init.constant_(transform.conditioner.heads.bias, extreme)
    nn.init.constant_(transform.initial_log_scale, extreme)
    noise = torch.randn(3, 6, 2, dtype=torch.float64)
    x = transform(noise)
    levels = transform.intermediates(x)
    assert torch.equal(levels[0].log_scale, torch.full_like(x, clamp))
    assert torch.isfinite(x).all()
    assert close(levels[0].noise, noise, 1e-8)
    log_prob(transform, x.detach()).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in transform.parameters())


@each
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("direction", ["log_prob", "sample"])
def test_every_parameter_gets_a_finite_gradient(case: Case, direction: str, training: bool) -> None:
    transform = case.make().train(training)
    x, given = draw(case, transform, 3, length=(transform.reach or 3) + 2)
    if direction == "log_prob":
        value = log_prob(transform, x, **given).sum()
    else:
        value = transform.condition(**given)(x).square().sum()
    if list(transform.parameters()):
        value.backward()
    for name, parameter in transform.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not training:  # batch norm takes a shift before it away
            assert (parameter.grad != 0).any(), name


@each
def test_gradient_of_the_log_prob(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, length=3)
    x.requires_grad_()
    tensors = [v.requires_grad_() for v in given.values() if v is not None]

    def value(*_: Tensor) -> Tensor:
        return log_prob(transform, x, **given)

    assert torch.autograd.gradcheck(value, (x, *tensors), atol=1e-6, fast_mode=True)


@each
def test_state_dict(case: Case) -> None:
    transform, other = case.make(seed=1), case.make(seed=2)
    x, given = draw(case, transform, 2)
    expected = transform.condition(**given).inv(x)
    sample = transform.condition(**given)(x)
    before = other.condition(**given).inv(x)
    file = io.BytesIO()
    torch.save(transform.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    if list(transform.parameters()):
        assert not torch.equal(before, expected)
    assert torch.equal(other.condition(**given).inv(x), expected)
    assert torch.equal(other.condition(**given)(x), sample)


@each
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_after_use(case: Case, how: str) -> None:
    transform = case.make()
    x, given = draw(case, transform, 2)
    y = transform.condition(**given).inv(x.requires_grad_())  # the memo now holds a graph
    assert y.requires_grad
    twin = copy.deepcopy(transform) if how == "deepcopy" else pickle.loads(pickle.dumps(transform))
    assert torch.equal(twin.condition(**given).inv(x), y)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(0.5)
    if list(twin.parameters()):
        assert not torch.equal(twin.condition(**given).inv(x), y)
    assert torch.equal(transform.condition(**given).inv(x), y)


@each
def test_autocast_leaves_the_results_in_single_precision(case: Case) -> None:
    transform = case.make(dtype=torch.float32)
    x, given = draw(case, transform, 3)
    x = x.float()
    given = {k: None if v is None else v.float() for k, v in given.items()}
    plain = transform.condition(**given).inv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conditioned = transform.condition(**given)
        y = conditioned.inv(x)
        log_det = conditioned.log_abs_det_jacobian(y, x)
        sample = conditioned(x)
        log_density = log_prob(transform, x, **given)
    for result in (y, log_det, sample, log_density):
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()
    torch.testing.assert_close(y, plain, rtol=0.1, atol=0.2)


@pytest.mark.parametrize("name", ["conv-group-3", "mlp-3"])
def test_autocast_reaches_the_networks_and_not_their_heads(name: str) -> None:
    case = TRANSFORMS[name]
    transform = case.make(dtype=torch.float32)
    networks, heads = set(), set()
    conditioner = transform.conditioner
    body = conditioner.body if name.startswith("conv") else conditioner.fuse
    body.register_forward_hook(lambda *args: networks.add(args[-1].dtype))
    conditioner.heads.register_forward_hook(lambda *args: heads.add(args[-1].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        transform.inv(case.frames(2, 5).float())
    assert networks == {torch.bfloat16}
    assert heads == {torch.float32}


def on_device(case: Case, device: str) -> list[tuple[Tensor, Tensor]]:
    """Noise, frames and log det there, each with what it is on the CPU."""
    transform, moved = case.make(), case.make().to(device)
    x, given = draw(case, transform, 2)
    here = transform.condition(**given)
    there = moved.condition(**{k: None if v is None else v.to(device) for k, v in given.items()})
    y = here.inv(x)
    pairs = [(here, x), (here.inv, x), (lambda x: here.log_abs_det_jacobian(y, x), x)]
    results = [there(x.to(device)), there.inv(x.to(device))]
    results.append(there.log_abs_det_jacobian(results[1], x.to(device)))
    return [(result, f(v)) for result, (f, v) in zip(results, pairs, strict=True)]


# torch has no autocast on meta, which the LSTMs switch off
no_lstm = {k: v for k, v in TRANSFORMS.items() if "lstm" not in k and k not in HIERARCHIES}


@pytest.mark.parametrize("case", no_lstm.values(), ids=no_lstm)
def test_nothing_is_left_on_another_device(case: Case) -> None:
    """On ``meta`` nothing is computed, but mixed devices are an error as on an accelerator."""
    for there, here in on_device(case, "meta"):
        assert there.device.type == "meta"
        assert there.shape == here.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    for case in TRANSFORMS.values():
        for there, here in on_device(case, "cuda"):
            assert there.device.type == "cuda"
            assert close(there.cpu(), here, 1e-8)


# cost -----------------------------------------------------------------------------------


def networks(transform: Any) -> list[Any]:
    """The conditioner of each affine part."""
    return [m.conditioner for m in transform.modules() if isinstance(m, TemporalAffine)]


windowed = {k: v for k, v in AFFINE.items() if k.startswith(("conv", "mlp"))}


@pytest.mark.parametrize("case", windowed.values(), ids=windowed)
@pytest.mark.parametrize("length", [4, 9])
def test_inverse_is_one_pass_and_encodes_no_frame_twice(case: Case, length: int) -> None:
    transform = case.make()
    conditioner, window = transform.conditioner, transform.conditioner.window
    x = case.frames(1, length)
    for past in {0 if transform.context_length == 0 else window, window, window + 2}:
        history = case.frames(1, past) if past else None
        with calls(conditioner.encoder) as encoder, calls(conditioner.body) as body:
            transform.condition(history=history).inv(x)
        assert (encoder.count, body.count) == (1, 1)
        assert encoder.frames == (length + window - 1 if past else length - 1)
        assert body.frames == (length if past else length - window)


@pytest.mark.parametrize("case", windowed.values(), ids=windowed)
def test_sampling_encodes_each_frame_once(case: Case) -> None:
    transform = case.make()
    conditioner, window = transform.conditioner, transform.conditioner.window
    noise = case.frames(1, 7)
    for past in {0 if transform.context_length == 0 else window, window, window + 2}:
        history = case.frames(1, past) if past else None
        with calls(conditioner.encoder) as encoder, calls(conditioner.body) as body:
            transform.condition(history=history)(noise)
        assert encoder.frames == (7 + window - 1 if past else 7 - 1)
        assert body.count == body.frames == (7 if past else 7 - window)


@pytest.mark.parametrize("case", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("length", [5, 11])
def test_inverse_of_a_chain_is_one_pass_of_each_network(case: Case, length: int) -> None:
    transform = case.make()
    x, given = draw(case, transform, 1, length=length)
    conditioners = networks(transform)
    counts = [0] * len(conditioners)

    def count(index: int) -> Any:
        def hook(*_: Any) -> None:
            counts[index] += 1

        return hook

    for i, conditioner in enumerate(conditioners):
        for name in ("body", "lstm"):
            if hasattr(conditioner, name):
                getattr(conditioner, name).register_forward_pre_hook(count(i))
            elif not list(conditioner.children()):
                conditioner.register_forward_pre_hook(count(i))
                break
    transform.condition(**given).inv(x)
    assert counts == [1] * len(conditioners)


@pytest.mark.parametrize("name", ["lstm", "lstm-2-context-pre"])
def test_lstm_runs_once_to_invert_and_once_a_step_to_sample(name: str) -> None:
    case = TRANSFORMS[name]
    transform = case.make()
    x, context = case.frames(1, 6), case.context(1, 6)
    conditioned = transform.condition(context=context)
    with calls(transform.conditioner.lstm) as seen:
        conditioned.inv(x)
    assert seen.count == 1
    with calls(transform.conditioner.lstm) as seen:
        conditioned(x)
    assert seen.count == 6


def test_samples_share_the_encoding_of_their_history() -> None:
    case = TRANSFORMS["conv-group-3"]
    transform = case.make()
    with calls(transform.conditioner.encoder) as encoder:
        transform.condition(history=case.frames(1, 3))(case.frames(100, 1, 1))
    assert encoder.frames == 3


@pytest.mark.parametrize("name", ["conv-1+conv-3", "conv-3-given+conv-1-given", "mlp-3+mlp-1"])
def test_a_step_of_a_chain_encodes_one_frame_a_part(name: str) -> None:
    case = TRANSFORMS[name]
    transform = case.make()
    history = case.frames(1, transform.reach)
    state = transform.initial_state(torch.Size([1]), history=history)
    for t in range(5):
        noise = case.frames(1)
        counters = [calls(conditioner.encoder) for conditioner in networks(transform)]
        entered = [counter.__enter__() for counter in counters]
        *_, state = transform.step(noise, state)
        for counter in counters:
            counter.__exit__(None, None, None)
        codes = [(seen.count, seen.frames) for seen in entered]
        assert codes == [(1, 1) if t else (0, 0)] * len(entered)  # the history's are there


# random lengths, windows and splits -----------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    windows=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    learned=st.booleans(),
    length=st.integers(2, 9),
    data=st.data(),
)
def test_any_window_length_and_split(
    windows: list[int], learned: bool, length: int, data: Any
) -> None:
    torch.manual_seed(0)
    initial = "learned" if learned else None
    parts = [affine(MLPConditioner(2, hidden=(5,), window=w), initial) for w in windows]
    transform = TemporalChain(parts).double()
    perturb(transform)
    start = transform.context_length
    assert start == (0 if learned else sum(windows))
    x = torch.randn(start + length, 2, dtype=torch.float64)
    split = data.draw(st.integers(start + 1, start + length - 1))
    head, rest = x[start:split], x[split:]
    whole = log_prob(transform, x[start:], history=x[:start])
    pieces = log_prob(transform, head, history=x[:start])
    pieces = pieces + log_prob(transform, rest, history=x[:split])
    assert close(pieces, whole, 1e-10)
    noise = transform.condition(history=x[:split]).inv(rest)
    assert close(copy.deepcopy(transform).condition(history=x[:split])(noise), rest, 1e-10)


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


# bad input ------------------------------------------------------------------------------


@contextmanager
def refused(message: str) -> Iterator[None]:
    """In one line that says what was expected."""
    with pytest.raises(ValueError, match=message) as error:
        yield
    assert "\n" not in str(error.value)


given_cases = {k: v for k, v in TRANSFORMS.items() if v.make().context_length}


@pytest.mark.parametrize("case", given_cases.values(), ids=given_cases)
def test_too_little_history(case: Case) -> None:
    transform = case.make()
    needed = transform.context_length
    expected = rf"{needed} frames of history are needed .* got {{}}: pass `history=`"
    with refused(expected.format(needed - 1)):
        transform.condition(history=case.frames(2, needed - 1))
    with refused(expected.format(0)):
        transform.condition()
    for direction in (transform, transform.inv):
        with refused(expected.format(0)):
            direction(case.frames(2, 4))


@each
def test_too_few_dimensions(case: Case) -> None:
    transform = case.make()
    dims = len(case.frame_shape)
    frame = torch.zeros(case.frame_shape, dtype=torch.float64)
    expected = rf"\(\*batch, T, \*frame_shape\) with {dims} frame dimensions, got"
    with refused(expected):
        transform.condition(history=frame)
    _, given = draw(case, transform)
    conditioned = transform.condition(**given)
    for direction in (conditioned, conditioned.inv):
        with refused(expected):
            direction(frame)
    with refused(expected):
        conditioned.log_abs_det_jacobian(frame, frame)


def test_an_empty_chain() -> None:
    with refused("a chain needs at least one transform"):
        TemporalChain([])


def test_a_chain_of_frames_of_several_ranks() -> None:
    with refused("must be of frames of one rank"):
        TemporalChain([affine(mlp(1)), affine(conv())])
    with refused("must be of frames of one rank"):
        TemporalChain([TemporalDifference(frame_dims=1), TemporalDifference(frame_dims=3)])


@pytest.mark.parametrize("initial", ["zero", "", True, 0])
def test_a_wrong_initial(initial: Any) -> None:
    with refused(f"'learned' or None, got {initial!r}"):
        affine(mlp(1), initial)


@pytest.mark.parametrize("name", ["lstm-context", "lstm-context+lstm-context"])
@pytest.mark.parametrize("features", [0, 2])
def test_a_wrong_context(name: str, features: int) -> None:
    case = TRANSFORMS[name]
    x = case.frames(2, 4)
    context = x.new_zeros(2, 4, features) if features else None
    conditioned = case.make().condition(context=context)
    expected = f"expected 3 context features, got {features or 'none'}"
    for direction in (conditioned, conditioned.inv):
        with refused(expected):
            direction(x)


def test_a_context_where_none_is_expected() -> None:
    x = torch.zeros(2, 4, 2, dtype=torch.float64)
    conditioned = TRANSFORMS["lstm"].make().condition(context=x)
    with refused("expected 0 context features, got 2"):
        conditioned.inv(x)


@pytest.mark.parametrize("name", ["lstm-context", "lstm-context+lstm-context"])
@pytest.mark.parametrize("steps", [1, 5, 7])
def test_a_context_of_another_length(name: str, steps: int) -> None:
    case = TRANSFORMS[name]
    given = {"history": case.frames(2, 2), "context": case.context(2, steps)}
    conditioned = case.make().condition(**given)
    for direction in (conditioned, conditioned.inv, conditioned.intermediates):
        with refused(f"expected a context of 6 steps, .* got {steps}"):
            direction(case.frames(2, 4))


# as a distribution ----------------------------------------------------------------------


@each
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


def test_video_frames_keep_their_initial_values_per_channel() -> None:
    transform = TRANSFORMS["conv-group-3"].make()
    assert transform.initial_shift.shape == (3, VIDEO[0], 1, 1)
    x = TRANSFORMS["conv-group-3"].frames(2, 4)
    level = transform.intermediates(x)[0]
    assert torch.equal(level.shift[:, :3], transform.initial_shift.expand(2, 3, *VIDEO))
