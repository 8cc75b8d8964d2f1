"""The affine transform across time: clamps, residual shifts, initial values, and its cost."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from pyro_afslvm.transforms import (
    TemporalDifference,
)
from tests.support.registry import (
    AFFINE,
    CONDITIONERS,
    TRANSFORMS,
    VIDEO,
    Case,
    affine,
    calls,
    mlp,
    perturb,
)
from tests.support.transforms import close, log_prob, refused


@pytest.mark.parametrize("name", ["mlp-1", "lstm", "last-frame-learned"])
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


RESIDUAL = ["conv-group-1-residual", "mlp-3-residual", "lstm-residual"]


@pytest.mark.parametrize("name", RESIDUAL)
@pytest.mark.parametrize("clamps", [(-10.0, math.log(10.0)), (-0.1, 0.05), (0.2, 4.0)], ids=str)
def test_residual_shift_is_the_last_frame_and_a_change_in_units_of_the_scale(
    name: str, clamps: tuple[float, float]
) -> None:
    """The scale is the transform's own, also where one of its clamps is at work."""
    case = CONDITIONERS[name]
    conditioner = case.make()
    low, high = clamps
    transform = affine(conditioner, min_log_scale=low, max_log_scale=high).double()
    perturb(transform)
    history, x = case.frames(conditioner.window + 1), case.frames(5)
    change, log_scale = conditioner(x, history=history).unbind(-1)
    log_scale = log_scale.clamp(low, high)
    if high < 1.0 or low > 0.0:
        assert ((log_scale == low) | (log_scale == high)).any()
    expected = torch.cat([history[-1:], x[:-1]]) + log_scale.exp() * change
    (step,) = transform.condition(history=history).intermediates(x)
    assert close(step.shift, expected, 1e-12)
    assert close(step.log_scale, log_scale, 1e-12)
    conditioner.residual = False  # the same parameters are a shift of its own
    (step,) = transform.condition(history=history).intermediates(x)
    assert close(step.shift, change, 1e-12)


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_transform_inverts_its_samples_where_it_clamps(name: str) -> None:
    case = CONDITIONERS[name]
    transform = affine(case.make(), min_log_scale=-0.1, max_log_scale=0.05).double()
    perturb(transform)
    noise = case.frames(3, 7)
    x = transform(noise)
    assert close(copy.deepcopy(transform).inv(x), noise, 1e-10)
    state = transform.initial_state(torch.Size([3]))
    for t, frame in enumerate(x.unbind(-1 - transform.frame_dims)):
        found, _, state = transform.inverse_step(frame, state)
        assert close(found, noise.select(-1 - transform.frame_dims, t), 1e-10)


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_transform_without_a_change_copies_the_last_frame(name: str) -> None:
    case = CONDITIONERS[name]
    conditioner = case.make()
    nn.init.zeros_(conditioner.heads.weight)
    nn.init.zeros_(conditioner.heads.bias)
    transform = affine(conditioner, None if conditioner.window else "learned").double()
    history, x = case.frames(conditioner.window + 1), case.frames(5)
    (step,) = transform.condition(history=history).intermediates(x)
    assert torch.equal(step.shift, torch.cat([history[-1:], x[:-1]]))


def test_before_the_first_frame_a_residual_shift_is_around_zero() -> None:
    case = CONDITIONERS["lstm-residual"]
    transform = affine(case.make())
    x = case.frames(2, 1)
    change, log_scale = transform.conditioner(x).unbind(-1)
    (step,) = transform.intermediates(x)
    assert close(step.shift, log_scale.exp() * change, 1e-12)


def test_difference_is_the_change() -> None:
    x = torch.randn(2, 30, 4, dtype=torch.float64)
    u = TemporalDifference().inv(x)
    assert torch.equal(u[:, 1:], x[:, 1:] - x[:, :-1])
    assert torch.equal(u[:, 0], x[:, 0])
    assert (TemporalDifference().log_abs_det_jacobian(u, x) == 0).all()


def test_video_frames_keep_their_initial_values_per_channel() -> None:
    transform = TRANSFORMS["conv-group-3"].make()
    assert transform.initial_shift.shape == (3, VIDEO[0], 1, 1)
    x = TRANSFORMS["conv-group-3"].frames(2, 4)
    level = transform.intermediates(x)[0]
    assert torch.equal(level.shift[:, :3], transform.initial_shift.expand(2, 3, *VIDEO))


@pytest.mark.parametrize("initial", ["zero", True])
def test_a_wrong_initial(initial: Any) -> None:
    with refused(f"'learned' or None, got {initial!r}"):
        affine(mlp(1), initial)


# cost -----------------------------------------------------------------------------------


WINDOWED = {
    name: AFFINE[name] for name in ("conv-batch-1-residual", "conv-None-3-residual-given", "mlp-3")
}


@pytest.mark.parametrize("case", WINDOWED.values(), ids=WINDOWED)
def test_inverse_is_one_pass_and_encodes_no_frame_twice(case: Case) -> None:
    transform = case.make()
    conditioner, window = transform.conditioner, transform.conditioner.window
    for length in (4, 9):
        x = case.frames(1, length)
        for past in {0 if transform.context_length == 0 else window, window, window + 2}:
            history = case.frames(1, past) if past else None
            with calls(conditioner.encoder) as encoder, calls(conditioner.body) as body:
                transform.condition(history=history).inv(x)
            assert (encoder.count, body.count) == (1, 1)
            assert encoder.frames == (length + window - 1 if past else length - 1)
            assert body.frames == (length if past else length - window)


@pytest.mark.parametrize("case", WINDOWED.values(), ids=WINDOWED)
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


def test_samples_share_the_encoding_of_their_history() -> None:
    case = TRANSFORMS["conv-group-3"]
    transform = case.make()
    with calls(transform.conditioner.encoder) as encoder:
        transform.condition(history=case.frames(1, 3))(case.frames(100, 1, 1))
    assert encoder.frames == 3


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
