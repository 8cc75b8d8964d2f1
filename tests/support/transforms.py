"""What tests of transforms across time share."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from tests.support.registry import Case


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Equal in shape and dtype, and to the tolerance in value."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    return True


def cut(x: Tensor | None, case: Case, start: int | None, stop: int | None = None) -> Any:
    """Frames ``start:stop`` of ``(*batch, T, *frame_shape)``."""
    if x is None:
        return None
    return x[(..., slice(start, stop), *[slice(None)] * len(case.frame_shape))]


def until(context: Tensor | None, stop: int) -> Tensor | None:
    return None if context is None else context[..., :stop, :]


def log_prob(transform: Any, x: Tensor, **given: Any) -> Tensor:
    """Log-density of x under N(0, I) noise: ``(*batch,)``."""
    event = x.shape[-1 - transform.frame_dims :]
    base = dist.Normal(x.new_zeros(event), x.new_ones(event)).to_event(len(event))
    return dist.TransformedDistribution(base, [transform.condition(**given)]).log_prob(x)


def draw(case: Case, transform: Any, *batch: int, length: int = 4, more: int = 0) -> Any:
    """Frames, and the history and context they are given."""
    past = transform.context_length + more
    history = case.frames(*batch, past) if past else None
    return case.frames(*batch, length), {
        "history": history,
        "context": case.context(*batch, past + length),
    }


def time_blocks(full: Tensor, length: int) -> Tensor:
    """A Jacobian as ``(T, frame, T, frame)``."""
    side = full[0].numel() if full.ndim == 2 else math.isqrt(full.numel())
    return full.reshape(length, side // length, length, side // length)


@contextmanager
def refused(message: str) -> Iterator[None]:
    """In one line that says what was expected."""
    with pytest.raises(ValueError, match=message) as error:
        yield
    assert "\n" not in str(error.value)
