"""What is measured of a model while it trains."""

import math
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from pyro_afslvm.data import Dequantization
from pyro_afslvm.data.sequences import parted
from pyro_afslvm.evaluation.correlation import frame_correlations
from pyro_afslvm.models.base import context_length, flow_of
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.utils.seeding import Stream, seed_step


class Watched(NamedTuple):
    """Sequences on which a training is watched; ``None`` where there are none."""

    held: DataLoader[Any] | None = None  # batches of the validation set
    training: Any = None  # some training sequences, the same at every validation


@torch.no_grad()
def validate(
    loss: BoundLoss,
    held: DataLoader[Any],
    *,
    dequantization: Dequantization,
    settings: TrainSettings,
    fabric: Fabric,
    autocast: AbstractContextManager[None],
) -> float:
    """Compute the bound on the last frames of the validation set, in nats per frame.

    For a model with latents that scores more frames than these it is the conditional figure of
    :func:`~pyro_afslvm.evaluation.bounds.likelihood`, no bound by itself.
    """
    loss.eval()
    metrics = []
    for i, batch in enumerate(held):
        seed_step(settings.seed, i, Stream.VALIDATION)  # the same at every validation
        with autocast:
            frames, known = parted(fabric.to_device(batch))
            x = dequantization(frames)
            terms = bound_terms(loss.model, loss.guide, x, context=known)
        metrics.append(terms.bound[..., -settings.scored_frames :].mean((0, 2)))
    loss.train()
    return float(torch.cat(metrics).mean())


def noise_correlation(
    loss: BoundLoss, training: Any, *, dequantization: Dequantization, settings: TrainSettings
) -> float:
    """Compute the temporal correlation (Eq. 31) of the noise behind some training sequences.

    NaN for a model without a flow, and for sequences of one scored frame.

    Source: Marino et al., Fig. 7.
    """
    flow = flow_of(loss.model)
    if training is None or flow is None:
        return math.nan
    skip = max(flow.context_length, context_length(loss.model))
    if len(parted(training[0])[0]) - skip < 2:
        return math.nan
    found = frame_correlations(
        Pair(loss.model, loss.guide),
        training,
        dequantization=dequantization,
        scored_frames=max(2, settings.scored_frames),
        seed=settings.seed,
        stream=Stream.VALIDATION,
    )
    loss.train()
    return math.nan if found.y is None else found.y.signed
