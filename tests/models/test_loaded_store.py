"""A param store that was loaded: it is taken over or refused, and never ignored."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.optim
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import SLVM, Pair, ResNetVAE, ResNetVAEGuide, StreamingFilter, rollout
from pyro_afslvm.objectives import bound_terms, iwae, smc
from tests.support.param_store import (
    X,
    Z,
    all_moved,
    make,
    parameters,
    run,
    same,
    saved,
    step,
    store,
    values,
)
from tests.support.processes import run_python


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
