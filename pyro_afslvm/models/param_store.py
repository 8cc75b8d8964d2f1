"""Registration of a module's parameters in Pyro's param store.

A module stands in the store under its class and a digest of its parameters' names and shapes,
such as ``SLVM_1f0c9a27``, whatever else was made before it. So a store, and the state of a
Pyro optimizer, that one process saved are right for another:

>>> import pyro, torch
>>> from pyro_afslvm import FlowModel, MLPConditioner, TemporalAffine
>>> def make():
...     return FlowModel(TemporalAffine(MLPConditioner(2, window=3)), (2,))
>>> x, trained, store = torch.randn(5, 13, 2), make(), pyro.get_param_store()
>>> trained(x)  # a run shows its parameters to the store; training does, too
>>> expected = trained.log_prob(x)
>>> state = store.get_state()  # or store.save(file), and store.load(file) elsewhere
>>> del trained
>>> store.set_state(state)
>>> bool((make().log_prob(x) == expected).all())
True

What a store was loaded with is copied into the parameters, once, before the module next runs.
If it does not fit, running the module raises a ``ValueError``. Load the store before a
``PyroOptim``, whose states are looked up by the names of the first step.

While a module is alive, others of its class and shape have its name and digits that no other
process gives. A store with several of them is refused elsewhere, for which is which cannot be
told; and so a ``PyroOptim`` should not be saved for them.

``state_dict`` remains the better way to save a model: a store has no buffers, such as the
statistics of batch norm.
"""

import gc
import hashlib
import re
import secrets
import warnings
import weakref

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.utils.tracing import is_traced


class _Entry:
    """The name of a living module, and what it has put into the store."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.put: dict[str, weakref.ref[nn.Parameter]] = {}
        self.size = 0  # of the store when this module last looked at it

    def owns(self, key: str) -> bool:
        """Whether what the store has there was put there by this module."""
        put = self.put.get(key)
        return put is not None and key in _params() and put() is _params()[key]

    @property
    def is_in_store(self) -> bool:
        """Whether the store has something of this name."""
        return any(key.startswith(f"{self.name}.") for key in _params())

    @property
    def is_up_to_date(self) -> bool:
        """Whether the store is as this module last saw it, as it is at every step but the first."""
        params = _params()
        return len(params) == self.size and all(
            params.get(key) is put() for key, put in self.put.items()
        )


class _Unconstrained:
    """What Pyro leaves on a parameter, a weak reference to itself, that can be pickled with it."""

    def __init__(self, parameter: nn.Parameter | None = None) -> None:
        self._parameter = None if parameter is None else weakref.ref(parameter)

    def __call__(self) -> nn.Parameter | None:
        return None if self._parameter is None else self._parameter()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Unconstrained, ()  # Pyro sets it anew when the parameter is next used


_entries: "weakref.WeakKeyDictionary[nn.Module, _Entry]" = weakref.WeakKeyDictionary()
_living: dict[str, _Entry] = {}


def register(module: nn.Module) -> None:
    """Show a module's parameters to Pyro, under a name that no other living module has.

    Of two models of one name the param store would train the first only, without a word; a
    copy, or a model whose parameters were replaced, likewise.

    Raises:
        ValueError: as :func:`restore` does.
    """
    restore(module)
    entry = _entries.get(module) or _enter(module, _unused(_name(module)))
    params = _params()
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            name = f"{entry.name}.{key}"
            if params.get(name) is not parameter:
                _put(entry, name, parameter)
            pyro.param(name)
            parameter.unconstrained = _Unconstrained(parameter)  # type: ignore[attr-defined]
    entry.size = len(params)


@torch.no_grad()
def restore(module: nn.Module) -> None:
    """Copy what the param store was loaded with into a module's parameters, in place.

    Raises:
        ValueError: if it was loaded for modules of this class, but not for this one, or if
            which of several is for this one cannot be told.
    """
    if is_traced():  # what is loaded belongs to a run, not to its graph
        return
    entry = _entries.get(module)
    if entry is not None and entry.is_up_to_date:
        return
    loaded = _loaded(type(module).__name__)
    if loaded:
        entry = _claim(module, loaded)
        for key, parameter in module.named_parameters():
            name = f"{entry.name}.{key}"
            if name in _params() and not entry.owns(name):
                _copy(name, parameter)
                _put(entry, name, parameter)
    if entry is not None:
        entry.size = len(_params())


def _claim(module: nn.Module, loaded: list[str]) -> _Entry:
    """The entry of a module, given the names of its class that the store was loaded for."""
    entry, name = _entries.get(module), _name(module)
    fitting = [other for other in loaded if other.startswith(name)]
    if all(other in _living for other in fitting):
        gc.collect()  # a module in a circle of references only seems to be alive
    waiting = [other for other in fitting if other not in _living]
    if waiting and len(fitting) > 1:
        raise ValueError(
            f"the param store was loaded with {' and '.join(fitting)}, and which of them is "
            "which model cannot be told: load state_dicts instead"
        )
    if entry is not None and entry.is_in_store:
        if entry.name not in loaded:
            _warn(name, loaded)
        return entry
    if not waiting:
        raise ValueError(
            f"the param store was loaded with {' and '.join(loaded)}, which is not this {name} "
            "but of other sizes, of an older version, or of another module that is alive and "
            "has to run first: load a state_dict, or clear the store"
        )
    return _enter(module, waiting[0])


def _warn(name: str, loaded: list[str]) -> None:
    if others := [other for other in loaded if other not in _living]:
        warnings.warn(
            f"the param store was loaded with {' and '.join(others)}, which is not {name}",
            stacklevel=4,
        )


def _loaded(kind: str) -> list[str]:
    """Names of modules of a class for which the store has what none of them put there."""
    pattern = re.compile(rf"{re.escape(kind)}_([0-9a-f]{{8}}(_[0-9a-f]{{6}})?|\d+)")
    names: dict[str, None] = {}
    for key in _params():
        name = key.partition(".")[0]
        if name not in names and pattern.fullmatch(name):
            entry = _living.get(name)
            if entry is None or not entry.owns(key):
                names[name] = None
    return list(names)


def _name(module: nn.Module) -> str:
    """The class, and a digest of the parameters' names and shapes."""
    shapes = sorted((key, tuple(p.shape)) for key, p in module.named_parameters())
    digest = hashlib.sha256(repr(shapes).encode()).hexdigest()[:8]
    return f"{type(module).__name__}_{digest}"


def _unused(name: str) -> str:
    """This name, or another where a module that is alive has it."""
    if name in _living:
        gc.collect()  # one in a circle of references only seems to be
    return name if name not in _living else f"{name}_{secrets.token_hex(3)}"


def _enter(module: nn.Module, name: str) -> _Entry:
    """Give a module a name, until it is gone or gets another."""
    if module in _entries:
        del _living[_entries[module].name]
    entry = _entries[module] = _living[name] = _Entry(name)
    weakref.finalize(module, _forget, entry).atexit = False
    return entry


def _params() -> dict[str, Tensor]:
    return pyro.get_param_store()._params


def _copy(name: str, parameter: nn.Parameter) -> None:
    loaded = _params()[name]
    if loaded.shape != parameter.shape:
        raise ValueError(
            f"expected {name} of shape {tuple(parameter.shape)} in the param store that was "
            f"loaded, got {tuple(loaded.shape)}"
        )
    parameter.copy_(loaded)


def _put(entry: _Entry, key: str, parameter: nn.Parameter) -> None:
    """Put this very tensor into the store, which keeps what came first, or a contiguous copy."""
    store = pyro.get_param_store()
    if key in store:
        _drop(key)
    store._constraints[key] = dist.constraints.real
    store._params[key] = parameter
    # of a network that is shared the first in the alphabet, in every process
    store._param_to_name[parameter] = min(key, store._param_to_name.get(parameter, key))
    entry.put[key] = weakref.ref(parameter)


def _forget(entry: _Entry) -> None:
    """Let go of the parameters of a module that is gone."""
    if _living.get(entry.name) is entry:
        del _living[entry.name]
    for key in filter(entry.owns, list(entry.put)):
        _drop(key)


def _drop(key: str) -> None:
    """Delete a name; its parameter may go on under another, of a network that is shared."""
    store = pyro.get_param_store()
    parameter = store._params.pop(key)
    store._constraints.pop(key, None)
    if store._param_to_name.get(parameter) == key:
        del store._param_to_name[parameter]
        if others := [other for other, p in store._params.items() if p is parameter]:
            store._param_to_name[parameter] = min(others)
