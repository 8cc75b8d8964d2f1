"""Nested tuples of tensors, the states of sampling."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply a function to every tensor of nested (named) tuples; the rest stays.

    >>> import torch
    >>> map_tensors(torch.neg, (torch.tensor(1), (None, torch.tensor(2))))
    (tensor(-1), (None, tensor(-2)))
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if not isinstance(tree, tuple):
        return tree
    mapped = [map_tensors(function, leaf) for leaf in tree]
    return type(tree)(*mapped) if hasattr(tree, "_fields") else tuple(mapped)
