"""Every kind of transform: batches, histories, contexts and steps, and what is refused."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_afslvm.transforms import (
    MLPConditioner,
    TemporalChain,
)
from tests.support.registry import (
    KINDS,
    TRANSFORMS,
    Case,
    affine,
    perturb,
)
from tests.support.transforms import close, cut, draw, log_prob, refused, until

each_kind = pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)


@each_kind
def test_leading_batch_dimensions(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, 2, 3)
    noise = case.frames(2, 3, 4)
    flat = {k: None if v is None else v.flatten(0, 1) for k, v in given.items()}
    one = {k: None if v is None else v[0] for k, v in flat.items()}
    y, sample = transform.condition(**given).inv(x), transform.condition(**given)(noise)
    log_density = log_prob(transform, x, **given)
    assert log_density.shape == (2, 3)
    assert close(y.flatten(0, 1), transform.condition(**flat).inv(x.flatten(0, 1)), 1e-12)
    assert close(sample.flatten(0, 1), transform.condition(**flat)(noise.flatten(0, 1)), 1e-12)
    assert close(log_density.flatten(), log_prob(transform, x.flatten(0, 1), **flat), 1e-12)
    assert close(y[0, 0], transform.condition(**one).inv(x[0, 0]), 1e-12)
    assert close(sample[0, 0], transform.condition(**one)(noise[0, 0]), 1e-12)
    assert close(log_density[0, 0], log_prob(transform, x[0, 0], **one), 1e-12)


@each_kind
def test_history_is_broadcast(case: Case) -> None:
    """History and context of B sequences stand for every one of S particles."""
    transform, other = case.make(), case.make()
    for more in (0, 1):
        _, given = draw(case, transform, 3, more=more)
        expanded = {k: None if v is None else v.expand(2, *v.shape) for k, v in given.items()}
        x = case.frames(2, 3, 4)
        mine, theirs = transform.condition(**given), other.condition(**expanded)
        assert close(mine.inv(x), theirs.inv(x), 1e-12)
        assert close(mine.log_scale(x), theirs.log_scale(x), 1e-12)
        assert close(mine(x), theirs(x), 1e-12)


@each_kind
def test_history_split_anywhere(case: Case) -> None:
    transform = case.make()
    start = transform.context_length
    total = start + (transform.reach or 3) + 3
    x, context = case.frames(2, total), case.context(2, total)

    def score(begin: int, end: int) -> Tensor:
        history = cut(x, case, 0, begin)
        return log_prob(
            transform, cut(x, case, begin, end), history=history, context=until(context, end)
        )

    whole = score(start, total)
    for split in range(start + 1, total):
        assert close(score(start, split) + score(split, total), whole, 1e-10)


@each_kind
def test_sampling_continues_wherever_it_was_cut(case: Case) -> None:
    transform = case.make()
    start = transform.context_length
    length = (transform.reach or 3) + 2
    head = case.frames(2, start) if start else None
    noise, context = case.frames(2, length), case.context(2, start + length)
    x = transform.condition(history=head, context=context)(noise)
    full = x if head is None else torch.cat([head, x], -1 - transform.frame_dims)
    for split in range(1, length):
        history = cut(full, case, 0, start + split)
        rest = transform.condition(history=history, context=context)(cut(noise, case, split))
        assert close(rest, cut(x, case, split), 1e-10)


@each_kind
def test_inverting_step_by_step(case: Case) -> None:
    transform = case.make()
    past, length = transform.context_length, 5
    head = case.frames(2, past) if past else None
    x, context = case.frames(3, 2, length), case.context(2, past + length)
    inverse = case.make().condition(history=head, context=context)
    before = None if context is None or not past else until(context, past)
    state = transform.initial_state(x.shape[:2], history=head, context=before)
    for t in range(length):
        frame = cut(x, case, t, t + 1).squeeze(-1 - transform.frame_dims)
        present = None if context is None else context[..., past + t, :]
        noise, log_scale, state = transform.inverse_step(frame, state, context=present)
        assert close(noise, inverse.inv(x)[:, :, t], 1e-12)
        assert close(log_scale.expand_as(noise), inverse.log_scale(x)[:, :, t], 1e-12)


finite = {k: v for k, v in KINDS.items() if v.make().reach is not None}


@pytest.mark.parametrize("case", finite.values(), ids=finite)
def test_the_reach_stands_for_any_longer_past(case: Case) -> None:
    transform, other = case.make(), case.make()
    long, x = case.frames(2, transform.reach + 3), case.frames(2, 4)
    recent = cut(long, case, 3)
    mine, theirs = transform.condition(history=long), other.condition(history=recent)
    assert close(mine.inv(x), theirs.inv(x), 1e-12)
    assert close(mine.log_scale(x), theirs.log_scale(x), 1e-12)
    assert close(mine(x), theirs(x), 1e-12)


from_nothing = {k: v for k, v in KINDS.items() if not v.make().context_length}


@pytest.mark.parametrize("case", from_nothing.values(), ids=from_nothing)
def test_no_frame_of_history_is_no_history(case: Case) -> None:
    transform = case.make()
    x = case.frames(2, 4)
    given = {"context": case.context(2, 4)}
    none = transform.condition(**given)
    empty = transform.condition(history=case.frames(2, 0), **given)
    assert torch.equal(none.inv(x), empty.inv(x))
    assert torch.equal(none(x), empty(x))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    windows=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    learned=st.booleans(),
    length=st.integers(2, 9),
    data=st.data(),
)
def test_any_window_length_and_split(
    windows: list[int], learned: bool, length: int, data: Any
) -> None:
    torch.manual_seed(0)
    initial = "learned" if learned else None
    parts = [affine(MLPConditioner(2, hidden=(5,), window=w), initial) for w in windows]
    transform = TemporalChain(parts).double()
    perturb(transform)
    start = transform.context_length
    assert start == (0 if learned else sum(windows))
    x = torch.randn(start + length, 2, dtype=torch.float64)
    split = data.draw(st.integers(start + 1, start + length - 1))
    head, rest = x[start:split], x[split:]
    whole = log_prob(transform, x[start:], history=x[:start])
    pieces = log_prob(transform, head, history=x[:start])
    pieces = pieces + log_prob(transform, rest, history=x[:split])
    assert close(pieces, whole, 1e-10)
    noise = transform.condition(history=x[:split]).inv(rest)
    assert close(copy.deepcopy(transform).condition(history=x[:split])(noise), rest, 1e-10)


# bad input ------------------------------------------------------------------------------


given_kinds = {k: v for k, v in KINDS.items() if v.make().context_length}


@pytest.mark.parametrize("case", given_kinds.values(), ids=given_kinds)
def test_too_little_history(case: Case) -> None:
    transform = case.make()
    needed = transform.context_length
    expected = rf"{needed} frames of history are needed .* got {{}}: pass `history=`"
    with refused(expected.format(needed - 1)):
        transform.condition(history=case.frames(2, needed - 1))
    with refused(expected.format(0)):
        transform.condition()
    for direction in (transform, transform.inv):
        with refused(expected.format(0)):
            direction(case.frames(2, 4))


@each_kind
def test_too_few_dimensions(case: Case) -> None:
    transform = case.make()
    dims = len(case.frame_shape)
    frame = torch.zeros(case.frame_shape, dtype=torch.float64)
    expected = rf"\(\*batch, T, \*frame_shape\) with {dims} frame dimensions, got"
    with refused(expected):
        transform.condition(history=frame)
    _, given = draw(case, transform)
    conditioned = transform.condition(**given)
    for direction in (conditioned, conditioned.inv):
        with refused(expected):
            direction(frame)
    with refused(expected):
        conditioned.log_abs_det_jacobian(frame, frame)


@pytest.mark.parametrize("name", ["lstm-context", "lstm-context+lstm-context"])
def test_a_wrong_context(name: str) -> None:
    case = TRANSFORMS[name]
    x = case.frames(2, 4)
    for features in (0, 2):
        context = x.new_zeros(2, 4, features) if features else None
        conditioned = case.make().condition(context=context)
        for direction in (conditioned, conditioned.inv):
            with refused(f"expected 3 context features, got {features or 'none'}"):
                direction(x)


def test_a_context_where_none_is_expected() -> None:
    x = torch.zeros(2, 4, 2, dtype=torch.float64)
    conditioned = TRANSFORMS["lstm"].make().condition(context=x)
    with refused("expected 0 context features, got 2"):
        conditioned.inv(x)


@pytest.mark.parametrize("name", ["lstm-context", "lstm-context+lstm-context"])
def test_a_context_of_another_length(name: str) -> None:
    case = TRANSFORMS[name]
    for steps in (1, 5, 7):
        given = {"history": case.frames(2, 2), "context": case.context(2, steps)}
        conditioned = case.make().condition(**given)
        for direction in (conditioned, conditioned.inv, conditioned.intermediates):
            with refused(f"expected a context of 6 steps, .* got {steps}"):
                direction(case.frames(2, 4))
