"""The inverse is computed once, and never handed out once it is no longer right."""

import copy
import gc
import itertools
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn
from torch.autograd import forward_ad

from pyro_afslvm.transforms import TemporalAffine, TemporalChain
from tests.support.registry import TRANSFORMS, Case, affine, calls, conv, lstm, mlp, perturb

NAMES = ["mlp-1", "conv-batch-1-residual", "lstm-context", "mlp-3-given+lstm"]
each = pytest.mark.parametrize("case", [TRANSFORMS[name] for name in NAMES], ids=NAMES)
each_of_two = pytest.mark.parametrize("case", [TRANSFORMS[n] for n in NAMES[2:]], ids=NAMES[2:])
SMALL = TRANSFORMS["mlp-1"]


@contextmanager
def network_calls(transform: nn.Module) -> Iterator[Callable[[], int]]:
    """How often any network of the transform has run since; the counters are hooks."""
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
    """What is handed out is what a copy without a cache computes."""
    results, known = both(transform, x, **given), fresh(transform, x, **given)
    for some, expected in zip(results, known, strict=True):
        assert some.dtype == expected.dtype
        assert some.requires_grad == expected.requires_grad
        assert torch.equal(some, expected)


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


# parameters that change -----------------------------------------------------------------


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "sgd-fused": lambda parameters: torch.optim.SGD(parameters, lr=0.1, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, foreach=False),
    "adam-foreach": lambda parameters: torch.optim.Adam(parameters, lr=0.1, foreach=True),
    "adam-fused": lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
    "through-data": lambda parameters: ClippedAdam(parameters, lr=0.1),
}


def after_a_step(optimizer: str, device: str) -> None:
    transform, x = SMALL.make().to(device), SMALL.frames(2, 4).to(device)
    steps = OPTIMIZERS[optimizer](transform.parameters())
    for grad in (False, True):
        for parameter in transform.parameters():
            parameter.grad = torch.randn_like(parameter)  # no backward, which would forget
        with torch.set_grad_enabled(grad):
            before, _ = both(transform, x)
            steps.step()
            assert not torch.equal(both(transform, x)[0], before)
            check(transform, x)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_after_an_optimizer_step(optimizer: str) -> None:
    after_a_step(optimizer, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_after_an_optimizer_step_on_cuda() -> None:
    for optimizer in OPTIMIZERS:
        after_a_step(optimizer, "cuda")


def test_training_goes_down_as_without_a_cache() -> None:
    x = 3 * SMALL.frames(8, 5) + 2
    losses: dict[bool, list[float]] = {True: [], False: []}
    for remember, found in losses.items():
        flow = SMALL.make()
        optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            y = flow.inv(x)
            if not remember:
                flow.clear_cache()
            loss = (y.square().sum() / 2 + flow.log_abs_det_jacobian(y, x).sum()) / 8
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    assert losses[True] == pytest.approx(losses[False], rel=1e-9)
    assert losses[True][-1] < losses[True][0]


class Odd(nn.Module):
    """A layer with what a user may give it."""

    def __init__(self) -> None:
        super().__init__()
        self.power = 1.0
        self.table = {"factor": 1.0}
        self.tensor = torch.ones((), dtype=torch.float64)
        self.register_buffer("buffer", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.sign() * (x.abs() * self.table["factor"]) ** self.power * self.tensor * self.buffer


def with_odd() -> Any:
    torch.manual_seed(1)
    transform = affine(mlp(1, residual=True)).double()
    transform.conditioner.body = nn.Sequential(Odd(), nn.Softplus())
    perturb(transform)
    return transform


@torch.no_grad()
def _in_place(transform: Any) -> None:
    transform.conditioner.heads.bias.add_(1.0)


@torch.inference_mode()
def _in_inference_mode(transform: Any) -> None:
    transform.conditioner.heads.bias.add_(1.0)


def _load(transform: Any, **options: Any) -> None:
    state = {k: v + 0.1 for k, v in transform.state_dict().items()}
    transform.load_state_dict(state, **options)


def _load_and_assign(transform: Any) -> None:
    _load(transform, assign=True)


def _round(transform: Any) -> None:
    transform.bfloat16().double()  # a freed address may come back


def _replace_parameter(transform: Any) -> None:
    transform.initial_shift = nn.Parameter(torch.randn(1, 2, dtype=torch.float64))


def _replace_layer(transform: Any) -> None:
    transform.conditioner.heads = nn.Linear(8, 4).double()


def _from_a_vector(transform: Any) -> None:
    vector = nn.utils.parameters_to_vector(transform.parameters()) + 0.1
    nn.utils.vector_to_parameters(vector, transform.parameters())


@torch.no_grad()
def _average(transform: Any) -> None:
    others = [p + 1.0 for p in transform.parameters()]
    torch._foreach_lerp_(list(transform.parameters()), others, 0.5)


def _buffer(transform: Any) -> None:
    transform.conditioner.body[0].buffer.mul_(1.5)


def _clamp(transform: Any) -> None:
    transform.max_log_scale = transform.max_log_scale / 2 - 2.0


def _residual(transform: Any) -> None:
    transform.conditioner.residual = not transform.conditioner.residual


def _attribute_of_a_layer(transform: Any) -> None:
    transform.conditioner.body[0].power *= 1.5


def _dictionary_of_a_layer(transform: Any) -> None:
    transform.conditioner.body[0].table["factor"] *= 1.5


def _attribute_of_a_layer_of_torch(transform: Any) -> None:
    transform.conditioner.body[1].beta += 1.0


def _tensor_in_place(transform: Any) -> None:
    transform.conditioner.body[0].tensor.mul_(1.5)


def _hook(transform: Any) -> None:
    transform.conditioner.heads.register_forward_hook(lambda _module, _inputs, out: 0.9 * out)


def _pre_hook(transform: Any) -> None:
    transform.conditioner.heads.register_forward_pre_hook(lambda _, inputs: (0.9 * inputs[0],))


CHANGES = [
    _in_place,
    _in_inference_mode,
    _load,
    _load_and_assign,
    _round,
    _replace_parameter,
    _replace_layer,
    _from_a_vector,
    _average,
    _buffer,
    _clamp,
    _residual,
    _attribute_of_a_layer,
    _dictionary_of_a_layer,
    _attribute_of_a_layer_of_torch,
    _tensor_in_place,
    _hook,
    _pre_hook,
]


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_the_transform(change: Callable[[Any], None]) -> None:
    transform, x = with_odd(), SMALL.frames(2, 4)
    for grad in (False, True, False, True):
        with torch.set_grad_enabled(grad):
            perturb(transform)
            before, _ = both(transform, x)
            change(transform)
            assert not torch.equal(both(transform, x)[0], before)
            check(transform, x)


def test_after_a_hook_is_removed() -> None:
    transform, x = with_odd(), SMALL.frames(2, 4)
    heads = transform.conditioner.heads
    before, _ = both(transform, x)
    handle = heads.register_forward_hook(lambda _module, _inputs, out: 0.9 * out)
    assert not torch.equal(both(transform, x)[0], before)
    handle.remove()
    assert torch.equal(both(transform, x)[0], before)


def test_after_a_change_of_a_compiled_layer() -> None:
    transform, x = with_odd(), SMALL.frames(2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against its own
        transform.conditioner.fuse = torch.jit.script(transform.conditioner.fuse)
    with torch.no_grad():
        before = transform.inv(x)
        assert transform.inv(x) is before
        next(transform.conditioner.fuse.parameters()).add_(1.0)
        after = transform.inv(x)
        transform.clear_cache()
        assert torch.equal(transform.inv(x), after)
    assert not torch.equal(after, before)


def test_after_freezing_and_thawing() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    for thawed in (True, False, True):
        transform.requires_grad_(thawed)
        assert both(transform, x)[0].requires_grad == thawed
        check(transform, x)


def test_after_a_change_of_precision() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
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
    for _ in range(2):
        both(transform, x)
        assert norm.num_batches_tracked == 1


# what is not seen, as is documented -----------------------------------------------------


def _parameter_by_data(transform: Any, x: Tensor) -> None:
    transform.conditioner.heads.bias.data.add_(1.0)


def _parameter_by_numpy(transform: Any, x: Tensor) -> None:
    transform.conditioner.heads.bias.detach().numpy()[:] = 7.0


def _input_by_data(transform: Any, x: Tensor) -> None:
    x.data.mul_(2.0)


def _input_by_numpy(transform: Any, x: Tensor) -> None:
    x.numpy()[0, 0] += 1.0


@pytest.mark.parametrize(
    "change", [_parameter_by_data, _parameter_by_numpy, _input_by_data, _input_by_numpy]
)
def test_what_torch_does_not_count_needs_a_cleared_cache(change: Any) -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    before, _ = both(transform, x)
    change(transform, x)
    assert torch.equal(both(transform, x)[0], before)
    transform.clear_cache()
    assert not torch.equal(both(transform, x)[0], before)
    check(transform, x)


def test_a_chain_forgets_with_its_parts() -> None:
    chain, x = TRANSFORMS["mlp-1+mlp-3"].make(), SMALL.frames(2, 4)
    for each_of in (chain, *chain.parts):
        both(each_of, x)
    with network_calls(chain) as count:
        chain.clear_cache()
        for n, each_of in enumerate((chain, *chain.parts), 2):
            both(each_of, x)
            assert count() == n


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
    _in_place(transform)
    if how == "compiled":
        assert torch.allclose(program(x), fresh(transform, x)[0], rtol=0, atol=1e-12)


# the cache itself -----------------------------------------------------------------------


def test_copies_remember_nothing() -> None:
    transform, x = SMALL.make(), SMALL.frames(2, 4)
    y = transform.inv(x)
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        with network_calls(twin) as count:
            assert torch.equal(twin.inv(x), y)
            assert count() == 1


def test_torch_cannot_put_a_cache_of_its_own_around_it() -> None:
    transform = SMALL.make()
    assert transform.with_cache(1) is transform
    conditioned = transform.condition()
    assert conditioned.with_cache(1) is conditioned


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
    kept = transform._cache._kept.inverse.noise
    assert transform.inv(x) is kept  # though torch has noted the inverse on the transform
