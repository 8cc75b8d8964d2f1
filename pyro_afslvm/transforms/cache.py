"""Remember the last inverse of a transform while nothing it depends on has changed."""

import itertools
import weakref
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.optimizer import register_optimizer_step_post_hook

Result = TypeVar("Result", bound=tuple[Tensor, ...])

_steps = itertools.count(1)
_step = 0


def parameters_changed(*_: object) -> None:
    """Forget all results, for parameters were changed unseen, as by the replay of a CUDA graph."""
    global _step
    _step = next(_steps)


# fused optimizers change parameters without raising their version
register_optimizer_step_post_hook(parameters_changed)


class _Seen(NamedTuple):
    """A tensor as it was."""

    tensor: Tensor
    version: tuple[int, int]
    requires_grad: bool
    values: Tensor | None  # in main memory, where NumPy and ``.data`` may write unseen


class Memo(Generic[Result]):
    """The last result of a function of some tensors and a module's parameters.

    Guide and model both need :math:`y = f^{-1}(x)`; the second of them finds it here. A
    result is handed out only if the inputs and the module's parameters are what they were,
    no optimizer has stepped, and train/eval, grad, inference and autocast modes are the same.
    It is dropped as soon as a gradient flows back through it, for its graph is then spent.

    In main memory values are compared, for NumPy arrays and ``parameter.data`` can change them
    without a trace. On an accelerator that would wait for the device at every call; there
    a change through ``.data`` is not seen, and :meth:`clear` forgets.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the result."""
        self._inputs: tuple[_Seen | None, ...] = ()
        self._parameters: tuple[_Seen, ...] = ()
        self._outputs: tuple[_Seen, ...] = ()
        self._mode: object = None
        self._result: Result | None = None

    def find(self, module: nn.Module, inputs: Sequence[Tensor | None]) -> Result | None:
        """Return the remembered result if it is that of these inputs, else ``None``."""
        if self._result is None or len(inputs) != len(self._inputs) or _is_tracing():
            return None
        if self._mode != _mode(module) or any(a is not None and _is_opaque(a) for a in inputs):
            return None
        if not all(_same(a, b) for a, b in zip(inputs, self._inputs, strict=True)):
            return None
        tensors = _tensors(module)
        if len(tensors) != len(self._parameters):
            return None
        kept = zip(tensors, self._parameters, strict=True)
        if not all(a is b.tensor and _unchanged(a, b) for a, b in kept):
            return None
        intact = all(_unchanged(b.tensor, b) for b in self._outputs)  # who asked first may write
        return self._result if intact else None

    def keep(self, module: nn.Module, inputs: Sequence[Tensor | None], result: Result) -> None:
        """Remember a result until something it depends on changes."""
        self.clear()
        if _is_tracing():
            return
        tensors = _tensors(module)
        if any(a is not None and _is_opaque(a) for a in (*inputs, *tensors, *result)):
            return
        self._inputs = tuple(None if a is None else _see(a) for a in inputs)
        self._parameters = tuple(_see(a) for a in tensors)
        self._outputs = tuple(_see(a) for a in result)
        self._mode = _mode(module)
        self._result = result
        memo = weakref.ref(self)
        for tensor in result:
            if tensor.requires_grad:
                tensor.register_hook(lambda _: _clear(memo))

    def __deepcopy__(self, _: dict[int, Any]) -> "Memo[Result]":
        return Memo()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Memo, ()


def _is_tracing() -> bool:
    """Whether the TorchScript tracer watches, to which a remembered tensor is a constant."""
    return torch._C._get_tracing_state() is not None


def _clear(memo: "weakref.ref[Any]") -> None:
    if (alive := memo()) is not None:
        alive.clear()


def _is_opaque(a: Tensor) -> bool:
    """Whether a change could not be seen: no version, and too far away to compare.

    So it is with the wrappers of ``torch.func``, which have no content of their own, and with
    dual numbers, whose tangent a comparison of values would miss.
    """
    if a.is_inference() and a.device.type != "cpu":
        return True
    try:
        a.data_ptr()
    except RuntimeError:
        return True
    return unpack_dual(a).tangent is not None


def _see(a: Tensor) -> _Seen:
    values = a.detach().clone() if a.device.type == "cpu" else None
    return _Seen(a, _version(a), a.requires_grad, values)


def _same(a: Tensor | None, kept: _Seen | None) -> bool:
    """The same tensor; or, where no gradient is to reach it, one with the same content."""
    if a is None or kept is None:
        return a is None and kept is None
    b = kept.tensor
    if a is b:
        return a.requires_grad == kept.requires_grad and _unchanged(a, kept)
    if a.requires_grad or b.requires_grad or kept.requires_grad:
        return False
    if a.dtype != b.dtype or a.device != b.device:
        return False
    if kept.values is not None:
        return torch.equal(a, kept.values)
    is_view = _version(a) == kept.version and a.shape == b.shape and a.stride() == b.stride()
    return is_view and not a.is_inference()


def _unchanged(a: Tensor, kept: _Seen) -> bool:
    if _version(a) != kept.version or _is_opaque(a):
        return False
    if kept.values is None:
        return a.device.type != "cpu"
    return a.dtype == kept.values.dtype and torch.equal(a, kept.values)


def _mode(module: nn.Module) -> tuple[object, ...]:
    return (
        _step,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *((torch.is_autocast_enabled(on), torch.get_autocast_dtype(on)) for on in ("cpu", "cuda")),
        tuple(child.training for child in module.modules()),
        tuple(p.requires_grad for p in module.parameters()),
    )


def _tensors(module: nn.Module) -> list[Tensor]:
    """What the module's output depends on besides its inputs."""
    tensors: list[Tensor] = [*module.parameters()]
    for child in module.modules():
        # in training, batch norm moves its statistics but never reads them
        if not (child.training and isinstance(child, _BatchNorm)):
            tensors += child.buffers(recurse=False)
    return tensors


def _version(tensor: Tensor) -> tuple[int, int]:
    # assigning ``.data`` leaves the version as it is, and moves the memory
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
