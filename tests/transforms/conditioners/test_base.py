"""Every conditioner: its two faces agree, and neither sees the present."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from pyro_afslvm.networks.layers import normalization
from pyro_afslvm.transforms import ConvConditioner, LSTMConditioner, MLPConditioner
from tests.support.registry import CONDITIONERS, Case, calls, conv, lstm, mlp

each = pytest.mark.parametrize("case", CONDITIONERS.values(), ids=CONDITIONERS)
windowed = {k: v for k, v in CONDITIONERS.items() if k.startswith(("conv", "mlp"))}
each_windowed = pytest.mark.parametrize("case", windowed.values(), ids=windowed)


def draw(case: Case, conditioner: Any, *batch: int, length: int = 5, more: int = 0) -> Any:
    """Values, and the history and context that go with them."""
    past = conditioner.window + more
    history = case.frames(*batch, past) if past else None
    context = case.context(*batch, past + length)
    return case.frames(*batch, length), {"history": history, "context": context}


def steps(case: Case, conditioner: Any, values: Tensor, given: dict[str, Any]) -> Any:
    """The parameters of every frame, one step after the other."""
    history, context = given["history"], given["context"]
    dim = -1 - len(case.frame_shape)
    past = 0 if history is None else history.shape[dim]
    before = None if context is None or not past else context[..., :past, :]
    state = conditioner.initial_state(values.shape[:dim], history=history, context=before)
    previous = None if history is None else history.select(dim, -1)
    results = []
    for t, value in enumerate(values.unbind(dim)):
        entry = None if context is None else context[..., past + t, :]
        parameters, state = conditioner.step(previous, state, context=entry)
        results.append([p.to(value.dtype).expand_as(value) for p in parameters])
        previous = value
    return [torch.stack(part, dim) for part in zip(*results, strict=True)]


@each
@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_step_equals_forward(case: Case, more: int, batch: tuple[int, ...]) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner, *batch, more=more)
    parallel = conditioner(values, **given)
    assert parallel.shift.shape == parallel.log_scale.shape == values.shape
    one_by_one = steps(case, conditioner, values, given)
    torch.testing.assert_close(one_by_one, list(parallel), rtol=1e-12, atol=1e-12)


@each
@pytest.mark.parametrize("output", ["shift", "log_scale"])
def test_neither_present_nor_future_is_seen(case: Case, output: str) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner)

    def parameters(values: Tensor) -> Tensor:
        return getattr(conditioner(values, **given), output)

    blocks = jacobian(parameters, values).reshape(5, -1, 5, values[0].numel())
    for t in range(5):
        assert (blocks[t, :, t:] == 0).all()
    reach = conditioner.reach or 5
    if not (output == "log_scale" and conditioner.window == 0 and reach == 1):
        seen = (blocks != 0).any(3).any(1)
        for lag in range(1, 5):
            assert seen.diagonal(-lag).any() == (lag <= reach), lag


@pytest.mark.parametrize("name", ["lstm-context", "lstm-2-context-pre"])
def test_context_is_seen_up_to_the_present(name: str) -> None:
    case = CONDITIONERS[name]
    conditioner = case.make()
    values, given = draw(case, conditioner)
    blocks = jacobian(lambda context: conditioner(values, context=context).shift, given["context"])
    for t in range(5):
        assert (blocks[t, :, t + 1 :] == 0).all()
        assert all((blocks[t, :, s] != 0).any() for s in range(t + 1))


@each
def test_leading_batch_dimensions(case: Case) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner, 2, 3, more=1)
    flat = {k: None if v is None else v.flatten(0, 1) for k, v in given.items()}
    whole = conditioner(values, **given)
    for some, expected in zip(conditioner(values.flatten(0, 1), **flat), whole, strict=True):
        torch.testing.assert_close(some, expected.flatten(0, 1), rtol=1e-12, atol=1e-12)


@each
def test_history_and_values_are_one_sequence(case: Case) -> None:
    """What follows does not depend on where the history ends."""
    conditioner = case.make()
    values, given = draw(case, conditioner, 2, length=6, more=1)
    whole = conditioner(values, **given)
    history = given["history"]
    dim = -1 - len(case.frame_shape)
    full = torch.cat([history, values.narrow(dim, 0, 2)], dim)
    rest = values.narrow(dim, 2, 4)
    for some, expected in zip(
        conditioner(rest, history=full, context=given["context"]), whole, strict=True
    ):
        torch.testing.assert_close(some, expected.narrow(dim, 2, 4), rtol=1e-12, atol=1e-12)


@each_windowed
def test_only_the_window_of_a_history_is_seen(case: Case) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner, 2, more=4)
    dim = -1 - len(case.frame_shape)
    recent = given["history"].narrow(dim, 4, conditioner.window)
    a, b = conditioner(values, **given), conditioner(values, history=recent)
    assert torch.equal(a.shift, b.shift)
    assert torch.equal(a.log_scale, b.log_scale)


@each_windowed
@pytest.mark.parametrize("length", [1, 7])
def test_each_frame_is_encoded_once(case: Case, length: int) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner, 2, length=length, more=2)
    with calls(conditioner.encoder) as encoder, calls(conditioner.body) as body:
        conditioner(values, **given)
    assert (encoder.count, encoder.frames) == (1, 2 * (conditioner.window + length - 1))
    assert (body.count, body.frames) == (1, 2 * length)
    with calls(conditioner.encoder) as encoder:
        steps(case, conditioner, values, given)
    assert encoder.frames == 2 * (conditioner.window + length - 1)


@each
def test_every_parameter_gets_a_finite_gradient(case: Case) -> None:
    conditioner = case.make().train()
    values, given = draw(case, conditioner, 3)
    shift, log_scale = conditioner(values, **given)
    if list(conditioner.parameters()):
        (shift.square() + log_scale.square()).sum().backward()
    for name, parameter in conditioner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


residual = {k: v for k, v in CONDITIONERS.items() if k.endswith("-residual")}


@pytest.mark.parametrize("case", residual.values(), ids=residual)
def test_residual_shift_is_the_last_frame_and_a_change_in_units_of_the_scale(case: Case) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner, more=1)
    history = given["history"]
    previous = torch.cat([history[-1:], values[:-1]])
    shift, log_scale = conditioner(values, **given)
    conditioner.residual = False
    change, same = conditioner(values, **given)
    assert torch.equal(log_scale, same)
    torch.testing.assert_close(shift, previous + log_scale.exp() * change, rtol=1e-12, atol=1e-12)
    conditioner.residual = True
    nn.init.zeros_(conditioner.heads.weight)
    nn.init.zeros_(conditioner.heads.bias)
    assert torch.equal(conditioner(values, **given).shift, previous)  # copies the last frame


@pytest.mark.parametrize(("channels", "parameters"), [(1, 335_042), (3, 338_502)])
def test_size_of_the_network_of_the_paper(channels: int, parameters: int) -> None:
    network = ConvConditioner(channels, hidden=64, window=3, norm="batch")
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("norm", ["batch", "group", None])
def test_only_batch_norm_couples_sequences_and_only_in_training(norm: Any) -> None:
    case = CONDITIONERS[f"conv-{norm}-3"]
    conditioner = case.make()
    values, given = draw(case, conditioner, 2)
    other = torch.cat([values[:1], 3 * values[1:]])
    for training in (False, True):
        conditioner.train(training)
        one, two = (conditioner(v, **given).shift[0] for v in (values, other))
        coupled = training and norm == "batch"
        assert torch.allclose(one, two, rtol=0, atol=1e-12) != coupled


def test_the_learned_state_is_where_an_lstm_starts() -> None:
    conditioner = CONDITIONERS["lstm-2"].make()
    state = conditioner.initial_state(torch.Size([3]))
    assert state.hidden.shape == state.cell.shape == (3, 2, 4)
    assert torch.equal(state.hidden, conditioner.initial_hidden.expand(3, 2, 4))
    assert torch.equal(state.cell, conditioner.initial_cell.expand(3, 2, 4))
    value = torch.zeros(1, 2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(conditioner(value).shift.sum(), conditioner.initial_cell)
    assert (gradient != 0).all()


def test_a_pre_network_runs_before_the_lstm() -> None:
    network = nn.Sequential(nn.Linear(2, 7), nn.Tanh())
    conditioner = LSTMConditioner(2, hidden=4, context_features=3, pre_network=network)
    assert conditioner.lstm.input_size == 7 + 3
    with calls(network) as seen:
        conditioner(torch.zeros(5, 6, 2), context=torch.zeros(5, 6, 3))
    assert (seen.count, seen.frames) == (1, 5)


def test_shapes_of_the_initial_values() -> None:
    assert conv().initial_shape == (2, 1, 1)
    assert mlp(2).initial_shape == (2,)
    assert lstm().initial_shape == (2,)
    assert [lstm().window, lstm().reach] == [0, None]
    assert [conv(window=2).window, conv(window=2).reach] == [2, 2]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8, 12, 16, 64])
def test_group_norm_has_groups_of_at_least_four_channels(channels: int) -> None:
    norm = normalization("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups <= 8
    assert channels / norm.num_groups >= min(4, channels)
    assert torch.isfinite(norm(torch.randn(2, channels, 3, 3))).all()


# bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, -1])
@pytest.mark.parametrize("make", [lambda w: conv(window=w), mlp], ids=["conv", "mlp"])
def test_a_window_without_frames(make: Any, window: int) -> None:
    with pytest.raises(ValueError, match=f"window must be at least 1 frame, got {window}"):
        make(window)


def test_an_unknown_norm() -> None:
    with pytest.raises(ValueError, match="norm must be 'batch', 'group' or None, got 'layer'"):
        conv(norm="layer")


def test_no_hidden_layer() -> None:
    with pytest.raises(ValueError, match="at least one hidden layer"):
        MLPConditioner(2, hidden=())


@each_windowed
def test_too_little_history(case: Case) -> None:
    conditioner = case.make()
    window = conditioner.window
    values, short = case.frames(2, 4), case.frames(2, window - 1)
    for history, got in ((None, 0), (short, window - 1)):
        expected = f"a window of {window} frames needs as many, got {got}"
        with pytest.raises(ValueError, match=expected):
            conditioner(values, history=history)
        with pytest.raises(ValueError, match=expected):
            conditioner.initial_state(torch.Size([2]), history=history)
    with pytest.raises(ValueError, match=f"a window of {window} frames needs them before"):
        conditioner.step(None, ())


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


@each
def test_too_few_dimensions(case: Case) -> None:
    conditioner = case.make()
    history = case.frames(conditioner.window) if conditioner.window else None
    frame = torch.zeros(case.frame_shape, dtype=torch.float64)
    context = case.context(conditioner.window + 4)
    with pytest.raises(ValueError, match=r"expected a sequence of shape \(\*batch, T, "):
        conditioner(frame, history=history, context=context)
