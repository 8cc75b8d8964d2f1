"""Parameters in Pyro's param store: what is trained, and what is loaded is never ignored."""

import copy
import gc
import pickle
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.optim
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import (
    SLVM,
    FlowModel,
    Pair,
    ResNetVAE,
    ResNetVAEGuide,
    StreamingFilter,
    rollout,
)
from pyro_afslvm.models.param_store import register
from pyro_afslvm.objectives import bound_terms, iwae, smc
from tests.support.guides import SIZE, flow, sequences, system
from tests.support.processes import run_python

X = sequences()


def make(seed: int = 0, guide: str = "filtering", model: str = "plain") -> Pair:
    return Pair(*system(model, guide, seed=seed))


def store() -> Any:
    return pyro.get_param_store()


def step(pair: Pair, optimizer: Any = None) -> float:
    adam = optimizer or pyro.optim.Adam({"lr": 1e-2})
    pyro.set_rng_seed(5)
    return SVI(*pair, adam, Trace_ELBO()).step(X)


def parameters(pair: Pair) -> list[nn.Parameter]:
    return [p for part in pair for p in part.parameters()]


def values(pair: Pair) -> list[Tensor]:
    return [p.detach().clone() for p in parameters(pair)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def all_moved(pair: Pair, before: list[Tensor]) -> bool:
    return not any(torch.equal(a, b) for a, b in zip(values(pair), before, strict=True))


def saved() -> Any:
    """The store as if from a file."""
    return pickle.loads(pickle.dumps(store().get_state()))


def run(pair: Pair) -> None:
    pair.guide(X)
    pair.model(X)


# what Pyro's param store would leave untrained, without a word ---------------------------------


def test_a_second_model_of_the_same_class_trains() -> None:
    first, second = make(0), make(1)
    step(first)
    of_first, of_second = values(first), values(second)
    step(second)
    assert all_moved(second, of_second)
    assert same(values(first), of_first)


def test_two_models_of_the_same_class_in_one_program_are_both_seen() -> None:
    pairs = [make(0), make(1)]
    with poutine.trace(param_only=True) as captured:
        for pair in pairs:
            run(pair)
    seen = {id(site["value"].unconstrained()) for site in captured.trace.nodes.values()}
    assert seen == {id(p) for pair in pairs for p in parameters(pair)}


def test_a_copy_of_a_trained_pair_trains_on_its_own() -> None:
    pair = make()
    step(pair)
    twin = copy.deepcopy(pair)
    assert twin.guide.model is twin.model
    assert twin.model is not pair.model
    original, copied = values(pair), values(twin)
    step(twin)
    assert all_moved(twin, copied)
    assert same(values(pair), original)
    step(pair)
    assert all_moved(pair, original)


def test_a_model_trains_after_the_param_store_was_cleared() -> None:
    pair = make()
    step(pair)
    store().clear()
    before = values(pair)
    step(pair)
    assert all_moved(pair, before)


def test_a_replaced_parameter_trains() -> None:
    pair = make()
    step(pair)
    head = pair.model.flow.conditioner.heads
    head.weight = nn.Parameter(2 * head.weight.detach())
    pair.model.load_state_dict(copy.deepcopy(pair.model.state_dict()), assign=True)
    before = values(pair)
    step(pair)
    assert all_moved(pair, before)
    assert len(store()) == len(parameters(pair))


def test_a_frozen_flow_stays_and_trains_once_it_is_thawed() -> None:
    pair = make()
    front = list(pair.model.flow.parameters())
    pair.model.flow.requires_grad_(False)
    before, fixed = values(pair), [p.clone() for p in front]
    step(pair)
    assert same(front, fixed)
    assert not same(values(pair), before)
    pair.model.flow.requires_grad_(True)
    before = values(pair)
    step(pair)
    assert all_moved(pair, before)


def test_a_model_with_weights_of_another_memory_format_trains() -> None:
    torch.manual_seed(0)
    model = ResNetVAE((1, 8, 8), layers=(1,), channels=2, width=4)
    pair = Pair(model, ResNetVAEGuide(model, iaf_hidden=(4,), context_channels=3))
    for part in pair:
        part.to(memory_format=torch.channels_last)
    before = values(pair)
    adam = pyro.optim.Adam({"lr": 1e-2})
    SVI(*pair, adam, Trace_ELBO()).step(torch.rand(4, 1, 1, 8, 8).round())
    assert all_moved(pair, before)


def test_the_store_lets_go_of_a_module_that_is_gone() -> None:
    shared = nn.Linear(2, 2)
    one, two = nn.Sequential(shared, nn.Linear(2, 3)), nn.Sequential(shared)
    for module in (one, two):
        register(module)
    held = {id(p) for p in store()._params.values()}
    assert held == {id(p) for p in one.parameters()}
    weights = weakref.ref(one[1].weight)
    del one, module
    gc.collect()
    assert weights() is None
    assert {id(p) for p in store()._params.values()} == {id(p) for p in two.parameters()}
    assert all(store().param_name(p) in store() for p in two.parameters())
    del two
    gc.collect()
    assert not list(store().keys())


# a store that was loaded ------------------------------------------------------------------------


@pytest.mark.parametrize("guide", ["filtering", "iterative"])
def test_what_was_loaded_is_taken_over_in_place_and_once(guide: str) -> None:
    pair = make(0, guide)
    step(pair)
    expected, state = values(pair), saved()
    del pair
    store().clear()
    store().set_state(state)
    again = make(1, guide)
    before, held = values(again), parameters(again)
    assert not same(before, expected)
    run(again)
    assert same(values(again), expected)
    assert all(a is b for a, b in zip(parameters(again), held, strict=True))
    assert {id(p) for p in store()._params.values()} == {id(p) for p in held}
    step(again)
    assert all_moved(again, expected)  # and the store does not bring the old ones back
    trained = values(again)
    run(again)
    assert same(values(again), trained)


def test_the_gradient_is_that_of_the_loaded_parameters() -> None:
    """The guide runs first, and uses the model's flow."""
    pair = make(0)
    step(pair)
    state, expected = saved(), copy.deepcopy(pair)
    del pair
    store().clear()
    store().set_state(state)
    again, found = make(1), []
    for each in (again, expected):
        pyro.set_rng_seed(2)
        if each is expected:
            store().clear()
        loss = Trace_ELBO().differentiable_loss(*each, X)
        found.append((loss, *torch.autograd.grad(loss, parameters(each))))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def stepped(model: SLVM) -> Tensor:
    state = model.initial_state(torch.Size([3]), given=model.given(X))
    return model.step(torch.ones(3, model.eps_size, dtype=X.dtype), state)[0].x


UNRUN: dict[str, Callable[[Pair], Any]] = {
    "log_prob": lambda pair: pair.model.log_prob(X, Z),
    "predictive_mean": lambda pair: pair.model.predictive_mean(X, Z),
    "posterior": lambda pair: pair.guide.distribution(pair.model.batch(X)).log_prob(Z),
    "steps": lambda pair: stepped(pair.model),
    "bound_terms": lambda pair: bound_terms(*pair, X).bound,
    "iwae": lambda pair: iwae(*pair, X, num_particles=2).log_evidence,
    "smc": lambda pair: smc(*pair, X, num_particles=2).log_evidence,
    "rollout": lambda pair: torch.from_numpy(
        rollout(*pair, X, horizon=2, num_samples=2).x_future.values
    ),
    "stream": lambda pair: [
        u.log_likelihood for u in map(StreamingFilter(*pair, num_particles=2).update, X.unbind(1))
    ][-1],
}
Z = torch.randn(3, 6, 4, dtype=torch.float64)


@pytest.mark.parametrize("use", UNRUN)
def test_whatever_is_asked_first_knows_what_was_loaded(use: str) -> None:
    pair = make(0)
    run(pair)
    state = saved()
    pyro.set_rng_seed(1)
    expected = UNRUN[use](pair)
    del pair
    store().clear()
    store().set_state(state)
    again = make(1)
    pyro.set_rng_seed(1)
    found = UNRUN[use](again)
    assert torch.equal(found, expected)


def test_autoencoders_take_over_what_was_loaded() -> None:
    def images(seed: int) -> Pair:
        torch.manual_seed(seed)
        model = ResNetVAE((1, 8, 8), layers=(1,), channels=2, width=4)
        return Pair(model, ResNetVAEGuide(model, iaf_hidden=(4,), context_channels=3))

    x, pair = torch.rand(4, 1, 1, 8, 8).round(), images(0)
    Trace_ELBO().loss(*pair, x)
    expected, state = values(pair), saved()
    pyro.set_rng_seed(1)
    mean = pair.model.sample_mean(2)
    del pair
    store().clear()
    store().set_state(state)
    again = images(1)
    pyro.set_rng_seed(1)
    assert torch.equal(again.model.sample_mean(2), mean)
    Trace_ELBO().differentiable_loss(*again, x).backward()
    assert same(values(again), expected)


def test_a_frozen_part_takes_over_what_was_loaded() -> None:
    pair = make(0)
    run(pair)
    expected, state = values(pair), saved()
    del pair
    store().clear()
    store().set_state(state)
    again = make(1)
    again.model.flow.requires_grad_(False)
    run(again)
    assert same(values(again), expected)


def test_loading_goes_on_after_clearing_and_into_a_model_that_has_run() -> None:
    pair = make(0)
    run(pair)
    expected, state = values(pair), saved()
    step(pair)
    assert not same(values(pair), expected)
    store().set_state(state)  # on top of what is there
    run(pair)
    assert same(values(pair), expected)
    step(pair)
    store().clear()
    store().set_state(saved_again := pickle.loads(pickle.dumps(state)))
    assert saved_again["params"]
    run(pair)
    assert same(values(pair), expected)


def test_a_value_that_is_set_in_the_store_is_taken_over() -> None:
    pair = make(0)
    run(pair)
    name = store().param_name(pair.model.flow.conditioner.heads.bias)
    store()[name] = torch.full_like(store()[name], 0.25)
    run(pair)
    assert (pair.model.flow.conditioner.heads.bias == 0.25).all()


def test_parameters_that_were_replaced_since_keep_their_new_values() -> None:
    pair = make(0)
    run(pair)
    new = nn.Parameter(torch.ones_like(pair.model.flow.conditioner.heads.bias))
    pair.model.flow.conditioner.heads.bias = new
    run(pair)
    assert (new == 1).all()
    assert any(p is new for p in store()._params.values())


def test_each_of_two_living_twins_gets_its_own() -> None:
    pairs = [make(0), make(1)]
    twin = copy.deepcopy(pairs[0])
    for pair in (*pairs, twin):
        run(pair)
    expected, state = [values(pair) for pair in (*pairs, twin)], saved()
    for pair in (*pairs, twin):
        step(pair)
    store().set_state(state)
    for pair, its_own in zip((*pairs, twin), expected, strict=True):
        run(pair)
        assert same(values(pair), its_own)


def test_a_copy_is_not_what_was_loaded() -> None:
    pair = make(0)
    run(pair)
    expected, state = values(pair), saved()
    step(pair)
    twin = copy.deepcopy(pair)
    run(twin)
    own = values(twin)
    store().set_state(state)
    run(twin)
    run(pair)
    assert same(values(twin), own)
    assert same(values(pair), expected)


# what is loaded and does not fit ------------------------------------------------------------------


def refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_store_of_two_twins_is_refused_where_they_are_not_known() -> None:
    pairs = [make(0), make(1)]
    for pair in pairs:
        run(pair)
    state = saved()
    del pair, pairs
    store().clear()
    store().set_state(state)
    again = make(2)
    before = values(again)
    refused(lambda: run(again), "and which of them is which model cannot be told")
    refused(lambda: again.model.log_prob(X, Z), "and which of them is which model cannot be told")
    assert same(values(again), before)
    store().clear()
    run(again)


def test_a_store_of_two_twins_is_refused_by_others_that_have_run() -> None:
    pairs = [make(0), make(1)]
    for pair in pairs:
        run(pair)
    state = saved()
    del pair, pairs
    others = [make(2), make(3)]
    for pair in others[::-1]:
        run(pair)
    store().set_state(state)
    for pair in others:
        refused(lambda pair=pair: run(pair), "and which of them is which model cannot be told")


def test_the_store_of_a_twin_that_survived_is_for_whoever_is_alone() -> None:
    first, second = make(0), make(1)
    run(first)
    run(second)
    del first
    gc.collect()
    expected, state = values(second), saved()
    del second
    store().clear()
    store().set_state(state)
    again = make(2)
    run(again)
    assert same(values(again), expected)


def test_what_was_loaded_for_a_living_model_is_not_for_another() -> None:
    trained = make(0)
    run(trained)
    expected, state = values(trained), saved()
    step(trained)
    store().clear()
    store().set_state(state)
    new = make(1)
    before = values(new)
    refused(lambda: run(new), "another module that is alive and has to run first")
    run(trained)
    assert same(values(trained), expected)
    run(new)
    assert same(values(new), before)


def test_what_was_loaded_outlives_the_model_it_came_from() -> None:
    pair = make(0)
    run(pair)
    expected, state = values(pair), saved()
    step(pair)
    store().set_state(state)
    pair = make(1)  # the one before is gone
    gc.collect()
    run(pair)
    assert same(values(pair), expected)


def test_a_store_of_other_sizes_is_refused() -> None:
    wide = FlowModel(flow().double(), (SIZE,))
    wide(X)
    state = saved()
    del wide
    store().clear()
    store().set_state(state)
    front = flow().double()
    front.conditioner.heads = nn.Linear(8, 2 * SIZE, bias=False).double()
    narrow = FlowModel(front, (SIZE,))
    refused(lambda: narrow(X), r"loaded with FlowModel_\w+, which is not this FlowModel_\w+ but")


def test_a_store_of_an_older_version_is_refused() -> None:
    pair = make(0)
    run(pair)
    state = saved()
    for part in ("params", "constraints"):
        state[part] = {re.sub(r"_[0-9a-f]{8}\.", "_0.", k): v for k, v in state[part].items()}
    del pair
    store().clear()
    store().set_state(state)
    again = make(1)
    refused(lambda: run(again), r"loaded with FilteringGuide_0, which is not this")
    refused(lambda: again.model(X), r"loaded with SLVM_0, which is not this SLVM_\w+ but")


def test_a_model_that_has_run_warns_of_what_is_not_for_it() -> None:
    pair, state = make(0), saved()
    run(pair)
    state["params"]["SLVM_7.decoder.weight"] = torch.zeros(3)
    state["constraints"]["SLVM_7.decoder.weight"] = torch.distributions.constraints.real
    store().set_state(state)
    with pytest.warns(UserWarning, match=r"loaded with SLVM_7, which is not SLVM_\w+$"):
        pair.model(X)
    pair.model(X)  # said once


def test_another_shape_under_the_same_name_is_refused() -> None:
    model = FlowModel(flow().double(), (SIZE,))
    model(X)
    state = saved()
    head = model.flow.conditioner.heads
    head.bias = nn.Parameter(torch.zeros(1).double())
    store().set_state(state)
    refused(lambda: register(model), r"heads.bias of shape \(1,\) in the param store .* got \(6,\)")


# another process --------------------------------------------------------------------------------

PROGRAM = """
import sys, pyro, torch
from pyro.infer import SVI, Trace_ELBO
from pyro_afslvm import FlowModel
from tests.support.guides import SIZE, flow, plain, sequences, system
folder, order, task = sys.argv[1:]
torch.manual_seed(0)
x = sequences()
made = {}
for name in order.split(","):
    seed = 7 if task == "load" else 1
    if name == "slvm":
        made["slvm"] = system("plain", "filtering", seed=seed)
    elif name == "flow":
        made["flow"] = FlowModel(flow().double(), (SIZE,))
    else:
        other = system("no-flow", "smoothing", seed=seed)
        other.guide(x), other.model(x)
pair, model = made["slvm"], made["flow"]
adam = pyro.optim.Adam({"lr": 1e-2})
def step(seed):
    pyro.set_rng_seed(seed)
    loss = SVI(*pair, adam, Trace_ELBO()).step(x)
    return loss + SVI(model, lambda *_, **__: None, adam, Trace_ELBO()).step(x)
if task == "save":
    for seed in range(3):
        step(seed)
    pyro.get_param_store().save(f"{folder}/store")
    adam.save(f"{folder}/optimizer")
else:
    pyro.get_param_store().load(f"{folder}/store")
    adam.load(f"{folder}/optimizer")
step(3)
print(step(4))
"""


def test_store_and_optimizer_go_on_in_another_process_in_another_order(tmp_path: Path) -> None:
    """The second step after loading, which knows the first one's moments, is the same."""

    def go(order: str, task: str) -> float:
        return float(run_python("-c", PROGRAM, str(tmp_path), order, task).stdout.split()[-1])

    expected = go("slvm,flow", "save")
    assert go("other,flow,slvm", "load") == expected
