"""What the Pyro programs of this library share: registration, arguments, distributions."""

import itertools
import weakref
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_afslvm.transforms import ConditionedTemporalTransform

_numbers = itertools.count()
_names: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()


def register(module: nn.Module) -> None:
    """Show a module's parameters to Pyro, under a name no other module ever had.

    The param store keeps the first parameter that comes under a name: a second model under
    the name of the first, a copy, or a model whose parameters were replaced would be left
    untrained, without a word.
    """
    trained = {k: p for k, p in module.named_parameters() if p.requires_grad}
    store, name = pyro.get_param_store()._params, _names.get(module, "")
    if not name or any(store.get(f"{name}.{k}", p) is not p for k, p in trained.items()):
        name = _names[module] = f"{type(module).__name__}_{next(_numbers)}"
    for key, parameter in trained.items():
        _keep(f"{name}.{key}", parameter)
        pyro.param(f"{name}.{key}")


def _keep(name: str, parameter: nn.Parameter) -> None:
    """Put the parameter itself into the store, which would train a contiguous copy of it."""
    store = pyro.get_param_store()
    store._constraints[name] = dist.constraints.real
    store._params[name] = parameter
    store._param_to_name[parameter] = name


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
    check_frames(x, frame_shape)
    batch, total = x.shape[0], x.shape[1]
    if total <= context_length:
        raise ValueError(
            f"expected more than {context_length} frames, for so many are given as context "
            f"and not scored; got {total}"
        )
    history = x[:, :context_length] if context_length else None
    mask = None
    if lengths is not None:
        if lengths.shape != (batch,) or lengths.is_floating_point():
            raise ValueError(f"expected {batch} whole lengths, got {tuple(lengths.shape)}")
        if is_validation_enabled() and not bool(
            ((lengths > context_length) & (lengths <= total)).all()
        ):
            raise ValueError(
                f"lengths must lie in {context_length + 1}..{total}, got "
                f"{int(lengths.min())}..{int(lengths.max())}"
            )
        mask = torch.arange(context_length, total, device=x.device) < lengths[:, None]
    return Split(batch, history, x[:, context_length:], mask)


def check_frames(x: Tensor, frame_shape: tuple[int, ...]) -> None:
    """Refuse what is not a batch of sequences of such frames."""
    if x.ndim != 2 + len(frame_shape) or x.shape[2:] != frame_shape:
        expected = ", ".join(["batch", "time", *map(str, frame_shape)])
        raise ValueError(f"expected x of shape ({expected}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(
            f"expected frames as floating point numbers, got {x.dtype}: dequantize 0..255 "
            "pixels first, see pyro_afslvm.data.GaussianDequantization"
        )
    if not is_validation_enabled():
        return
    largest = float(x.detach().abs().max())  # NaN and Inf survive a maximum
    if not torch.isfinite(torch.tensor(largest)):
        raise ValueError("x holds NaN or Inf; expected finite values")
    if len(frame_shape) == 3 and largest > 16.0:
        raise ValueError(
            f"x reaches {largest:g}; expected pixels near [0, 1], not 0..255: dequantize "
            "first, see pyro_afslvm.data.GaussianDequantization"
        )


def check_horizon(x: Tensor | None, horizon: int) -> None:
    """Refuse a program with nothing to do."""
    if horizon < 0 or (x is None and horizon == 0):
        raise ValueError(f"expected horizon >= 1 without x, and >= 0 with it; got {horizon}")


def standard_normal(shape: tuple[int, ...], like: Tensor) -> dist.Distribution:
    """N(0, I) over events of this shape, where ``like`` lives."""
    zeros = like.new_zeros(()).expand(shape)
    return dist.Normal(zeros, torch.ones_like(zeros)).to_event(len(shape))


def across_time(
    base: dist.Distribution, transform: ConditionedTemporalTransform
) -> dist.Distribution:
    """The distribution of sequences whose noise is ``base``; padded frames count zero."""
    if transform.mask is not None:
        event = len(base.event_shape)
        inner = base.base_dist if isinstance(base, dist.Independent) else base
        mask = transform.mask.reshape(*transform.mask.shape, *[1] * (event - 1))
        base = inner.mask(mask).to_event(event)
    return dist.TransformedDistribution(base, [transform])

