"""What the Pyro programs of this library share: registration and arguments."""

import itertools
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

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


@contextmanager
def evaluating(*programs: Any) -> Iterator[None]:
    """Evaluation mode, so that nothing that is learned moves; afterwards as it was."""
    modules = [m for p in programs if isinstance(p, nn.Module) for m in p.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Cut off the table of shapes that Pyro appends to an error inside of a program."""
    try:
        yield
    except ValueError as error:
        reason, *table = str(error).split("\n")
        if not table:
            raise
        raise ValueError(reason) from None


def no_guide(*_: Any, **__: Any) -> None:
    """The guide of a model without latents."""


class Split(NamedTuple):
    """A batch of sequences: frames given, and frames to be scored."""

    batch: int
    history: Tensor | None
    values: Tensor
    mask: Tensor | None  # (batch, T), true where a frame counts; None where all do


def split(
    x: Tensor, *, frame_shape: tuple[int, ...], context_length: int, lengths: Tensor | None
) -> Split:
    """Check ``x`` and split off the frames that are given.

    Raises:
        ValueError: for another shape, too few frames, lengths out of range, values that are
            not finite or, for video, not in the units of the model.
    """
    check_shape(x, frame_shape)
    batch, total = x.shape[0], x.shape[1]
    if total <= context_length:
        raise ValueError(
            f"expected more than {context_length} frames, for so many are given as context "
            f"and not scored; got {total}"
        )
    check_values(x, frame_shape)
    history = x[:, :context_length] if context_length else None
    mask = None
    if lengths is not None:
        lengths = torch.as_tensor(lengths, device=x.device)
        check_lengths(lengths, batch, context_length + 1, total)
        mask = torch.arange(context_length, total, device=x.device) < lengths[:, None]
        check_padding(x[:, context_length:], mask)
    return Split(batch, history, x[:, context_length:], mask)


def batch_size(x: Tensor | None, frame_shape: tuple[int, ...]) -> int:
    """Number of sequences; one where they are sampled from nothing."""
    if x is None:
        return 1
    check_shape(x, frame_shape)
    return x.shape[0]


def check_shape(x: Tensor, frame_shape: tuple[int, ...]) -> None:
    """Refuse what is not a batch of sequences of such frames."""
    if x.ndim != 2 + len(frame_shape) or x.shape[2:] != frame_shape:
        expected = ", ".join(["batch", "time", *map(str, frame_shape)])
        raise ValueError(f"expected x of shape ({expected}), got {tuple(x.shape)}")
    if not x.shape[0]:
        raise ValueError(f"expected at least 1 sequence, got x of shape {tuple(x.shape)}")


def check_values(x: Tensor, frame_shape: tuple[int, ...]) -> None:
    """Refuse frames that are not finite or, for video, not in the units of the model."""
    if not x.is_floating_point():
        raise ValueError(
            f"expected frames as floating point numbers, got {x.dtype}: dequantize 0..255 "
            "pixels first, see pyro_afslvm.data.GaussianDequantization"
        )
    if not is_validation_enabled():
        return
    largest = float(x.detach().abs().max())  # NaN and Inf survive a maximum
    if not math.isfinite(largest):
        raise ValueError("x holds NaN or Inf; expected finite values")
    if len(frame_shape) == 3 and largest > 16.0:
        raise ValueError(
            f"x reaches {largest:g}; expected pixels near [0, 1], not 0..255: dequantize 8-bit "
            "ones, see pyro_afslvm.data.GaussianDequantization, and standardize others"
        )


def check_padding(values: Tensor, mask: Tensor) -> None:
    """Refuse padding so large that its gradient, which is multiplied by zero, is infinite."""
    if not is_validation_enabled():
        return
    outside = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
    largest = float(values.detach().masked_fill(outside, 0.0).abs().max())
    if largest > 1e6:
        raise ValueError(f"padding reaches {largest:g}: fill it with zeros")


def check_lengths(lengths: Tensor, batch: int, shortest: int, longest: int) -> None:
    """Refuse lengths that are not one whole number in range for every sequence."""
    kind = lengths.dtype
    if lengths.shape != (batch,) or kind.is_floating_point or kind == torch.bool:
        raise ValueError(f"expected {batch} whole lengths, got {tuple(lengths.shape)} of {kind}")
    if not is_validation_enabled():
        return
    low, high = int(lengths.min()), int(lengths.max())
    if low < shortest or high > longest:
        raise ValueError(f"lengths must lie in {shortest}..{longest}, got {low}..{high}")


def check_horizon(x: Tensor | None, horizon: int, lengths: Tensor | None) -> None:
    """Refuse a program with nothing to do, and a future that would follow padding."""
    if horizon < 0 or (x is None and horizon == 0):
        raise ValueError(f"expected horizon >= 1 without x, and >= 0 with it; got {horizon}")
    if horizon and lengths is not None:
        raise ValueError(
            "expected no lengths with a horizon, for the future would follow the padding; "
            "forecast sequences of one length together"
        )


def check_latents(z: Tensor, steps: int, latent_size: int) -> None:
    """Refuse latents from a guide that was made for another model."""
    if z.shape[-2:] != (steps, latent_size):
        raise ValueError(
            f"expected z of shape (..., {steps}, {latent_size}), got {tuple(z.shape)}: the "
            "guide was made for another model"
        )
