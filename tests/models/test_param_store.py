"""Registration in Pyro's param store: every parameter of every module trains."""

import copy
import gc
import weakref

import pyro
import pyro.optim
import pyro.poutine as poutine
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_afslvm import Pair, ResNetVAE, ResNetVAEGuide
from pyro_afslvm.models.param_store import register
from tests.support.param_store import all_moved, make, parameters, run, same, step, store, values


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
