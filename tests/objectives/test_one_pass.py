"""One pass of the flow per evaluation of the bound, and never a stale one."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import Pair
from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.objectives import bound_terms
from tests.support.bounds import BATCH, DEEPEST, WITH_FLOW, build, frames, gradients, levels, loss


def count(pair: Pair) -> dict[str, int]:
    """Calls of each part of the flow's networks, counted from now on."""
    calls: dict[str, int] = {}
    for level, flow in enumerate(levels(pair.model)):
        for part in ("encoder", "body"):
            name = f"{part} {level}"
            calls[name] = 0

            def hook(*_: Any, name: str = name) -> None:
                calls[name] += 1

            getattr(flow.conditioner, part).register_forward_hook(hook)
    return calls


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("case", WITH_FLOW)
def test_the_flow_runs_once_per_evaluation(case: str, particles: int) -> None:
    pair = build(case)
    x, calls = frames(pair.model), count(pair)
    assert calls
    elbo = Trace_ELBO(
        num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1
    )
    for evaluation in range(1, 4):
        elbo.loss_and_grads(pair.model, pair.guide or no_guide, x)
        assert set(calls.values()) == {evaluation}


@pytest.mark.parametrize("case", DEEPEST)
def test_the_flow_runs_once_with_padding_and_without_gradients(case: str) -> None:
    pair = build(case)
    x, calls = frames(pair.model), count(pair)
    lengths = torch.full((BATCH,), x.shape[1])
    lengths[0] -= 1
    loss(pair, x, lengths=lengths).backward()
    assert set(calls.values()) == {1}
    with torch.no_grad():
        bound_terms(pair.model, pair.guide, x, num_particles=5)
    assert set(calls.values()) == {2}


def take_a_step(pair: Pair, x: Tensor, optimizer: type, **options: Any) -> None:
    parameters = list(pair.model.parameters())
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer(parameters, lr=1e-2, **options).step()


CHANGES: dict[str, Callable[[Pair, Tensor], Any]] = {
    "SGD": lambda pair, x: take_a_step(pair, x, torch.optim.SGD, foreach=False),
    "Adam, foreach": lambda pair, x: take_a_step(pair, x, torch.optim.Adam, foreach=True),
    "Adam, fused": lambda pair, x: take_a_step(pair, x, torch.optim.Adam, fused=True),
    "eval": lambda pair, x: pair.model.eval(),
    "eval of the flow": lambda pair, x: pair.model.flow.eval(),
    "load_state_dict": lambda pair, x: pair.model.load_state_dict(
        {k: v * 1.1 if v.is_floating_point() else v for k, v in pair.model.state_dict().items()}
    ),
    "parameter data": lambda pair, x: [
        setattr(p, "data", p.data * 1.1) for p in pair.model.flow.parameters()
    ],
    "statistics of a frozen norm": lambda pair, x: pair.model.flow.get_buffer(
        next(name for name, _ in pair.model.flow.named_buffers() if "mean" in name)
    ).add_(0.5),
    "new parameter": lambda pair, x: setattr(
        levels(pair.model)[0].conditioner.heads, "bias", nn.Parameter(torch.ones(2))
    ),
    "x in place": lambda pair, x: x.mul_(0.5),
    "context in place": lambda pair, x: x[:, 0].mul_(0.5),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_no_value_outlives_what_it_was_made_from(change: str, grad: bool) -> None:
    pair = build("SLVM w/ 2-AF", norm="batch")
    x = frames(pair.model)
    if change.endswith("norm"):
        for module in pair.model.modules():
            module.train(not isinstance(module, nn.BatchNorm2d))
    with torch.set_grad_enabled(grad):
        before = loss(pair, x).item()
        CHANGES[change](pair, x)
        fresh = copy.deepcopy(pair)  # remembers nothing
        after = loss(pair, x).item()
        assert after == loss(fresh, x).item()
    assert after != before


def test_arrays_that_share_memory_are_told_apart() -> None:
    model = build("1-AF").model
    array = frames(model).numpy()
    with torch.no_grad():
        first = model.log_prob(torch.from_numpy(array))
        array *= 0.5
        second = model.log_prob(torch.from_numpy(array))
    assert not torch.equal(first, second)
    assert torch.equal(second, copy.deepcopy(model).log_prob(torch.from_numpy(array)))


def test_a_buffer_that_is_read_in_training_counts(float64: None) -> None:
    pair = build("vectors w/ 2-AF")
    flow = levels(pair.model)[0]
    flow.conditioner.body = nn.Sequential(flow.conditioner.body, Scaled())
    x = frames(pair.model)
    before = loss(pair, x).item()
    flow.conditioner.body[1].factor.fill_(2.0)
    after = loss(pair, x).item()
    assert after == loss(copy.deepcopy(pair), x).item()
    assert after != before


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize("case", DEEPEST)
def test_no_value_without_gradient_is_trained_on(case: str) -> None:
    pair = build(case)
    x, fresh = frames(pair.model), build(case)
    with torch.no_grad():
        loss(pair, x)
    for each in (pair, fresh):
        loss(each, x).backward()
    for name, gradient in gradients(fresh).items():
        assert torch.equal(gradients(pair)[name], gradient), name
    flow = [p for p in pair.model.flow.parameters() if p.grad is not None]
    assert len(flow) == len(list(pair.model.flow.parameters()))
    with torch.no_grad():
        assert not loss(pair, x).requires_grad


@pytest.mark.parametrize("case", DEEPEST)
def test_the_gradient_is_that_of_finite_differences(case: str, float64: None) -> None:
    pair = build(case)
    x, step = frames(pair.model), 1e-6
    loss(pair, x).backward()
    flow = levels(pair.model)[0].conditioner.heads
    bias = flow.bias.grad[0].item()
    both = []
    for sign in (1, -1):
        with torch.no_grad():
            flow.bias[0] += sign * step if sign > 0 else -2 * step
            both.append(loss(pair, x).item())
    assert (both[0] - both[1]) / (2 * step) == pytest.approx(bias, rel=1e-5)
