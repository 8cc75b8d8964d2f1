"""Temporal correlation of frames and of the noise behind them, under a trained model."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_afslvm.data import Dequantization
from pyro_afslvm.evaluation.bounds import batches, lengths_of, on_device
from pyro_afslvm.metrics import temporal_correlations
from pyro_afslvm.metrics.temporal import TemporalCorrelation
from pyro_afslvm.models.base import context_length, flow_of, seen_by_flow
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.utils.distributed import ALONE, Processes
from pyro_afslvm.utils.seeding import Stream, seed_step


class Correlations(NamedTuple):
    """Of the frames, and of the noise of a model with a flow."""

    x: TemporalCorrelation | None
    y: TemporalCorrelation | None


@torch.no_grad()
def frame_correlations(
    pair: Pair,
    data: Any,
    *,
    dequantization: Dequantization,
    scored_frames: int,
    seed: int = 0,
    stream: Stream = Stream.EVALUATION,
    processes: Processes = ALONE,
) -> Correlations:
    """Compute the temporal correlations of the scored frames and of the noise behind them.

    Args:
        pair: model and guide, set to evaluation mode here.
        data: sequences long enough for the model's context and the scored frames, with their
            covariates where the model takes any.
        dequantization: of the data.
        scored_frames: how many frames, the last of each sequence, count; of whole sequences all.
        seed: of the dequantization.
        stream: of its random numbers.
        processes: that share the work; the first alone has the result, the others ``None``.
    """
    pair.eval()
    device = next(pair.model.parameters()).device
    flow, context = flow_of(pair.model), context_length(pair.model)
    frames: dict[int, Tensor] = {}
    noise: dict[int, Tensor] = {}
    moving: dict[int, Tensor] = {}
    lengths: dict[int, Tensor] = {}
    for i, batch in batches(data, 25, processes):
        seed_step(seed, i, stream)
        given, known = on_device(batch, device)
        ended = lengths_of(batch, device)
        last = slice(context if ended is not None else -scored_frames, None)
        x, pixels = dequantization(given), given[:, last].cpu()
        frames[i] = x[:, last].cpu()
        moving[i] = pixels[:, 1:] != pixels[:, :-1]
        if ended is not None:
            lengths[i] = (ended - context).cpu()
        if flow is not None:
            seen = seen_by_flow(pair.model, known)
            y = flow.condition(history=x[:, :context], context=seen).inv(x[:, context:])
            noise[i] = y[:, -frames[i].shape[1] :].cpu()
    parts = [processes.collect(part, everywhere=False) for part in (frames, noise, moving, lengths)]
    of_x, of_y, changes, counted = (torch.cat(part) if part else None for part in parts)
    found = [
        None if of is None else temporal_correlations(of, counted, moving=changes)
        for of in (of_x, of_y)
    ]
    return Correlations(*found)


@torch.no_grad()
def correlations(
    pair: Pair,
    data: Any,
    *,
    dequantization: Dequantization,
    scored_frames: int,
    seed: int = 0,
    processes: Processes = ALONE,
) -> tuple[float | None, float | None]:
    """Compute the temporal correlation (Eq. 31) of the frames and of the noise behind them.

    Returns:
        corr x, and corr y or ``None`` for a model without a flow; ``None`` for both in all
        processes but the first, which alone takes the frames.
    """
    found = frame_correlations(
        pair,
        data,
        dequantization=dequantization,
        scored_frames=scored_frames,
        seed=seed,
        processes=processes,
    )
    of_x, of_y = (None if of is None else of.signed for of in found)
    return of_x, of_y
