"""A param store that was loaded and does not fit: refused in one line, never ignored."""

import gc
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pyro_afslvm import FlowModel
from pyro_afslvm.models.param_store import register
from tests.support.guides import SIZE, flow
from tests.support.param_store import X, Z, make, run, same, saved, step, store, values


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


def test_a_model_in_a_circle_of_references_leaves_its_name() -> None:
    first = make(0)
    first.model.circle = [first.model]  # only the collector frees it
    first.guide.circle = [first.guide]
    run(first)
    names = {key.partition(".")[0] for key in store()}
    del first
    store().clear()
    again = make(0)
    run(again)
    assert {key.partition(".")[0] for key in store()} == names


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
