"""Arrays of all kinds as tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(x: Any, *, device: torch.device | None = None) -> Tensor:
    """Bring a tensor, an array or numbers to a tensor, of the array's precision.

    What torch does not read is copied: other byte orders, arrays that run backwards or are not to
    be written to, and lists of arrays.

    Args:
        x: a tensor, an array of NumPy or xarray, a sequence of numbers or of arrays.
        device: where the tensor is to be.

    >>> import numpy as np
    >>> as_tensor(np.arange(3, dtype=">f4")[::-1])
    tensor([2., 1., 0.])
    """
    if isinstance(x, Tensor):
        return torch.as_tensor(x, device=device)
    values = getattr(x, "values", x)
    if _has_tensors(values):
        return torch.stack([as_tensor(value, device=device) for value in values])
    if not isinstance(values, np.ndarray) and not _has_arrays(values):
        return torch.as_tensor(values, device=device)  # numbers are of torch's default precision
    array = np.asarray(values)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if min(array.strides, default=0) < 0 or not array.flags.writeable:
        array = array.copy()
    return torch.as_tensor(array, device=device)


def _has_tensors(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and any(isinstance(v, Tensor) for v in values)


def _has_arrays(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and any(isinstance(v, np.ndarray) for v in values)
