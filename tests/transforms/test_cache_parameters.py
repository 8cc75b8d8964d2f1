"""No inverse is handed out after a change of the parameters or parts of its transform."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn

from tests.support.cached import SMALL, both, check, network_calls
from tests.support.registry import TRANSFORMS, affine, conv, mlp, perturb

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
