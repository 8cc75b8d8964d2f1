"""Inverse autoregressive flows of vectors, small and with random weights."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms import InverseAutoregressive
from tests.support.registry import calls, perturb

FEATURES, CONTEXT = 3, 2
ORDER = (2, 0, 1)


def make(
    *,
    features: int = FEATURES,
    context: int = CONTEXT,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> InverseAutoregressive:
    """Make a small flow with random weights; the same seed gives the same."""
    torch.manual_seed(seed)
    options = {"hidden": (5, 4), "initial_bias": 1.0} | options
    iaf = InverseAutoregressive(features, context_features=context, **options).to(dtype)
    for made in iaf.networks:
        nn.init.normal_(made.layers[-1].weight)
    perturb(iaf)
    return iaf


def draw(*batch: int, size: int = FEATURES) -> Tensor:
    """Draw vectors."""
    return torch.randn(*batch, size, dtype=torch.float64)


def context_for(iaf: InverseAutoregressive, *batch: int) -> Tensor | None:
    """Draw a context, if the flow takes one."""
    return draw(*batch, size=iaf.context_features) if iaf.context_features else None


@contextmanager
def passes(iaf: InverseAutoregressive) -> Iterator[Callable[[], int]]:
    """Count the passes of all steps' networks from here on."""
    with ExitStack() as stack:
        counters = [stack.enter_context(calls(made)) for made in iaf.networks]
        yield lambda: sum(counter.count for counter in counters)


def sgd_step(iaf: InverseAutoregressive) -> None:
    """Move every parameter by one step of an optimizer."""
    optimizer = torch.optim.SGD(iaf.parameters(), lr=0.1)
    for parameter in iaf.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
