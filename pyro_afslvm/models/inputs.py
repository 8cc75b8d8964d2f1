"""What comes in at the door of a public function: arrays and tensors, as the model takes them."""

from typing import Any

import torch
from torch import Tensor, nn

from pyro_afslvm.utils.arrays import as_tensor
from pyro_afslvm.utils.tracing import checks_values, is_traced, is_wrapped


def as_frames(x: Any, *programs: Any, lengths: Any = None) -> Tensor:
    """Bring frames to the precision and device of the programs that are to see them.

    Args:
        x: a tensor, an array, or an :class:`xarray.DataArray`. What is not of real numbers keeps
            its type: a model says itself whether it takes pixels.
        programs: model and guide; of those that are modules the first parameter counts.
        lengths: ``(batch,)``: frames of each sequence that count. NaN after them is padding, and
            becomes zero.
    """
    if is_traced():  # who traces a program says what it is given
        return torch.as_tensor(x)
    frames = as_tensor(x)
    like = next(_real_parameters(programs), None)
    if like is not None:
        frames = frames.to(like.device, like.dtype if frames.is_floating_point() else None)
    return without_padding(frames, as_lengths(lengths))


def without_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros where NaN pads sequences ``(batch, T, ...)`` that have ended."""
    if lengths is None or is_traced() or x.is_meta or is_wrapped(x) or x.ndim < 2:
        return x
    if lengths.shape != x.shape[:1] or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return x
    steps = torch.arange(x.shape[1], device=x.device)
    ended = steps >= lengths.to(x.device)[:, None]
    padding = x.isnan() & ended.reshape(*ended.shape, *[1] * (x.ndim - 2))
    return x.masked_fill(padding, 0.0) if padding.any() else x


def as_context(context: Any, model: Any, x: Tensor | None, horizon: int = 0) -> Tensor | None:
    """Bring covariates to a tensor ``(batch, T + horizon, features)`` of the model's precision.

    Args:
        context: covariates of every frame, those to come too; without a batch dimension they
            are the same for all sequences.
        model: says by its ``context_features`` how many there are, 0 for none.
        x: ``(batch, T, *frame_shape)``; ``None`` where a sequence begins.
        horizon: frames to come.

    Raises:
        ValueError: for a context where there is none to be, none where there is one, another
            shape, and values that are not finite.
    """
    features = int(getattr(model, "context_features", 0))
    if context is None and not features:
        return None
    if context is None:
        raise ValueError(f"expected a context of {features} covariates of every frame, got none")
    if not features:
        raise ValueError(
            "expected no context, for this model takes none: make it with context_features"
        )
    found = as_frames(context, model)
    batch, length = (1, horizon) if x is None else (len(x), x.shape[1] + horizon)
    found = found.expand(batch, -1, -1) if found.ndim == 2 else found
    if found.shape != (batch, length, features):
        raise ValueError(
            f"expected a context {(batch, length, features)}, of every sequence and frame, those "
            f"to come too; got {tuple(context.shape)}"
        )
    if checks_values(found) and not found.isfinite().all():
        raise ValueError("the context has values that are not finite")
    return found


def as_lengths(lengths: Any) -> Tensor | None:
    """Bring lengths to a tensor, if there are any."""
    if lengths is None or isinstance(lengths, Tensor):
        return lengths
    return as_tensor(lengths)


def as_weights(x: Tensor, network: nn.Module) -> Tensor:
    """Bring what a network is to see to the precision of its weights."""
    like = next(_real_parameters((network,)), None)
    return x if like is None else x.to(like.dtype)


def _real_parameters(programs: tuple[Any, ...]) -> Any:
    modules = [program for program in programs if isinstance(program, nn.Module)]
    return (p for module in modules for p in module.parameters() if p.is_floating_point())
