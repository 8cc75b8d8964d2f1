"""The last inverse of a transform, kept while nothing that it depends on has changed."""

import copy
import itertools
import weakref
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.optim.optimizer import register_optimizer_step_post_hook

from pyro_afslvm.transforms.steps import Inverse
from pyro_afslvm.utils.tracing import is_traced

Found = TypeVar("Found", bound=tuple[Tensor, ...])
_State = tuple[int, int, bool]
_ITS_OWN = {
    "_cache",
    "_inv",
    "_knows_source",
}  # attributes of a transform on which no inverse depends
_steps = itertools.count(1)
_step = 0


def parameters_changed(*_: object) -> None:
    """Forget all inverses, for parameters were changed unseen, as by the replay of a CUDA graph."""
    global _step
    _step = next(_steps)


# fused optimizers change parameters without raising their version
register_optimizer_step_post_hook(parameters_changed)


class Snapshot:
    """Some tensors, some modules and the modes of torch as they are now.

    A tensor is the same as long as it is the same object, or another view of the same part of
    the same storage that needs no gradient, and torch has counted no change in place. A module
    is, as long as its attributes, hooks and submodules are the same objects, and its parameters
    and buffers the same in this sense.

    A change through ``.data`` or NumPy is not counted, and is not seen.
    """

    def __init__(self, tensors: Sequence[Tensor | None], attributes: Sequence[object]) -> None:
        self._tensors = tuple(None if a is None else _Seen(a, _state(a)) for a in tensors)
        self._mode = _mode(tensors)
        self._attributes = attributes
        self._states = _states(attributes)

    @property
    def first(self) -> Tensor | None:
        """The first of the tensors."""
        return None if self._tensors[0] is None else self._tensors[0].tensor

    @classmethod
    def of(
        cls, modules: Sequence[nn.Module], tensors: Sequence[Tensor | None]
    ) -> "Snapshot | None":
        """Take a snapshot; ``None`` where a change could not be told."""
        if is_traced() or any(map(_is_opaque, tensors)) or _is_random(modules):
            return None
        snapshot = cls(tensors, _attributes(modules))
        return None if None in snapshot._states else snapshot

    def holds(self, modules: Sequence[nn.Module], tensors: Sequence[Tensor | None]) -> bool:
        """Tell whether modules and tensors are still those of the snapshot."""
        return (
            len(tensors) == len(self._tensors)
            and all(map(_is_same, tensors, self._tensors))
            and self._mode == _mode(tensors)
            and not is_traced()
            and not any(map(_is_opaque, tensors))
            and len(attributes := _attributes(modules)) == len(self._attributes)
            and all(map(is_, attributes, self._attributes))
            and self._states == _states(attributes)
        )


class Cache(Generic[Found]):
    """What modules last made of some tensors, such as the inverse of a transform.

    Guide and model both need :math:`y = f^{-1}(x)`; the second of them finds it here. It is
    handed out while the inputs and the modules are what they were (see :class:`Snapshot`), no
    optimizer has stepped, and grad and autocast modes are the same. It is dropped as soon as a
    gradient flows back through it, for its graph is then spent.

    Nothing is kept where this cannot be told: of tensors made in inference mode, where torch
    counts no changes; within ``torch.func``, forward-mode differentiation and tracing; and of
    networks that draw random numbers, such as dropout in training.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what was kept."""
        self._kept: _Kept[Found] | None = None

    def find(self, modules: Sequence[nn.Module], inputs: Sequence[Tensor | None]) -> Found | None:
        """Return what was kept if it is of these inputs, else ``None``."""
        kept = self._kept
        if kept is None or is_traced() or not kept.given.holds(modules, inputs):
            return None
        intact = all(map(_is_same, kept.value, kept.found))  # who asked first may write to it
        return kept.value if intact else None

    def source(
        self, modules: Sequence[nn.Module], value: Tensor, others: Sequence[Tensor | None]
    ) -> Tensor | None:
        """Return the first input of what was kept if its first tensor is this one, else ``None``.

        Args:
            modules: what it was computed by.
            value: what it became.
            others: the other inputs.
        """
        kept = self._kept
        if kept is None or is_traced() or kept.value[0] is not value:
            return None
        x = kept.given.first
        alike = x is not None and x.shape == value.shape
        return x if alike and self.find(modules, (x, *others)) is not None else None

    def keep(
        self,
        modules: Sequence[nn.Module],
        inputs: Sequence[Tensor | None],
        value: Found,
        *,
        drawn: tuple[bytes, ...],
    ) -> None:
        """Keep a value until something that it depends on changes.

        Args:
            modules: what it was computed by.
            inputs: what it was computed from.
            value: the tensors.
            drawn: :func:`random_state` before the computation.
        """
        if is_traced():  # a graph has no memory
            return
        self.clear()
        if any(map(_is_opaque, value)) or random_state(value[0]) != drawn:
            return
        given = Snapshot.of(modules, inputs)
        if given is None:
            return
        self._kept = _Kept(given, tuple(_Seen(a, _state(a)) for a in value), value)
        cache = weakref.ref(self)
        for tensor in value:
            if tensor.requires_grad and not tensor.is_leaf:  # which outlives its graph
                tensor.register_hook(lambda _: _clear(cache))

    def __deepcopy__(self, _: dict[int, Any]) -> "Cache[Found]":
        return Cache()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Cache, ()


class WithCache:
    """What torch's transforms promise of a cache, by one that sees changed parameters.

    ``t.inv(t(y))`` is ``y`` itself at any size, and costs nothing. At size 1 ``t(t.inv(x))`` is
    ``x`` itself too, which has no derivative with respect to its noise; at size 0 it is
    computed. Both hold while nothing that the result depends on changes; see :class:`Cache`.
    """

    _inv: Any
    _knows_source = False

    def with_cache(self, cache_size: int = 1) -> Self:
        """Return this transform with a cache of that size; it shares the parameters.

        Raises:
            ValueError: for a size that is neither 0 nor 1.
        """
        if cache_size not in (0, 1):
            raise ValueError(f"cache_size must be 0 or 1, got {cache_size}")
        if self._knows_source == bool(cache_size):
            return self
        twin = copy.copy(self)
        twin._inv = None  # that is the inverse of this one
        twin._knows_source = bool(cache_size)
        return twin


class CachedTransform(WithCache, TransformModule):
    """A transform with parameters, which remembers its last inverse."""

    bijective = True
    sign = +1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache: Cache[Inverse] = Cache()

    def clear_cache(self) -> None:
        """Forget the last inverse, of this transform and of those within it.

        It is only needed after a change that torch does not count: through ``.data`` or NumPy.
        """
        for module in self.modules():
            if isinstance(module, CachedTransform):
                module._cache.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CachedTransform":
        self._cache.clear()  # .to(), .double() and the like assign to .data
        applied: CachedTransform = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return applied

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)


def random_state(x: Tensor) -> tuple[bytes, ...]:
    """The state of the random numbers of the processor, and of the device of x."""
    if is_traced() or _state(x) is None:
        return ()
    states = [torch.get_rng_state()]
    if x.is_cuda and not torch.cuda.is_current_stream_capturing():
        states.append(torch.cuda.get_rng_state(x.device))
    return tuple(state.numpy().tobytes() for state in states)


class _Seen(NamedTuple):
    """A tensor, and its state when it was seen."""

    tensor: Tensor
    state: _State | None


class _Kept(NamedTuple, Generic[Found]):
    """A value as it was found, and what it was computed from."""

    given: Snapshot
    found: tuple[_Seen, ...]
    value: Found


def _state(a: Tensor) -> _State | None:
    """Read a tensor's address, its count of changes, and whether it takes a gradient.

    ``None`` where torch has no answer: for what is made in inference mode, the wrappers of
    ``torch.func``, and parameters that are not there yet.
    """
    try:
        return a.data_ptr(), a._version, a.requires_grad
    except (RuntimeError, ValueError):
        return None


def _is_same(a: Tensor | None, seen: _Seen | None) -> bool:
    if a is None or seen is None:
        return a is None and seen is None
    return _state(a) == seen.state and (a is seen.tensor or _is_same_view(a, seen.tensor))


def _is_same_view(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors are one part of one storage, and no gradient sets them apart."""
    return (
        not (a.requires_grad or b.requires_grad)
        and a.storage_offset() == b.storage_offset()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
        and a.untyped_storage()._cdata == b.untyped_storage()._cdata
    )


def _attributes(modules: Sequence[nn.Module]) -> list[object]:
    """List all attributes of modules and of those within them, with the entries of dictionaries."""
    found: list[object] = []
    waiting = [*modules]
    while waiting:
        child = waiting.pop()
        waiting += [grandchild for grandchild in child._modules.values() if grandchild is not None]
        attributes = vars(child)
        if isinstance(child, CachedTransform):
            attributes = {k: v for k, v in attributes.items() if k not in _ITS_OWN}
        elif isinstance(child, torch.jit.ScriptModule):
            found += [*child.parameters(), *child.buffers()]
        for value in attributes.values():
            if isinstance(value, dict):
                if value:  # most are empty, and this runs at every evaluation of a bound
                    found += value.values()
            else:
                found.append(value)
    return found


def _states(attributes: Sequence[object]) -> list[_State | None]:
    return [_state(a) for a in attributes if isinstance(a, Tensor)]


def _mode(tensors: Sequence[Tensor | None]) -> tuple[object, ...]:
    kinds = {a.device.type for a in tensors if a is not None}
    autocast = [
        (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        for kind in sorted(kinds)
        if torch.amp.is_autocast_available(kind)
    ]
    return _step, torch.is_grad_enabled(), autocast


def _is_random(modules: Sequence[nn.Module]) -> bool:
    """Tell whether weights are drawn anew at each run, as Pyro's ``PyroSample`` are."""
    return any(getattr(m, "_pyro_samples", None) for module in modules for m in module.modules())


def _is_opaque(a: Tensor | None) -> bool:
    """Tell whether a tensor's changes go uncounted, or it has a tangent of its own."""
    return a is not None and (_state(a) is None or unpack_dual(a).tangent is not None)


def _clear(cache: "weakref.ref[Cache[Any]]") -> None:
    if (alive := cache()) is not None:
        alive.clear()
