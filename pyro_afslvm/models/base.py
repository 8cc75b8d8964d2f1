"""What the Pyro programs of this library share: registration and arguments."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.models.checks import check_lengths, check_padding, check_shape, check_values
from pyro_afslvm.transforms import TemporalHierarchy, TemporalTransform


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


class Simulated(NamedTuple):
    """Frames and, where there are any, latents: of one step, or of all."""

    x: Tensor  # (*batch, [T,] *frame_shape)
    z: Tensor | None  # (*batch, [T,] latent_size)


def simulate(model: Any, noise: Tensor, state: Any) -> Simulated:
    """Frames (and latents) that follow a state, at a cost per frame that does not grow.

    Args:
        model: a model with :meth:`FlowModel.step`.
        noise: ``(*batch, horizon, noise_size)``, N(0, I) for samples of the model.
        state: from :meth:`FlowModel.initial_state`.
    """
    steps = []
    for entry in noise.unbind(-2):
        frame, state = model.step(entry, state)
        steps.append(frame)
    x = torch.stack([step.x for step in steps], noise.ndim - 2)
    if steps[0].z is None:
        return Simulated(x, None)
    return Simulated(x, torch.stack([step.z for step in steps], -2))


def check_flow(flow: TemporalTransform, frame_shape: tuple[int, ...]) -> None:
    """Refuse a flow of frames of another rank, and a hierarchy, which is for latents."""
    if any(isinstance(part, TemporalHierarchy) for part in flow.modules()):
        raise ValueError("a hierarchy is for latents: expected a flow of whole frames")
    if flow.frame_dims != len(frame_shape):
        raise ValueError(
            f"the flow is of frames with {flow.frame_dims} dimensions, frame_shape is "
            f"{tuple(frame_shape)}"
        )


def check_context(flow: TemporalTransform | None, context_length: int | None) -> int:
    """Frames that are given: so many, or as few as the flow needs; refuse fewer."""
    needed = 0 if flow is None else flow.context_length
    if context_length is not None and context_length < needed:
        raise ValueError(
            f"expected a context of at least {needed} frames for this flow, got {context_length}"
        )
    return needed if context_length is None else context_length


def context_length(model: nn.Module) -> int:
    """Frames the model is given and does not score."""
    return int(getattr(model, "context_length", 0))
