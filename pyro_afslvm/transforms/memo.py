"""Remember the last inverse of a transform while nothing it depends on has changed."""

import weakref
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Result = TypeVar("Result", bound=tuple[Tensor, ...])


class _Input(NamedTuple):
    """What is remembered of an input."""

    tensor: Tensor | None  # only if a gradient is to reach it
    version: int
    values: Tensor


class Memo(Generic[Result]):
    """The last result of a function of some tensors and a module's parameters.

    Guide and model both need :math:`y = f^{-1}(x)`; the second of them finds it here. A
    result is handed out only if the inputs hold the same values (and are the same tensors,
    where they require a gradient), the module's parameters are the same tensors with the
    same values, and train/eval, grad, inference and autocast modes are what they were. It
    is dropped as soon as a gradient flows back through it, for its graph is then spent.

    Versions of tensors alone would not do: fused optimizers, ``parameter.data`` and NumPy
    arrays that share memory change values without a trace.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the result."""
        self._inputs: tuple[_Input | None, ...] = ()
        self._state: object = None
        self._values: Tensor | None = None
        self._result: Result | None = None

    def find(self, module: nn.Module, inputs: Sequence[Tensor | None]) -> Result | None:
        """Return the remembered result if it is that of these inputs, else ``None``."""
        if self._result is None or len(inputs) != len(self._inputs):
            return None
        if self._state != _state(module) or not _equal(self._values, _values(module)):
            return None
        same = all(_same(a, b) for a, b in zip(inputs, self._inputs, strict=True))
        return self._result if same else None

    def keep(self, module: nn.Module, inputs: Sequence[Tensor | None], result: Result) -> None:
        """Remember a result until something it depends on changes."""
        self.clear()
        self._inputs = tuple(None if a is None else _input(a) for a in inputs)
        self._state, self._values = _state(module), _values(module)
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


def _input(a: Tensor) -> _Input:
    values = a.detach().clone()
    return _Input(a, a._version, values) if a.requires_grad else _Input(None, 0, values)


def _same(a: Tensor | None, kept: _Input | None) -> bool:
    if a is None or kept is None:
        return a is None and kept is None
    if (a.requires_grad or kept.tensor is not None) and (
        a is not kept.tensor or a._version != kept.version
    ):
        return False
    return _equal(a, kept.values)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is None and b is None
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _tensors(module: nn.Module) -> list[Tensor]:
    """What the module's output depends on besides its inputs."""
    tensors: list[Tensor] = [*module.parameters()]
    for child in module.modules():
        # in training, batch norm moves its statistics but never reads them
        if not (child.training and isinstance(child, _BatchNorm)):
            tensors += child.buffers(recurse=False)
    return tensors


def _values(module: nn.Module) -> Tensor | None:
    tensors = [t.detach().flatten() for t in _tensors(module)]
    return torch.cat(tensors) if tensors else None


def _state(module: nn.Module) -> tuple[object, ...]:
    """Modes, and which tensors the graph of a result leads to."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda"),
        torch.is_autocast_enabled("cpu"),
        tuple(child.training for child in module.modules()),
        tuple(
            (t.data_ptr(), t.dtype, t.requires_grad, 0 if t.is_inference() else t._version)
            for t in _tensors(module)
        ),
    )
