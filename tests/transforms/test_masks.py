"""Masks: padding is the identity, counts zero, and lets no gradient through."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.registry import (
    KINDS,
    Case,
)
from tests.support.transforms import close, draw

each_kind = pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)


LENGTHS = torch.tensor([2, 5, 3])


def padded(case: Case, transform: Any) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Frames with garbage after the end of each sequence, what is given, and the mask."""
    x, given = draw(case, transform, 3, length=5)
    mask = torch.arange(5) < LENGTHS[:, None]
    x[~mask] = 30 * torch.randn_like(x[~mask])
    return x, given, mask


def shorter(case: Case, given: dict[str, Any], index: int, past: int) -> dict[str, Any]:
    """What one sequence is given, without padding."""
    history, context = given["history"], given["context"]
    end = past + int(LENGTHS[index])
    return {
        "history": None if history is None else history[index],
        "context": None if context is None else context[index, :end],
    }


@each_kind
def test_padding_is_the_identity_and_counts_zero(case: Case) -> None:
    transform, other = case.make(), case.make()
    x, given, mask = padded(case, transform)
    conditioned = transform.condition(**given, mask=mask)
    y, log_scale = conditioned.inv(x), conditioned.log_scale(x)
    log_det = conditioned.log_abs_det_jacobian(y, x)
    sample = other.condition(**given, mask=mask)(x)
    assert torch.equal(y[~mask], x[~mask])
    assert torch.equal(sample[~mask], x[~mask])
    assert (log_scale[~mask] == 0).all()
    for i, length in enumerate(LENGTHS.tolist()):
        alone = other.condition(**shorter(case, given, i, transform.context_length))
        frames = x[i, :length]
        assert close(y[i, :length], alone.inv(frames), 1e-12)
        assert close(sample[i, :length], alone(frames), 1e-12)
        assert close(log_det[i], alone.log_abs_det_jacobian(y[i, :length], frames), 1e-12)


@each_kind
def test_sampling_with_a_mask_is_remembered_right(case: Case) -> None:
    transform, other = case.make(), case.make()
    noise, given, mask = padded(case, transform)
    conditioned = transform.condition(**given, mask=mask)
    x = conditioned(noise)
    assert torch.equal(conditioned.inv(x), noise)
    expected = other.condition(**given, mask=mask).log_abs_det_jacobian(noise, x)
    assert close(conditioned.log_abs_det_jacobian(noise, x), expected, 1e-10)


@each_kind
def test_no_gradient_comes_through_padding(case: Case) -> None:
    transform, other = case.make(), case.make()
    x, given, mask = padded(case, transform)
    x.requires_grad_()
    conditioned = transform.condition(**given, mask=mask)
    y = conditioned.inv(x)
    (y[mask].square().sum() + conditioned.log_abs_det_jacobian(y, x).sum()).backward()
    assert (x.grad[~mask] == 0).all()
    assert (x.grad[mask] != 0).any()
    for i, length in enumerate(LENGTHS.tolist()):
        alone = other.condition(**shorter(case, given, i, transform.context_length))
        frames = x.detach()[i, :length]
        y = alone.inv(frames)
        loss = y.square().sum() + alone.log_abs_det_jacobian(y, frames)
        if loss.requires_grad:
            loss.backward()
    for mine, theirs in zip(transform.parameters(), other.parameters(), strict=True):
        assert close(
            mine.grad, torch.zeros_like(mine) if theirs.grad is None else theirs.grad, 1e-9
        )
