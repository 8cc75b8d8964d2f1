"""Every conditioner: its two faces agree, and neither sees the present."""

import pytest
import torch
from torch.autograd.functional import jacobian

from tests.support.conditioners import draw, steps
from tests.support.registry import CONDITIONERS, Case, conv, lstm, mlp

# what a residual conditioner gives is the same; its transform adds the last frame
DISTINCT = {k: v for k, v in CONDITIONERS.items() if not k.endswith("-residual")}
each = pytest.mark.parametrize("case", DISTINCT.values(), ids=DISTINCT)


@each
def test_step_equals_forward(case: Case) -> None:
    conditioner = case.make()
    for batch, more in (((), 0), ((2,), 3), ((2, 3), 0), ((2, 3), 3)):
        values, given = draw(case, conditioner, *batch, more=more)
        parallel = conditioner(values, **given)
        assert parallel.shape == (*values.shape, conditioner.num_parameters)
        one_by_one = steps(case, conditioner, values, given)
        torch.testing.assert_close(one_by_one, parallel, rtol=1e-12, atol=1e-12)


@each
def test_neither_present_nor_future_is_seen(case: Case) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner)
    both = jacobian(lambda values: conditioner(values, **given).unbind(-1), values)
    reach = conditioner.reach or 5
    for output, full in enumerate(both):
        blocks = full.reshape(5, -1, 5, values[0].numel())
        for t in range(5):
            assert (blocks[t, :, t:] == 0).all()
        if not (output == 1 and conditioner.window == 0 and reach == 1):  # one scale for all
            seen = (blocks != 0).any(3).any(1)
            for lag in range(1, 5):
                assert seen.diagonal(-lag).any() == (lag <= reach), (output, lag)


@each
def test_leading_batch_dimensions(case: Case) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner, 2, 3, more=1)
    flat = {k: None if v is None else v.flatten(0, 1) for k, v in given.items()}
    whole = conditioner(values, **given)
    some = conditioner(values.flatten(0, 1), **flat)
    torch.testing.assert_close(some, whole.flatten(0, 1), rtol=1e-12, atol=1e-12)


@each
def test_history_and_values_are_one_sequence(case: Case) -> None:
    """What follows does not depend on where the history ends."""
    conditioner = case.make()
    values, given = draw(case, conditioner, 2, length=6, more=1)
    whole = conditioner(values, **given)
    history = given["history"]
    dim = -1 - len(case.frame_shape)
    full = torch.cat([history, values.narrow(dim, 0, 2)], dim)
    rest = values.narrow(dim, 2, 4)
    some = conditioner(rest, history=full, context=given["context"])
    torch.testing.assert_close(some, whole.narrow(dim - 1, 2, 4), rtol=1e-12, atol=1e-12)


@each
def test_every_parameter_gets_a_finite_gradient(case: Case) -> None:
    conditioner = case.make().train()
    values, given = draw(case, conditioner, 3)
    parameters = conditioner(values, **given)
    if list(conditioner.parameters()):
        parameters.square().sum().backward()
    for name, parameter in conditioner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@each
def test_too_few_dimensions(case: Case) -> None:
    conditioner = case.make()
    history = case.frames(conditioner.window) if conditioner.window else None
    frame = torch.zeros(case.frame_shape, dtype=torch.float64)
    context = case.context(conditioner.window + 4)
    with pytest.raises(ValueError, match=r"expected a sequence of shape \(\*batch, T, "):
        conditioner(frame, history=history, context=context)


def test_residual_changes_nothing_here() -> None:
    """The transform, which knows the clamps of the scale, adds the last frame."""
    for name in ("conv-group-1", "mlp-3", "lstm"):
        case, other = CONDITIONERS[name], CONDITIONERS[f"{name}-residual"]
        values, given = draw(case, case.make(), 2)
        plain, residual = case.make()(values, **given), other.make()(values, **given)
        assert other.make().residual
        assert torch.equal(plain, residual)


def test_shapes_of_the_initial_values() -> None:
    assert conv().initial_shape == (2, 1, 1)
    assert mlp(2).initial_shape == (2,)
    assert lstm().initial_shape == (2,)
    assert [lstm().window, lstm().reach] == [0, None]
    assert [conv(window=2).window, conv(window=2).reach] == [2, 2]
