"""Weights that are random, of networks that have been made Pyro modules."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_afslvm.transforms import ConditionedTemporalTransform


def has_random_weights(module: nn.Module) -> bool:
    """Tell whether a module or one within it has a :class:`pyro.nn.PyroSample`."""
    return any(isinstance(m, PyroModule) and m._pyro_samples for m in module.modules())


def check_seen_weights(*parts: nn.Module | None) -> None:
    """Refuse random weights of what a guide looks through: it would draw others than the model.

    Raises:
        ValueError: for such weights.
    """
    if any(has_random_weights(part) for part in parts if part is not None):
        raise ValueError(
            "expected weights that are not random in flow and memory, through which the guide "
            "sees the frames; those of prior and decoder may be"
        )


@contextmanager
def weights_drawn(*programs: Any) -> Iterator[None]:
    """Draw the random weights of programs once for a run, outside of its plates.

    Within a plate over sequences every sequence would ask for weights of its own, and each call
    of a network for others.
    """
    modules = [p for p in programs if isinstance(p, nn.Module) and has_random_weights(p)]
    with ExitStack() as stack:
        parts = [m for module in modules for m in module.modules() if isinstance(m, PyroModule)]
        for part in parts:
            stack.enter_context(part._pyro_context)
        for part in parts:
            for name in part._pyro_samples:
                getattr(part, name)
        yield


def with_weights_of_now(distribution: dist.TorchDistribution, value: Tensor) -> None:
    """Invert a value now, for the log-probability that is asked for when the weights are gone."""
    for transform in reversed(getattr(distribution, "transforms", ())):
        if isinstance(transform, ConditionedTemporalTransform):
            transform.remember(value)
        value = transform.inv(value)
