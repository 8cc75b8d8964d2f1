"""Running Pyro programs: modes, loaded parameters, errors, and a guide for no latents."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from pyro_afslvm.models.param_store import restore


@contextmanager
def evaluating(*programs: Any) -> Iterator[None]:
    """Evaluation mode, so that nothing that is learned moves; afterwards as it was.

    What the param store was loaded with since the programs last ran is taken over first.
    """
    owners = [program for program in programs if isinstance(program, nn.Module)]
    for owner in owners:
        restore(owner)
    modules = [module for owner in owners for module in owner.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Cut off the table of shapes that Pyro appends to an error inside of a program."""
    try:
        yield
    except ValueError as error:
        reason, *table = str(error).split("\n")
        if not table:
            raise
        raise ValueError(reason) from None


def given_context(program: Any, context: Any) -> Any:
    """Give a program its covariates, whatever else it is called with; ``None`` leaves it alone."""
    if context is None or program is None:
        return program
    return partial(program, covariates=context)


def no_guide(*_: Any, **__: Any) -> None:
    """Sample nothing: the guide of a model without latents."""
