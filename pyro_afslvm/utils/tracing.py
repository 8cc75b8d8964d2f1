"""Whether the values of tensors are there to be looked at."""

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor


def is_traced() -> bool:
    """Tell whether a tracer, exporter or compiler watches, to which a value is a constant."""
    return (
        torch.compiler.is_compiling()
        or torch.compiler.is_exporting()
        or torch._C._get_tracing_state() is not None
    )


def is_wrapped(x: Tensor) -> bool:
    """Tell whether a tensor stands for many, under ``torch.func``."""
    return not is_traced() and bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def checks_values(x: Tensor) -> bool:
    """Tell whether values are to be checked, and can be: not under ``torch.func``, nor traced."""
    return is_validation_enabled() and not x.is_meta and not is_traced() and not is_wrapped(x)
