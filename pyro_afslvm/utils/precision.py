"""The widest real numbers of a device."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

_SINGLE = {"mps"}  # types of devices without double precision


def widest(device: torch.device) -> torch.dtype:
    """Give float64, or float32 where a device has none.

    >>> widest(torch.device("cpu")), widest(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type in _SINGLE else torch.float64


def at_most(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Give a type, or float32 in place of float64 where a device has none.

    >>> at_most(torch.float64, torch.device("mps"))
    torch.float32
    """
    return widest(device) if dtype == torch.float64 else dtype


def as_array(x: Tensor) -> NDArray[Any]:
    """Give the values of a tensor to NumPy, which has no bfloat16: in single precision."""
    values = x.detach().cpu()
    array: NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


def widened(x: Tensor) -> Tensor:
    """Bring a tensor to the widest real numbers of its device."""
    return x.to(widest(x.device))
