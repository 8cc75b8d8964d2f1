"""Conditioners on a window of past frames: what they see, and how often they look."""

from typing import Any

import pytest
import torch
from torch import nn

from pyro_afslvm.networks.layers import normalization
from pyro_afslvm.transforms import ConvConditioner, MLPConditioner
from tests.support.conditioners import draw, steps
from tests.support.registry import CONDITIONERS, Case, calls, conv, mlp

WINDOWED = {
    name: CONDITIONERS[name]
    for name in ("conv-group-1", "conv-batch-3", "conv-None-3", "mlp-1", "mlp-3")
}
each_windowed = pytest.mark.parametrize("case", WINDOWED.values(), ids=WINDOWED)


@each_windowed
def test_only_the_window_of_a_history_is_seen(case: Case) -> None:
    conditioner = case.make()
    values, given = draw(case, conditioner, 2, more=4)
    dim = -1 - len(case.frame_shape)
    recent = given["history"].narrow(dim, 4, conditioner.window)
    assert torch.equal(conditioner(values, **given), conditioner(values, history=recent))


@each_windowed
def test_each_frame_is_encoded_once(case: Case) -> None:
    conditioner = case.make()
    for length in (1, 7):
        values, given = draw(case, conditioner, 2, length=length, more=2)
        with calls(conditioner.encoder) as encoder, calls(conditioner.body) as body:
            conditioner(values, **given)
        assert (encoder.count, encoder.frames) == (1, 2 * (conditioner.window + length - 1))
        assert (body.count, body.frames) == (1, 2 * length)
        with calls(conditioner.encoder) as encoder:
            steps(case, conditioner, values, given)
        assert encoder.frames == 2 * (conditioner.window + length - 1)


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
        one, two = (conditioner(v, **given)[0, ..., 0] for v in (values, other))
        coupled = training and norm == "batch"
        assert torch.allclose(one, two, rtol=0, atol=1e-12) != coupled


def test_group_norm_has_groups_of_at_least_four_channels() -> None:
    for channels in (1, 2, 3, 4, 6, 8, 12, 16, 64):
        norm = normalization("group", channels)
        assert isinstance(norm, nn.GroupNorm)
        assert norm.num_groups <= 8
        assert channels / norm.num_groups >= min(4, channels)
        assert torch.isfinite(norm(torch.randn(2, channels, 3, 3))).all()


@pytest.mark.parametrize("window", [0])
@pytest.mark.parametrize("make", [lambda w: conv(window=w), mlp], ids=["conv", "mlp"])
def test_a_window_without_frames(make: Any, window: int) -> None:
    with pytest.raises(ValueError, match=f"window must be at least 1 frame, got {window}"):
        make(window)


def test_an_unknown_norm() -> None:
    with pytest.raises(
        ValueError, match="norm must be 'batch', 'batch_per_step', 'group' or None, got 'layer'"
    ):
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
