"""What makes training fast, as facts that no clock is needed for.

On torch's meta device nothing is computed and nothing can be read: the paper's recipes cost no
time there, and what would wait for an accelerator fails.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.bare import networks_of
from benchmarks.graphs import Precision, TrainingStep
from benchmarks.timing import fit_line
from pyro_afslvm import MLPConditioner, Pair, TemporalAffine
from pyro_afslvm.data import GaussianDequantization
from pyro_afslvm.objectives import FreeBitsELBO, UnwatchedELBO
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.training.averaging import running_average
from pyro_afslvm.training.loop import descend
from pyro_afslvm.transforms.cache import parameters_changed
from pyro_afslvm.utils.seeding import seed_step
from tests.support.registry import calls

BATCH, SIDE = 2, 16
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero")
each = pytest.mark.parametrize("name", ["af1", "af2", "slvm", "slvm_af1", "slvm_af2"])


class Watch(TorchDispatchMode):
    """Operations by name, the bytes they allocate, and tensors moved between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.bytes = self.moved = 0

    def __torch_dispatch__(
        self, operation: Any, _: Any, given: Any = (), options: Any = None
    ) -> Any:
        result = operation(*given, **(options or {}))
        self.operations[operation.overloadpacket.__name__] += 1
        made = tensors(result)
        if not (operation.is_view or operation._schema.is_mutable):
            self.bytes += sum(a.numel() * a.element_size() for a in made)
        devices = {a.device.type for a in (*tensors((given, options)), *made) if a.ndim}
        self.moved += len(devices) > 1
        return result


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.fixture(autouse=True)
def unvalidated() -> None:
    """Pyro's checks look at values; ``clean_state`` turns them on again."""
    pyro.enable_validation(False)


def build(name: str, device: str = "cpu") -> Pair:
    with torch.device(device):
        pair: Pair = build_pair(load_recipe(f"models/{name}.py"), (1, SIDE, SIDE))
    return pair


def frames(pair: Pair, scored: int) -> Tensor:
    device = next(pair.model.parameters()).device
    length = int(pair.model.context_length) + scored
    return torch.rand(BATCH, length, 1, SIDE, SIDE, device=device)


def backward(pair: Pair, x: Tensor, elbo: ELBO | None = None) -> Watch:
    """Loss, gradients and their clipping, watched."""
    bound = BoundLoss(pair, elbo)
    with Watch() as watch:
        bound(x).backward()
        nn.utils.clip_grad_norm_(bound.parameters(), 1.0)
    return watch


# each network runs once -------------------------------------------------------------------


@each
def test_every_network_runs_once_over_all_frames(name: str) -> None:
    pair, scored = build(name), 4
    networks, x = networks_of(pair), frames(pair, scored)
    expected: dict[nn.Module, int] = {}
    length = x.shape[1]
    for flow in networks.flows:  # from the frames down to the noise
        expected |= {flow.encoder: length - 1, flow.body: length - flow.window}
        length -= flow.window
    for network in (networks.encoder, networks.decoder):
        if network is not None:
            expected[network.network] = scored
    with ExitStack() as stack:
        seen = {network: stack.enter_context(calls(network)) for network in expected}
        lstm = None if networks.prior is None else stack.enter_context(calls(networks.prior.lstm))
        backward(pair, x)
    for network, count in expected.items():
        assert (seen[network].count, seen[network].frames) == (1, BATCH * count)
    assert lstm is None or lstm.count == 1


# nothing waits ----------------------------------------------------------------------------


@each
def test_a_step_does_not_wait_for_an_accelerator(name: str) -> None:
    pair = build(name, "meta")
    watch = backward(pair, frames(pair, 2))
    assert watch.moved == 0
    assert all(p.grad is not None for part in pair.parts for p in part.parameters())


@each
def test_training_does_not_wait_for_an_accelerator(name: str) -> None:
    """From the batch to the running average."""
    pair = build(name, "meta")
    loss = BoundLoss(pair, None if pair.guide is None else FreeBitsELBO(0.5))
    average = running_average(loss, 0.9)
    optimizer = torch.optim.SGD(loss.parameters(), 0.1)
    pixels = frames(pair, 2).to(torch.uint8)

    def batches() -> Iterator[Tensor]:
        for step in range(2):
            seed_step(0, step, 0)
            yield GaussianDequantization()(pixels)

    with Watch() as watch:
        for _ in descend(loss, optimizer, batches(), clip_norm=1.0, kl_warmup=3, check=False):
            average.update_parameters(loss)
    assert watch.moved == 0
    assert watch.operations.total() > 100


@each
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_reads_no_value(name: str, precision: Precision) -> None:
    """Nor does the cache of a transform, which asks for identities and versions."""
    pair = build(name)
    bound, x = BoundLoss(pair), frames(pair, 2)
    step = TrainingStep(bound, lambda: bound(x), precision)
    step()  # with it the optimizer's state is made
    with Watch() as watch:
        step()
    assert watch.operations["_fused_adam_"] == 1
    assert {name: watch.operations[name] for name in WAITS} == dict.fromkeys(WAITS, 0)


def test_an_objective_that_waits_is_found() -> None:
    pair = build("af1", "meta")
    with pytest.raises(RuntimeError, match="meta tensors"):
        backward(pair, frames(pair, 2), Trace_ELBO())
    pair = build("af1")
    assert backward(pair, frames(pair, 2), Trace_ELBO()).operations["_local_scalar_dense"]


# no loop over time ------------------------------------------------------------------------


@each
def test_scoring_frames_has_no_loop_over_time(name: str) -> None:
    pair = build(name, "meta")

    def operations(scored: int) -> Counter[str]:
        x = frames(pair, scored)
        latents = [] if pair.guide is None else [x.new_empty(BATCH, scored, pair.model.latent_size)]
        pair.model.zero_grad()
        with Watch() as watch:
            pair.model.log_prob(x, *latents).sum().backward()
        return watch.operations

    few = operations(8)
    assert few.total() > 50
    assert operations(16) == few


@each
def test_allocations_are_linear_in_time(name: str) -> None:
    pair, lengths = build(name, "meta"), [3, 8, 18]
    sizes = [backward(pair, frames(pair, length)).bytes for length in lengths]
    line = fit_line(lengths, sizes)
    assert line.error < 0.01
    assert line.slope > 1e6


# the objective that reads nothing ---------------------------------------------------------


def bernoulli(p: Tensor) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
    """A model and a guide whose sample has no gradient."""

    def model(x: Tensor) -> None:
        with pyro.plate("sequence", len(x)):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("sequence", len(x)):
            pyro.sample("k", dist.Bernoulli(p.expand(len(x))))

    return model, guide


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", ["vector_slvm_af1", "bernoulli"])
def test_the_objective_is_that_of_pyro(name: str, particles: int, float64: None) -> None:
    x = torch.randn(BATCH, 5, 4)
    if name == "bernoulli":
        parameters = [torch.tensor(0.3, requires_grad=True)]
        programs: Any = bernoulli(parameters[0])
        x = x[:, 0, 0]
    else:
        programs = build_pair(load_recipe(f"models/small/{name}.py"), (4,))
        parameters = list(BoundLoss(programs).parameters())
    results = []
    for kind in (Trace_ELBO, UnwatchedELBO):
        pyro.set_rng_seed(1)
        loss = kind(num_particles=particles).differentiable_loss(*programs, x)
        results.append((loss, *torch.autograd.grad(loss, parameters)))
    torch.testing.assert_close(*results)


def test_results_are_forgotten_when_parameters_change_unseen() -> None:
    flow, x = TemporalAffine(MLPConditioner(2, window=1), initial="learned"), torch.randn(2, 4, 2)
    with calls(flow.conditioner) as seen:
        flow.inv(x)
        flow.inv(x)
        assert seen.count == 1
        parameters_changed()
        flow.inv(x)
        assert seen.count == 2
