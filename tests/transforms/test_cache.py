"""The inverse is computed once, and never handed out once it is no longer right."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from pyro_afslvm.transforms import TemporalAffine
from tests.support.registry import TRANSFORMS, Case, affine, calls, conv, lstm, mlp, perturb

NAMES = [
    "conv-group-3",
    "conv-batch-1-residual",
    "mlp-1",
    "mlp-3-given",
    "lstm",
    "lstm-context",
    "last-frame-learned",
    "mlp-1+mlp-3",
    "mlp-3-given+lstm",
]
each = pytest.mark.parametrize("case", [TRANSFORMS[name] for name in NAMES], ids=NAMES)
SMALL = TRANSFORMS["mlp-1"]


@contextmanager
def network_calls(transform: nn.Module) -> Iterator[Callable[[], int]]:
    """How often any network of the transform has run so far."""
    parts = [part for part in transform.modules() if isinstance(part, TemporalAffine)]
    with ExitStack() as stack:
        counters = [stack.enter_context(calls(part.conditioner)) for part in parts]
        yield lambda: sum(counter.count for counter in counters)


def draw(case: Case, transform: Any, *, length: int = 4) -> tuple[Tensor, dict[str, Any]]:
    past = transform.context_length
    history = case.frames(2, past) if past else None
    return case.frames(2, length), {"history": history, "context": case.context(2, past + length)}


def both(transform: Any, x: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    conditioned = transform.condition(**given)
    y = conditioned.inv(x)
    return y, conditioned.log_abs_det_jacobian(y, x)


def fresh(transform: Any, x: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    """The same from a copy, which remembers nothing."""
    return both(copy.deepcopy(transform), x.clone(), **given)


def check(transform: Any, x: Tensor, **given: Any) -> None:
    """What is handed out is what a copy without a memory computes."""
    results, known = both(transform, x, **given), fresh(transform, x, **given)
    for some, expected in zip(results, known, strict=True):
        assert some.dtype == expected.dtype
        assert some.requires_grad == expected.requires_grad
        assert torch.equal(some, expected)


# what is remembered ---------------------------------------------------------------------


@each
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_the_second_inverse_costs_nothing(case: Case, grad: bool) -> None:
    transform = case.make()
    x, given = draw(case, transform)
    with torch.set_grad_enabled(grad):
        y, log_det = both(transform, x, **given)
        with network_calls(transform) as count:
            again, same = both(transform, x, **given)  # conditioned anew, as model and guide do
            transform.condition(**given).log_scale(x)
            assert count() == 0
        assert torch.equal(again, y)
        assert torch.equal(same, log_det)
        check(transform, x, **given)


@each
def test_inverse_and_log_det_are_one_pass(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform)
    parts = [part for part in transform.modules() if isinstance(part, TemporalAffine)]
    with network_calls(transform) as count:
        both(transform, x, **given)
        assert count() == len(parts)


@each
def test_new_views_of_the_same_memory_cost_nothing(case: Case) -> None:
    """As when guide and model each split context from frames."""
    transform = case.make()
    full = case.frames(2, 3 + 4)
    context = case.context(2, 3 + 4)
    with network_calls(transform) as count:
        first = both(transform, full[:, 3:], history=full[:, :3], context=context)
        before = count()
        second = both(transform, full[:, 3:], history=full[:, :3], context=context)
        assert count() == before
    assert torch.equal(first[0], second[0])
    check(transform, full[:, 3:], history=full[:, :3], context=context)


@each
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_the_inverse_of_a_sample_is_its_noise(case: Case, grad: bool) -> None:
    transform = case.make()
    noise, given = draw(case, transform)
    with torch.set_grad_enabled(grad):
        x = transform.condition(**given)(noise)
        with network_calls(transform) as count:
            y, log_det = both(transform, x, **given)
            assert count() == 0
        assert torch.equal(y, noise)
        expected, known = fresh(transform, x, **given)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(log_det, known, rtol=0, atol=1e-10)


@each
def test_gradients_are_those_without_a_memory(case: Case) -> None:
    transform, other = case.make(), case.make()
    x, given = draw(case, transform)
    x.requires_grad_()
    twin = x.detach().clone().requires_grad_()
    conditioned = transform.condition(**given)
    loss = conditioned.inv(x).square().sum() + conditioned.log_abs_det_jacobian(x, x).sum()
    (loss + conditioned.inv(x).sum()).backward()
    y, log_det = both(other, twin, **given)
    once = y.square().sum() + y.sum()
    other.clear_cache()
    (once + log_det.sum()).backward()
    torch.testing.assert_close(x.grad, twin.grad)
    for mine, theirs in zip(transform.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_sample_passes_its_gradient_through_the_memory() -> None:
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


def test_a_new_mask_costs_nothing() -> None:
    transform = TRANSFORMS["mlp-3"].make()
    x = torch.randn(2, 6, 2, dtype=torch.float64)
    full = torch.arange(6) < torch.tensor([6, 6])[:, None]
    short = torch.arange(6) < torch.tensor([2, 5])[:, None]
    check(transform, x)
    with network_calls(transform) as count:
        for mask in (full, short, full.clone(), short.clone()):
            both(transform, x, mask=mask)
        assert count() == 0
    for mask in (full, short, None):
        check(transform, x, mask=mask)


def test_each_transform_remembers_for_itself() -> None:
    conditioner = mlp(1)
    one, two = affine(conditioner).double(), affine(conditioner, max_log_scale=-1.0).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64)
    assert not torch.equal(one.inv(x), two.inv(x))
    check(one, x)
    check(two, x)


# parameters that change -----------------------------------------------------------------


def _adam(**options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=0.1, **options)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "sgd-fused": lambda parameters: torch.optim.SGD(parameters, lr=0.1, fused=True),
    "adam": _adam(foreach=False),
    "adam-foreach": _adam(foreach=True),
    "adam-fused": _adam(fused=True),
    "adamw-fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "rmsprop-foreach": lambda parameters: torch.optim.RMSprop(parameters, lr=0.1, foreach=True),
}


@each
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_after_an_optimizer_step(case: Case, optimizer: str, grad: bool) -> None:
    transform = case.make()
    x, given = draw(case, transform)
    steps = OPTIMIZERS[optimizer](transform.parameters())
    for _ in range(2):
        for parameter in transform.parameters():
            parameter.grad = torch.randn_like(parameter)  # no backward, which would forget
        with torch.set_grad_enabled(grad):
            before, _ = both(transform, x, **given)
            steps.step()
            assert not torch.equal(both(transform, x, **given)[0], before)
            check(transform, x, **given)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_after_an_optimizer_step_on_cuda(optimizer: str) -> None:
    """There no values are compared."""
    transform = SMALL.make().cuda()
    x = SMALL.frames(2, 4).cuda()
    steps = OPTIMIZERS[optimizer](transform.parameters())
    for parameter in transform.parameters():
        parameter.grad = torch.randn_like(parameter)
    with torch.no_grad(), network_calls(transform) as count:
        before, _ = both(transform, x)
        both(transform, x.view_as(x))
        assert count() == 1
        steps.step()
        assert not torch.equal(both(transform, x)[0], before)
        check(transform, x)
        x.mul_(2.0)
        check(transform, x)


def test_training_goes_down_as_without_a_memory() -> None:
    transform, other = SMALL.make(), SMALL.make()
    x = 3 * SMALL.frames(8, 5) + 2
    losses: dict[int, list[float]] = {0: [], 1: []}
    for i, flow in enumerate((transform, other)):
        optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            y = flow.inv(x)
            if i == 1:
                flow.clear_cache()
            loss = (y.square().sum() / 2 + flow.log_abs_det_jacobian(y, x).sum()) / 8
            loss.backward()
            optimizer.step()
            losses[i].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0][-1] < losses[0][0]


@torch.no_grad()
def _in_place(transform: Any) -> None:
    transform.conditioner.heads.bias.add_(1.0)


def _through_data(transform: Any) -> None:
    transform.conditioner.heads.bias.data.add_(1.0)


def _new_data(transform: Any) -> None:
    transform.conditioner.heads.bias.data = torch.randn(4, dtype=torch.float64)


def _through_numpy(transform: Any) -> None:
    transform.conditioner.heads.bias.detach().numpy()[:] = 7.0


def _load(transform: Any) -> None:
    transform.load_state_dict(SMALL.make(seed=9).state_dict())


def _load_and_assign(transform: Any) -> None:
    transform.load_state_dict(SMALL.make(seed=9).state_dict(), assign=True)


def _round(transform: Any) -> None:
    transform.bfloat16().double()  # a freed address may come back


def _replace_parameter(transform: Any) -> None:
    transform.initial_shift = nn.Parameter(torch.ones_like(transform.initial_shift))


def _replace_layer(transform: Any) -> None:
    transform.conditioner.heads = nn.Linear(8, 4).double()


def _from_a_vector(transform: Any) -> None:
    size = sum(p.numel() for p in transform.parameters())
    vector = torch.randn(size, dtype=torch.float64)
    nn.utils.vector_to_parameters(vector, transform.parameters())


@torch.no_grad()
def _average(transform: Any) -> None:
    others = list(SMALL.make(seed=9).parameters())
    torch._foreach_lerp_(list(transform.parameters()), others, 0.5)


CHANGES = [
    _in_place,
    _through_data,
    _new_data,
    _through_numpy,
    _load,
    _load_and_assign,
    _round,
    _replace_parameter,
    _replace_layer,
    _from_a_vector,
    _average,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_after_a_change_of_parameters(change: Callable[[Any], None], grad: bool) -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    with torch.set_grad_enabled(grad):
        for _ in range(2):
            perturb(transform)
            before, _ = both(transform, x)
            change(transform)
            assert not torch.equal(both(transform, x)[0], before)
            check(transform, x)


@pytest.mark.parametrize("thawed", [False, True])
def test_after_freezing_or_thawing(thawed: bool) -> None:
    transform = SMALL.make().requires_grad_(not thawed)
    x = SMALL.frames(2, 4)
    assert both(transform, x)[0].requires_grad != thawed
    transform.requires_grad_(thawed)
    assert both(transform, x)[0].requires_grad == thawed
    check(transform, x)


def test_after_a_change_of_precision() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    assert both(transform, x)[0].dtype == torch.float64
    transform.float()
    assert both(transform, x.float())[0].dtype == torch.float32
    check(transform, x.float())
    transform.double()
    check(transform, x)


def test_after_a_change_of_statistics() -> None:
    transform = affine(conv(norm="batch", window=1)).double()
    perturb(transform)
    x = TRANSFORMS["conv-group-3"].frames(2, 4)
    norms = [m for m in transform.modules() if isinstance(m, nn.BatchNorm2d)]
    for training in (False, True):  # batch norm in evaluation, also where the rest is training
        transform.train(training)
        for norm in norms:
            norm.eval()
        perturb(transform)
        before, _ = both(transform, x)
        norms[0].running_mean.sub_(1.0)
        assert not torch.equal(both(transform, x)[0], before)
        check(transform, x)


def test_batch_norm_moves_its_statistics_once() -> None:
    transform = affine(conv(norm="batch", window=1)).double().train()
    x = TRANSFORMS["conv-group-3"].frames(2, 4)
    norm = next(m for m in transform.modules() if isinstance(m, nn.BatchNorm2d))
    both(transform, x)
    assert norm.num_batches_tracked == 1
    both(transform, x)
    assert norm.num_batches_tracked == 1


# modes that change ----------------------------------------------------------------------


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=str)
def test_after_a_switch_of_train_and_eval(order: tuple[bool, bool]) -> None:
    transform = affine(conv(norm="batch", window=1)).double()
    perturb(transform)
    x = TRANSFORMS["conv-group-3"].frames(2, 4)
    first, second = (both(transform.train(mode), x)[0] for mode in order)
    assert not torch.equal(first, second)
    check(transform, x)


def test_after_a_switch_of_one_layer() -> None:
    dropout = nn.Dropout(0.5)
    transform = affine(lstm(pre_network=nn.Sequential(nn.Linear(2, 16), dropout))).double().train()
    perturb(transform)
    x = SMALL.frames(2, 4)
    noisy = both(transform, x)[0]
    dropout.eval()
    assert not torch.equal(both(transform, x)[0], noisy)
    check(transform, x)


@each
def test_after_a_switch_of_grad_mode(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform)
    for grad in (False, True, False):
        with torch.set_grad_enabled(grad):
            assert both(transform, x, **given)[0].requires_grad == grad
            check(transform, x, **given)


@pytest.mark.parametrize("name", ["mlp-1", "conv-group-3"])
def test_after_a_switch_of_autocast(name: str) -> None:
    case = TRANSFORMS[name]
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


def test_after_inference_mode() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    with torch.inference_mode():
        inside = transform.inv(x)
        assert torch.equal(transform.inv(x), inside)
    with torch.no_grad():
        y = transform.inv(x)
    assert torch.equal(y, inside)
    assert not y.is_inference()
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (y * weight).sum().backward()  # what was made in inference mode could not be saved for this


def test_inference_tensors() -> None:
    transform = SMALL.make()
    with torch.inference_mode():
        x, history = SMALL.frames(2, 4), SMALL.frames(2, 1)
        for tensor in (x, history):
            check(transform, x, history=history)
            tensor.mul_(2.0)  # no version tells of this
            check(transform, x, history=history)
        noise = SMALL.frames(2, 4)
        sample = transform(noise)
        sample.mul_(2.0)
        check(transform, sample)
    with torch.no_grad():
        check(transform, x, history=history)


# inputs that change ---------------------------------------------------------------------


def _scale(x: Tensor) -> None:
    x.mul_(2.0)


def _one_entry(x: Tensor) -> None:
    x[0, 0, 0] += 1.0


def _through_a_view(x: Tensor) -> None:
    x.detach().unbind(1)[0].add_(1.0)


def _by_data(x: Tensor) -> None:
    x.data.mul_(2.0)


def _by_numpy(x: Tensor) -> None:
    x.numpy()[0, 0] += 1.0


@pytest.mark.parametrize("which", ["x", "history", "context"])
@pytest.mark.parametrize("change", [_scale, _one_entry, _through_a_view, _by_data, _by_numpy])
def test_after_a_change_of_an_input(which: str, change: Callable[[Tensor], None]) -> None:
    transform = TRANSFORMS["lstm-context"].make()
    full, context = SMALL.frames(2, 6), torch.randn(2, 6, 3, dtype=torch.float64)
    given = {"x": full[:, 2:], "history": full[:, :2], "context": context}
    for grad in (True, False):
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


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_another_tensor_with_the_same_values(grad: bool) -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4).requires_grad_(grad)
    y = transform.inv(x)
    other = x.detach().clone().requires_grad_(grad)
    again = transform.inv(other)
    assert torch.equal(again, y)
    if grad:  # the gradient must reach the one that was asked about
        (gradient,) = torch.autograd.grad(again.sum(), other)
        assert (gradient != 0).any()
    check(transform, other)


def test_gradients_asked_for_later() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
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
    transform = SMALL.make()
    addresses = set()
    with torch.no_grad():
        for _ in range(100):
            x, history = SMALL.frames(2, 4), SMALL.frames(2, 1)
            addresses.add(x.data_ptr())
            check(transform, x, history=history)
            del x, history
    assert len(addresses) < 100  # so it does happen


def test_parameters_at_addresses_that_are_used_again() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    with torch.no_grad():
        for _ in range(50):
            both(transform, x)
            transform.initial_shift = None
            transform.initial_shift = nn.Parameter(torch.randn(1, 2, dtype=torch.float64))
            check(transform, x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_result_that_was_written_to(mode: Any) -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    with mode():
        transform.inv(x).mul_(2.0)
        check(transform, x)
        transform.condition().log_scale(x).zero_()
        check(transform, x)
        noise = SMALL.frames(2, 4)
        sample = transform(noise)
        expected = fresh(transform, sample)[0]
        noise.zero_()
        torch.testing.assert_close(transform.inv(sample), expected)


# graphs that are spent ------------------------------------------------------------------


@each
@pytest.mark.parametrize("first", ["noise", "log_det", "both"])
def test_a_second_backward(case: Case, first: str) -> None:
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


# other ways to differentiate ------------------------------------------------------------


# torch compiles a few derivatives with what it has deprecated itself
own_deprecation = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


@own_deprecation
def test_function_transforms_see_no_memory() -> None:
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
def test_dual_numbers_see_no_memory() -> None:
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
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
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


# the memory itself ----------------------------------------------------------------------


def test_copies_remember_nothing() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    y = transform.inv(x)
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        with network_calls(twin) as count:
            assert torch.equal(twin.inv(x), y)
            assert count() == 1


def test_it_can_be_told_to_forget() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    with network_calls(transform) as count:
        transform.inv(x)
        transform.clear_cache()
        transform.inv(x)
        assert count() == 2


def test_it_keeps_only_the_last_result_and_no_module_alive() -> None:
    transform = SMALL.make()
    x = SMALL.frames(2, 4)
    gone = weakref.ref(transform.inv(x))
    transform.inv(SMALL.frames(2, 4))
    gc.collect()
    assert gone() is None
    y = transform.inv(x)
    module = weakref.ref(transform)
    del transform
    gc.collect()
    assert module() is None
    y.sum().backward()  # the hook finds no memo, and does not mind
