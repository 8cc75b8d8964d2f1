"""The conditioner with the whole past: its start, its context, its network before."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from pyro_afslvm.transforms import LSTMConditioner
from tests.support.conditioners import draw
from tests.support.registry import CONDITIONERS, calls


@pytest.mark.parametrize("name", ["lstm-context", "lstm-2-context-pre"])
def test_context_is_seen_up_to_the_present(name: str) -> None:
    case = CONDITIONERS[name]
    conditioner = case.make()
    values, given = draw(case, conditioner)
    blocks = jacobian(
        lambda context: conditioner(values, context=context)[..., 0], given["context"]
    )
    for t in range(5):
        assert (blocks[t, :, t + 1 :] == 0).all()
        assert all((blocks[t, :, s] != 0).any() for s in range(t + 1))


def test_the_learned_state_is_where_an_lstm_starts() -> None:
    conditioner = CONDITIONERS["lstm-2"].make()
    state = conditioner.initial_state(torch.Size([3]))
    assert state.hidden.shape == state.cell.shape == (3, 2, 4)
    assert torch.equal(state.hidden, conditioner.initial_hidden.expand(3, 2, 4))
    assert torch.equal(state.cell, conditioner.initial_cell.expand(3, 2, 4))
    value = torch.zeros(1, 2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(conditioner(value)[..., 0].sum(), conditioner.initial_cell)
    assert (gradient != 0).all()


def test_a_pre_network_runs_before_the_lstm() -> None:
    network = nn.Sequential(nn.Linear(2, 7), nn.Tanh())
    conditioner = LSTMConditioner(2, hidden=4, context_features=3, pre_network=network)
    assert conditioner.lstm.input_size == 7 + 3
    with calls(network) as seen:
        conditioner(torch.zeros(5, 6, 2), context=torch.zeros(5, 6, 3))
    assert (seen.count, seen.frames) == (1, 5)


@pytest.mark.parametrize("features", [0, 2, 4])
def test_a_wrong_context(features: int) -> None:
    case = CONDITIONERS["lstm-context"]
    conditioner, values = case.make(), case.frames(2, 4)
    context = values.new_zeros(2, 4, features) if features else None
    expected = f"expected 3 context features, got {features or 'none'}"
    with pytest.raises(ValueError, match=expected):
        conditioner(values, context=context)
    state = conditioner.initial_state(torch.Size([2]))
    entry = None if context is None else context[:, 0]
    with pytest.raises(ValueError, match=expected):
        conditioner.step(None, state, context=entry)


def test_a_context_where_none_is_expected() -> None:
    case = CONDITIONERS["lstm"]
    values = case.frames(2, 4)
    with pytest.raises(ValueError, match="expected 0 context features, got 5"):
        case.make()(values, context=values.new_zeros(2, 4, 5))
