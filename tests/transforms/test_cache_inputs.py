"""No inverse is handed out for inputs that changed, or are others."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.support.cached import SMALL, both, check, fresh
from tests.support.registry import TRANSFORMS

# inputs that change ---------------------------------------------------------------------


def _scale(x: Tensor) -> None:
    x.mul_(2.0)


def _through_a_view(x: Tensor) -> None:
    x.detach().unbind(1)[0].add_(1.0)


@pytest.mark.parametrize("which", ["x", "history", "context"])
def test_after_a_change_of_an_input(which: str) -> None:
    transform = TRANSFORMS["lstm-context"].make()
    full, context = SMALL.frames(2, 6), torch.randn(2, 6, 3, dtype=torch.float64)
    given = {"x": full[:, 2:], "history": full[:, :2], "context": context}
    for change, grad in itertools.product((_scale, _through_a_view), (True, False)):
        with torch.set_grad_enabled(grad):
            before, _ = both(transform, **given)
            with torch.no_grad():
                change(given[which])
            assert not torch.equal(both(transform, **given)[0], before)
            check(transform, **given)


def test_after_a_change_of_a_mask() -> None:
    transform = SMALL.make()
    x, mask = SMALL.frames(2, 4), torch.ones(2, 4, dtype=torch.bool)
    check(transform, x, mask=mask)
    mask[0, 2:] = False
    check(transform, x, mask=mask)
    conditioned = transform.condition(mask=mask)
    sample = conditioned(x)
    mask[0, 1] = False
    assert torch.equal(conditioned.inv(sample)[0, 1], sample[0, 1])
    check(transform, sample.detach(), mask=mask)


def test_other_inputs() -> None:
    case = TRANSFORMS["lstm-context"]
    transform = case.make()
    x, history, context = case.frames(2, 4), case.frames(2, 1), case.context(2, 5)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    given = {"history": history, "context": context, "mask": mask}
    check(transform, x, **given)
    for change in (
        {"history": case.frames(2, 1)},
        {"history": None, "context": context[:, 1:]},
        {"history": history.expand(3, 2, 1, 2)[1]},
        {"context": case.context(2, 5)},
        {"mask": None},
        {"mask": ~mask},
    ):
        check(transform, x, **(given | change))
        check(transform, x, **given)
    check(transform, case.frames(2, 4), **given)
    check(transform, x[:1], history=history[:1], context=context[:1])


def test_another_tensor_with_the_same_values() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4).requires_grad_()
    y = transform.inv(x)
    other = x.detach().clone().requires_grad_()
    again = transform.inv(other)
    assert torch.equal(again, y)
    (gradient,) = torch.autograd.grad(again.sum(), other)  # reaches the one that was asked about
    assert (gradient != 0).any()
    check(transform, other)


def test_tensors_that_share_the_memory_of_an_array() -> None:
    transform = SMALL.make()
    array = SMALL.frames(2, 4).numpy()
    with torch.no_grad():
        for _ in range(3):
            check(transform, torch.from_numpy(array))
            array *= 0.5


def test_gradients_asked_for_later() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    transform.inv(x)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(transform.inv(x).sum(), x)
    assert (gradient != 0).any()
    transform.requires_grad_(False)
    transform.inv(x)
    x.requires_grad_(False)
    assert not transform.inv(x).requires_grad


def test_a_detached_sample_is_another_question() -> None:
    transform = SMALL.make()
    x = transform(SMALL.frames(2, 4))
    y = transform.inv(x.detach())
    assert y.requires_grad  # by the parameters: the noise behind given frames moves with them
    torch.testing.assert_close(y, fresh(transform, x.detach())[0])
    gradients = torch.autograd.grad(y.square().sum(), list(transform.parameters()))
    assert all((gradient != 0).any() for gradient in gradients)


def test_addresses_that_are_used_again() -> None:
    transform, addresses = SMALL.make(), set()
    with torch.no_grad():
        for _ in range(100):
            x, history = SMALL.frames(2, 4), SMALL.frames(2, 1)
            addresses.add(x.data_ptr())
            check(transform, x, history=history)
            transform.initial_shift = None
            transform.initial_shift = nn.Parameter(torch.randn(1, 2, dtype=torch.float64))
            check(transform, x)
            del x, history
    assert len(addresses) < 100  # so it does happen


def test_a_result_that_was_written_to() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            transform.inv(x).mul_(2.0)
            check(transform, x)
            transform.condition().log_scale(x).zero_()
            check(transform, x)
            noise = SMALL.frames(2, 4)
            sample = transform(noise)
            expected = fresh(transform, sample)[0]
            noise.zero_()
            torch.testing.assert_close(transform.inv(sample), expected)
