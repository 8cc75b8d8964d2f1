"""Chains of transforms across time: their parts, their reach, and their cost."""

from typing import Any

import pytest
import torch

from pyro_afslvm.transforms import (
    TemporalAffine,
    TemporalChain,
    TemporalDifference,
    compose,
)
from tests.support.registry import (
    CHAINS,
    NOT_AFFINE,
    TRANSFORMS,
    affine,
    calls,
    conv,
    mlp,
)
from tests.support.transforms import close, draw, refused


def test_reach_and_context_length_of_chains_add() -> None:
    made = {name: case.make() for name, case in CHAINS.items()}
    assert [made["mlp-2+mlp-3-given"].context_length, made["mlp-2+mlp-3-given"].reach] == [3, 5]
    assert [made["mlp-1+mlp-3"].context_length, made["mlp-1+mlp-3"].reach] == [0, 4]
    assert [made["lstm+mlp-3-given"].context_length, made["lstm+mlp-3-given"].reach] == [3, None]
    assert [made["nested"].context_length, made["nested"].reach] == [0, 4]
    twice = made["difference+difference"]
    assert [twice.context_length, twice.reach] == [0, 2]


def test_a_chain_is_its_parts_one_after_the_other() -> None:
    case = TRANSFORMS["mlp-1+mlp-2+mlp-1"]
    transform, noise = case.make(), case.frames(3, 5)
    first, second, third = transform.parts
    assert close(transform(noise), third(second(first(noise))), 1e-12)
    x = case.frames(3, 5)
    levels = transform.intermediates(x)
    assert close(levels[0].noise, third.inv(x), 1e-12)
    assert close(levels[1].noise, second.inv(third.inv(x)), 1e-12)
    assert close(levels[2].noise, transform.inv(x), 1e-12)


@pytest.mark.parametrize(
    "name", ["mlp-3", "mlp-1+mlp-2+mlp-1", "lstm+mlp-3-given", "conv-1+conv-3"]
)
def test_a_frame_is_predicted_before_it_is_there(name: str) -> None:
    case = TRANSFORMS[name]
    transform = case.make()
    past, length = transform.context_length, 5
    head = case.frames(2, past) if past else None
    x = case.frames(2, length)
    shift, log_scale = compose(transform.condition(history=head).intermediates(x))
    state = transform.initial_state(x.shape[:1], history=head)
    for t in range(length):
        predicted = transform.predict(torch.zeros_like(x[:, 0]), state)
        assert close(predicted.transform.shift, shift[:, t], 1e-12)
        assert close(predicted.transform.log_scale, log_scale[:, t], 1e-12)
        noise, _, state = transform.absorb(x[:, t], predicted)
        assert close(noise, (x - shift)[:, t] / log_scale[:, t].exp(), 1e-12)


def networks(transform: Any) -> list[Any]:
    """The conditioner of each affine part."""
    return [m.conditioner for m in transform.modules() if isinstance(m, TemporalAffine)]


ONE_PASS = [
    "mlp-1-given+mlp-2-given+mlp-1-given",
    "mlp-2-given+mlp-3",
    "lstm+lstm+mlp-2-given",
    "difference+mlp-2-given",
    "conv-1+conv-3",
]


@pytest.mark.parametrize("name", ONE_PASS)
def test_inverse_of_a_chain_is_one_pass_of_each_network(name: str) -> None:
    transform = TRANSFORMS[name].make()
    conditioners = networks(transform)
    counts = [0] * len(conditioners)

    def count(index: int) -> Any:
        def hook(*_: Any) -> None:
            counts[index] += 1

        return hook

    for i, conditioner in enumerate(conditioners):
        for part in ("body", "lstm"):
            if hasattr(conditioner, part):
                getattr(conditioner, part).register_forward_pre_hook(count(i))
            elif not list(conditioner.children()):
                conditioner.register_forward_pre_hook(count(i))
                break
    for n, length in enumerate((5, 11), 1):
        x, given = draw(TRANSFORMS[name], transform, 1, length=length)
        transform.condition(**given).inv(x)
        assert counts == [n] * len(conditioners)


@pytest.mark.parametrize("name", ["conv-3-given+conv-1-given", "mlp-3+mlp-1"])
def test_a_step_of_a_chain_encodes_one_frame_a_part(name: str) -> None:
    case = TRANSFORMS[name]
    transform = case.make()
    history = case.frames(1, transform.reach)
    state = transform.initial_state(torch.Size([1]), history=history)
    for t in range(5):
        noise = case.frames(1)
        counters = [calls(conditioner.encoder) for conditioner in networks(transform)]
        entered = [counter.__enter__() for counter in counters]
        *_, state = transform.step(noise, state)
        for counter in counters:
            counter.__exit__(None, None, None)
        codes = [(seen.count, seen.frames) for seen in entered]
        assert codes == [(1, 1) if t else (0, 0)] * len(entered)  # the history's are there


def test_a_chain_with_a_part_that_predicts_nothing() -> None:
    case = NOT_AFFINE["mlp-2-given+warped"]
    transform = case.make()
    state = transform.initial_state(torch.Size([3]), history=case.frames(3, 2))
    with pytest.raises(TypeError, match="no prediction: Warped does not define `predict`"):
        transform.predict(case.frames(3), state)


def test_an_empty_chain() -> None:
    with refused("a chain needs at least one transform"):
        TemporalChain([])


def test_a_chain_of_frames_of_several_ranks() -> None:
    with refused("must be of frames of one rank"):
        TemporalChain([affine(mlp(1)), affine(conv())])
    with refused("must be of frames of one rank"):
        TemporalChain([TemporalDifference(frame_dims=1), TemporalDifference(frame_dims=3)])
