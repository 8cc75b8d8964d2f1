"""Transforms that remember their last inverse, beside copies that do not."""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms import TemporalAffine
from tests.support.registry import TRANSFORMS, Case, calls

SMALL = TRANSFORMS["mlp-1"]


@contextmanager
def network_calls(transform: nn.Module) -> Iterator[Callable[[], int]]:
    """Count the passes of all networks of a transform from here on, by hooks."""
    parts = [part for part in transform.modules() if isinstance(part, TemporalAffine)]
    with ExitStack() as stack:
        counters = [stack.enter_context(calls(part.conditioner)) for part in parts]
        yield lambda: sum(counter.count for counter in counters)


def draw(case: Case, transform: Any, *, length: int = 4) -> tuple[Tensor, dict[str, Any]]:
    """Draw frames, and the history and context that the transform needs."""
    past = transform.context_length
    history = case.frames(2, past) if past else None
    return case.frames(2, length), {"history": history, "context": case.context(2, past + length)}


def both(transform: Any, x: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    """Give inverse and log-determinant."""
    conditioned = transform.condition(**given)
    y = conditioned.inv(x)
    return y, conditioned.log_abs_det_jacobian(y, x)


def fresh(transform: Any, x: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    """Compute the same by a copy, which remembers nothing."""
    return both(copy.deepcopy(transform), x.clone(), **given)


def check(transform: Any, x: Tensor, **given: Any) -> None:
    """Check that what is handed out is what a copy without a cache computes."""
    results, known = both(transform, x, **given), fresh(transform, x, **given)
    for some, expected in zip(results, known, strict=True):
        assert some.dtype == expected.dtype
        assert some.requires_grad == expected.requires_grad
        assert torch.equal(some, expected)
