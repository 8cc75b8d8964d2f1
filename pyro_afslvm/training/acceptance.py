"""What a :func:`~pyro_afslvm.fit` refuses before its first step, and what it warns of."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from pyro_afslvm.models.base import SequenceBatch, SequenceModel, context_length
from pyro_afslvm.models.programs import evaluating, one_line_errors
from pyro_afslvm.objectives.importance import random_sites


def check_data(model: nn.Module, data: Tensor, lengths: Tensor | None) -> None:
    """Refuse bad data at once and not when their turn comes."""
    # a user's own program says nothing of its frames
    shape = model.frame_shape if isinstance(model, SequenceModel) else tuple(data.shape[2:])
    skip = context_length(model)
    if lengths is not None and lengths.shape != (len(data),):
        raise ValueError(f"expected {len(data)} lengths, got {tuple(lengths.shape)}")
    for rows in torch.arange(len(data)).split(64):
        some = None if lengths is None else lengths[rows]
        SequenceBatch.of(data[rows], frame_shape=shape, context_length=skip, lengths=some)


def warn_of_values(model: nn.Module, data: Tensor) -> None:
    """Say where a density has no upper bound: on a constant, and on 8-bit pixels without noise."""
    # what a user's own program does with its frames is not known
    if not getattr(model, "has_density", False):
        return
    some = data[:64]
    if (some == some.flatten()[0]).all():
        warnings.warn("the data are constant: their density has no upper bound", stacklevel=3)
    elif data.ndim == 5 and ((255 * some).round() - 255 * some).abs().max() < 1e-3:
        warnings.warn(
            "the data are whole 255ths, 8-bit pixels without noise: their density has no upper "
            "bound; dequantize them, see pyro_afslvm.data.GaussianDequantization",
            stacklevel=3,
        )


@torch.no_grad()
def check_amortized(
    model: nn.Module,
    guide: Callable[..., Any],
    x: Tensor,
    lengths: Tensor | None,
    context: Tensor | None,
) -> None:
    """Refuse a guide that cannot do with other sequences than those it has seen.

    It is run on a batch and then on part of one: parameters of single sequences do not fit.
    """
    given_too = zip(("lengths", "covariates"), (lengths, context), strict=True)
    options = {name: value for name, value in given_too if value is not None}
    count = len(x)
    part = count - 1 if count > 1 else 2
    with torch.random.fork_rng(), evaluating(model, guide), one_line_errors():
        guide(x, **options)
        try:
            rows = torch.arange(part, device=x.device) % count
            some = {name: value[rows] for name, value in options.items()}
            trace = poutine.trace(guide).get_trace(x[rows], **some)
            latents = random_sites(trace).values()
            sizes = {
                plate.size
                for site in latents
                for plate in site["cond_indep_stack"]
                if plate.dim == -1
            }
            fits = sizes <= {part}
        except (RuntimeError, ValueError):
            fits = False
    if not fits:
        raise ValueError(
            "the guide has latents of its own for each sequence, and batches of some of them "
            "would mix these up: pass `batch_size=len(data)`, or take a guide that sees the "
            "sequences, such as FilteringGuide"
        )
