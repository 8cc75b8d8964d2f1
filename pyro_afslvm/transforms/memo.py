"""Remember the last inverse of a transform while nothing it depends on has changed."""

import weakref
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result", bound=tuple[Tensor, ...])


class Memo(Generic[Result]):
    """The last result of a function of some tensors and a module's parameters.

    Guide and model both need :math:`y = f^{-1}(x)`; the second of them finds it here. A
    result is handed out only if the inputs are the same tensors (or views of the same
    memory, unmodified since), the module's parameters and mode are unchanged, and grad
    mode and autocast are what they were. It is dropped as soon as a gradient flows back
    through it, for its graph is then spent.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the result."""
        self._inputs: tuple[tuple[Tensor, int] | None, ...] = ()
        self._state: object = None
        self._result: Result | None = None

    def find(self, module: nn.Module, inputs: Sequence[Tensor | None]) -> Result | None:
        """Return the remembered result if it is that of these inputs, else ``None``."""
        if self._result is None or len(inputs) != len(self._inputs):
            return None
        if not all(_same(a, b) for a, b in zip(inputs, self._inputs, strict=True)):
            return None
        return self._result if self._state == _state(module) else None

    def keep(self, module: nn.Module, inputs: Sequence[Tensor | None], result: Result) -> None:
        """Remember a result until something it depends on changes."""
        self.clear()
        if any(a is not None and a.is_inference() for a in inputs):
            return  # inference tensors have no version: a change could not be seen
        self._inputs = tuple(None if a is None else (a, a._version) for a in inputs)
        self._state = _state(module)
        self._result = result
        memo = weakref.ref(self)
        for tensor in result:
            if tensor.requires_grad:
                tensor.register_hook(lambda _: _clear(memo))

    def __deepcopy__(self, _: dict[int, Any]) -> "Memo[Result]":
        return Memo()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Memo, ()


def _clear(memo: "weakref.ref[Any]") -> None:
    if (alive := memo()) is not None:
        alive.clear()


def _same(a: Tensor | None, kept: tuple[Tensor, int] | None) -> bool:
    if a is None or kept is None:
        return a is None and kept is None
    b, version = kept
    if a.is_inference() or a._version != version:
        return False
    if a is b:
        return True
    return (
        not (a.requires_grad or b.requires_grad)
        and a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
        and a.device == b.device
    )


def _state(module: nn.Module) -> tuple[object, ...]:
    """What the module's output depends on besides its inputs."""
    tensors = [*module.parameters()]
    if not module.training:  # in training, batch norm moves its statistics but never reads them
        tensors += module.buffers()
    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cuda"),
        torch.is_autocast_enabled("cpu"),
        tuple(child.training for child in module.modules()),
        tuple((t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in tensors),
    )
