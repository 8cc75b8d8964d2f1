"""A module's parameters in Pyro's param store."""

import itertools
import weakref

import pyro
import pyro.distributions as dist
from torch import nn

_numbers = itertools.count()
_names: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()


def register(module: nn.Module) -> None:
    """Show a module's parameters to Pyro, under a name no other module ever had.

    Of two models of one name the param store would train the first only, without a word; a
    copy, or a model whose parameters were replaced, likewise.
    """
    name = _names.get(module)
    if name is None:
        name = _names[module] = f"{type(module).__name__}_{next(_numbers)}"
        weakref.finalize(module, _forget, name).atexit = False
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            _keep(f"{name}.{key}", parameter)
            pyro.param(f"{name}.{key}")


def _keep(name: str, parameter: nn.Parameter) -> None:
    """Put this very tensor into the store, which keeps what came first, or a contiguous copy."""
    store = pyro.get_param_store()
    if store._params.get(name) is not parameter:
        if name in store:
            _drop(name)
        store._constraints[name] = dist.constraints.real
        store._params[name] = parameter
        store._param_to_name[parameter] = name


def _forget(name: str) -> None:
    """Let go of the parameters of a module that is gone."""
    for key in [key for key in pyro.get_param_store()._params if key.startswith(f"{name}.")]:
        _drop(key)


def _drop(key: str) -> None:
    """Delete a name; its parameter may go on under another, of a network that is shared."""
    store = pyro.get_param_store()
    parameter = store._params.pop(key)
    store._constraints.pop(key, None)
    if store._param_to_name.get(parameter) == key:
        del store._param_to_name[parameter]
