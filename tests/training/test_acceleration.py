"""What makes things faster or smaller changes nothing else."""

import copy
import platform
from typing import Any

import pytest
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine
from pyro_afslvm.networks.layers import (
    on_frames,
)
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.training.acceleration import (
    compile_networks,
    layer_sequences,
    recompute_activations,
)
from pyro_afslvm.training.run import watched
from tests.support.processes import run_python

RECIPES = (
    "models/af1.py",
    "models/af2.py",
    "models/slvm.py",
    "models/slvm_af1.py",
    "models/small/slvm_af1.py",
    "models/small/slvm_af1_iterative.py",
    "models/small/slvm_af1_smoothing.py",
)


def pair(recipe: str) -> Pair:
    torch.manual_seed(0)
    return build_pair(load_recipe(recipe), (1, 16, 16))


def after_a_step(bound: BoundLoss, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    torch.manual_seed(1)
    loss = bound(x)
    loss.backward()
    gradients = [p.grad for p in bound.parameters()]
    return loss, gradients, [*bound.buffers()]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recomputed_activations_give_the_same_gradients_and_statistics(recipe: str) -> None:
    bound, x = BoundLoss(pair(recipe)), torch.rand(2, 9, 1, 16, 16)
    other = copy.deepcopy(bound)
    recompute_activations(other)
    plain, recomputed = after_a_step(bound, x), after_a_step(other, x)
    assert torch.equal(plain[0], recomputed[0])
    for expected, found in zip(plain[1:], recomputed[1:], strict=True):
        assert len(expected) == len(found)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("norm", ["batch", "group", None])
def test_recomputed_conditioner_with_any_norm(norm: Any) -> None:
    flow = TemporalAffine(ConvConditioner(1, hidden=8, norm=norm))
    bound = BoundLoss(Pair(FlowModel(flow, (1, 8, 8)), None))
    x = torch.rand(2, 6, 1, 8, 8)
    other = copy.deepcopy(bound)
    recompute_activations(other)
    plain, recomputed = after_a_step(bound, x), after_a_step(other, x)
    assert all(torch.equal(a, b) for a, b in zip(plain[1], recomputed[1], strict=True))


def test_recomputing_runs_the_networks_twice_and_keeps_less() -> None:
    found = {}
    for recomputed in (False, True):
        bound, x = BoundLoss(pair("models/af1.py")), torch.rand(2, 9, 1, 16, 16)
        if recomputed:
            recompute_activations(bound)
        found[recomputed] = kept_and_run(bound, x)
    assert found[False][1] == 1
    assert found[True][1] == 2
    assert found[True][0] < 0.4 * found[False][0]


def kept_and_run(bound: BoundLoss, x: Tensor) -> tuple[int, int]:
    """Numbers kept for the gradient, and runs of the flow's encoder."""
    kept, runs = [], []
    bound.model.flow.conditioner.encoder[0].register_forward_hook(lambda *_: runs.append(1))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = bound(x)
    loss.backward()
    return sum(t.numel() for t in kept), len(runs)


def test_nothing_is_recomputed_without_gradients() -> None:
    bound, runs = BoundLoss(pair("models/af1.py")), []
    recompute_activations(bound)
    bound.model.flow.conditioner.encoder[0].register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        bound(torch.rand(2, 9, 1, 16, 16))
    assert len(runs) == 1


def test_sequences_of_layers_are_whole_and_each_is_there_once() -> None:
    bound = BoundLoss(pair("models/slvm_af1.py"))
    networks = [*layer_sequences(bound)]
    names = {name for name, module in bound.named_modules() if module in networks}
    assert names == {
        "model.flow.conditioner.encoder",
        "model.flow.conditioner.body",
        "model.prior.conditioner.pre_network",
        "model.decoder.network",
        "guide.encoder.network",
    }
    assert len(networks) == len(names)


RESIDENT = """
import torch
from pyro_afslvm.training.acceleration import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

{call}
before = resident()
x = torch.ones(50_000_000)
del x
print(resident() - before > 100e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("call", "kept"), [("", "False"), ("assert keep_freed_memory()", "True")])
def test_freed_memory_is_kept(call: str, kept: str) -> None:
    code = RESIDENT.format(call=call)
    assert run_python("-c", code).stdout.split() == [kept]


def test_recomputed_dropout_drops_the_same() -> None:
    network = nn.Sequential(nn.Linear(50, 50), nn.Dropout(0.5), nn.ReLU(), nn.Linear(50, 1))
    x, gradients = torch.randn(8, 50), []
    for recomputed in (False, True):
        network.recompute = recomputed
        torch.manual_seed(3)
        on_frames(network, x, 1).sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
        network.zero_grad()
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # inside torch.compile
def test_compiled_networks_give_the_same_gradients() -> None:
    bound, x = BoundLoss(pair("models/small/slvm_af1.py")), torch.rand(2, 9, 1, 16, 16)
    other = copy.deepcopy(bound)
    compile_networks(other, backend="aot_eager")
    assert all(network._compiled_call_impl is not None for network in layer_sequences(other))
    plain, compiled = after_a_step(bound, x), after_a_step(other, x)
    torch.testing.assert_close(plain[0], compiled[0])
    for a, b in zip(plain[1], compiled[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_pyro_watches_on_the_cpu_alone() -> None:
    with watched(torch.device("cpu")):
        assert is_validation_enabled()
    with watched(torch.device("cuda")):
        assert not is_validation_enabled()
    assert is_validation_enabled()
