"""No inverse is handed out in another mode of torch, or where one cannot be kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from tests.support.cached import SMALL, both, check, fresh
from tests.support.registry import TRANSFORMS, affine, conv, lstm, mlp, perturb

# modes that change ----------------------------------------------------------------------


def test_after_a_switch_of_train_and_eval() -> None:
    transform = affine(conv(norm="batch", window=1)).double()
    perturb(transform)
    x = TRANSFORMS["conv-group-3"].frames(2, 4)
    found = [both(transform.train(mode), x)[0] for mode in (True, False, True)]
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    check(transform, x)


def test_after_a_switch_of_grad_mode() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    for grad in (False, True, False):
        with torch.set_grad_enabled(grad):
            assert both(transform, x)[0].requires_grad == grad
            check(transform, x)


def test_after_a_switch_of_autocast() -> None:
    case = TRANSFORMS["conv-group-3"]
    transform = case.make(dtype=torch.float32)
    x = case.frames(2, 4).float()
    results = []
    for dtype in (None, torch.bfloat16, torch.float16, None):
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            results.append(both(transform, x)[0])
            check(transform, x)
    plain, brain, half, again = results
    assert torch.equal(plain, again)
    assert not torch.equal(plain, brain)
    assert not torch.equal(brain, half)


def test_inference_mode_leaves_nothing() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    with torch.inference_mode():
        inside = transform.inv(x)
    with torch.no_grad():
        y = transform.inv(x)
    assert torch.equal(y, inside)
    assert not y.is_inference()
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (y * weight).sum().backward()  # what was made in inference mode could not be saved for this
    with torch.inference_mode():
        x, history = SMALL.frames(2, 4), SMALL.frames(2, 1)
        for tensor in (x, history):
            check(transform, x, history=history)
            tensor.mul_(2.0)  # no version tells of this
            check(transform, x, history=history)
        sample = transform(SMALL.frames(2, 4))
        sample.mul_(2.0)
        check(transform, sample)
    with torch.no_grad():
        check(transform, x, history=history)


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        transform = SMALL.make()
    x = SMALL.frames(2, 4)
    with torch.no_grad():
        before = transform.inv(x)
    with torch.inference_mode():
        transform.conditioner.heads.bias.add_(1.0)
    with torch.no_grad():
        assert not torch.equal(transform.inv(x), before)


# randomness within ----------------------------------------------------------------------


def _dropout() -> Any:
    return affine(lstm(pre_network=nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5))))


def _dropout_of_an_lstm() -> Any:
    transform = affine(lstm(layers=2))
    transform.conditioner.lstm.dropout = 0.5
    return transform


def _noise_of_a_user() -> Any:
    transform = affine(mlp(1))
    transform.conditioner.heads.register_forward_hook(
        lambda module, _, out: out + torch.randn_like(out) if module.training else out
    )
    return transform


@pytest.mark.parametrize("build", [_dropout, _dropout_of_an_lstm, _noise_of_a_user])
def test_networks_that_draw_random_numbers_draw_them_anew(build: Callable[[], Any]) -> None:
    transform = build().double().train()
    perturb(transform)
    x = SMALL.frames(2, 4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert not torch.equal(both(transform, x)[0], both(transform, x)[0])
            sample = transform(x)
            assert not torch.equal(transform.inv(sample), x)
    quiet = transform.eval().inv(x)
    assert transform.inv(x) is quiet
    assert not torch.equal(transform.train().inv(x), quiet)


# other ways to run it -------------------------------------------------------------------


# torch compiles a few derivatives with what it has deprecated itself
own_deprecation = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")


@own_deprecation
def test_function_transforms_see_no_cache() -> None:
    transform, other = SMALL.make(), SMALL.make()
    x, tangent = SMALL.frames(3, 4), SMALL.frames(3, 4)
    transform.inv(x)
    expected = torch.autograd.functional.jacobian(other.inv, x)
    torch.testing.assert_close(torch.func.jacrev(transform.inv)(x), expected)
    torch.testing.assert_close(torch.func.jacfwd(transform.inv)(x), expected)
    transform.inv(x)
    _, derivative = torch.func.jvp(transform.inv, (x,), (tangent,))
    torch.testing.assert_close(derivative, torch.einsum("btdBTD,BTD->btd", expected, tangent))
    torch.testing.assert_close(torch.func.vmap(transform.inv)(x), other.inv(x))
    check(transform, x)


@own_deprecation
def test_dual_numbers_see_no_cache() -> None:
    transform = SMALL.make().requires_grad_(False)
    x, tangent = SMALL.frames(3, 4), SMALL.frames(3, 4)
    transform.inv(x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        derivative = forward_ad.unpack_dual(transform.inv(dual)).tangent
        assert derivative is not None
        expected = torch.autograd.functional.jacobian(SMALL.make().inv, x)
        torch.testing.assert_close(derivative, torch.einsum("btdBTD,BTD->btd", expected, tangent))
    check(transform, x)


def test_functional_call_sees_its_own_parameters() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    before = transform.inv(x)
    others = dict(SMALL.make(seed=9).named_parameters())

    class Inverse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = transform

        def forward(self, x: Tensor) -> Tensor:
            return self.flow.inv(x)

    y = torch.func.functional_call(Inverse(), {f"flow.{k}": v for k, v in others.items()}, (x,))
    assert torch.equal(y, SMALL.make(seed=9).inv(x))
    assert torch.equal(transform.inv(x), before)


@own_deprecation
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("how", ["traced", "compiled"])
def test_a_program_of_the_inverse_is_no_constant(how: str) -> None:
    transform, x = SMALL.make().requires_grad_(False), SMALL.frames(2, 4)
    transform.inv(x)
    if how == "traced":
        program = torch.jit.trace(lambda x: transform.inv(x), (x,), check_trace=False)
    else:
        program = torch.compile(lambda x: transform.condition().inv(x), backend="eager")
    for other in (x, SMALL.frames(2, 4)):
        assert torch.allclose(program(other), fresh(transform, other)[0], rtol=0, atol=1e-12)
    with torch.no_grad():
        transform.conditioner.heads.bias.add_(1.0)
    if how == "compiled":
        assert torch.allclose(program(x), fresh(transform, x)[0], rtol=0, atol=1e-12)
