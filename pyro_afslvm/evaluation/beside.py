"""What simple models make of the frames that a model is scored on, to stand beside its figure."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from pyro_afslvm.data import Dequantization, SequenceDataset, SequenceSource, StoredSequences
from pyro_afslvm.data.sequences import parted, with_context
from pyro_afslvm.evaluation.baselines import baselines
from pyro_afslvm.metrics.beside import COPY

Sequences = list[tuple[Tensor, Tensor | None]]
MOST_TRAINING = 200  # crops that give the scale of copying
MOST_REGRESSORS = 200  # of a vector autoregression, which takes seconds then


def simple_models(
    source: SequenceSource, held: Any, *, dequantization: Dequantization, scored_frames: int
) -> dict[str, float]:
    r"""Score models in closed form on the last frames of some sequences.

    .. math:: x_t \sim N(x_{t-1}, \mathrm{diag}(s^2)), \qquad s_c^2 = E (x_t - x_{t-1})^2

    with one scale a channel from training sequences; beside it for series the random walks and
    vector autoregressions of :func:`~pyro_afslvm.evaluation.baselines.baselines`, on the same
    frames, given no more of the past than the model.

    Args:
        source: whose training sequences they are fitted to.
        held: sequences to score, with their covariates if there are any.
        dequantization: of the data.
        scored_frames: the last frames of each sequence.

    Returns:
        nats/dim in the units of results, by name; empty where sequences have no past, for binary
        pixels, and for entries that never change.
    """
    frames = len(parted(held[0])[0])
    if frames <= scored_frames or dequantization.name == "binary":
        return {}
    train = source.dataset("train", num_frames=frames)
    scored = [parted(held[k]) for k in range(len(held))]
    size = math.prod(source.frame_shape)
    if len(source.frame_shape) > 1 or size * (frames - scored_frames) > MOST_REGRESSORS:
        found = _copying(train, scored, dequantization, scored_frames)
    else:
        found = _classical(source, train, scored, frames - scored_frames)
    return {name: dequantization.to_nats(v) for name, v in found.items() if math.isfinite(v)}


def _copying(
    train: SequenceDataset, scored: Sequences, dequantization: Dequantization, last: int
) -> dict[str, float]:
    """Nats per dimension of a copy of the last frame, in the model's units."""
    generator = torch.Generator().manual_seed(0)

    def square(sequences: Any) -> Tensor:  # -> (channels,)
        total: list[Tensor] = []
        for frames in sequences:
            x = dequantization(frames, generator=generator).double()
            total.append(x.diff(dim=0)[-last:].square().flatten(2 if x.ndim > 2 else 1))
        means = torch.stack([part.mean((0, 2) if part.ndim > 2 else 0) for part in total])
        return means.mean(0)

    count = min(MOST_TRAINING, len(train))
    chosen = Subset(train, [k * len(train) // count for k in range(count)])
    variance = square(chosen[k] for k in range(count))
    if not bool((variance > 0).all()):
        return {}
    held = square(x for x, _ in scored)
    return {COPY: -0.5 * float(((2 * math.pi * variance).log() + held / variance).mean())}


def _classical(
    source: SequenceSource, train: SequenceDataset, scored: Sequences, skip: int
) -> dict[str, float]:
    """Nats per dimension of random walks and vector autoregressions; none of constant data."""
    whole = source.dataset("train", num_frames=1)
    crops = with_context(train)
    if isinstance(whole, StoredSequences):
        given = [*whole.whole()]
    else:
        given = [parted(crops[k]) for k in range(min(MOST_TRAINING, len(train)))]
    try:
        found = baselines(given, scored, skip=skip).by_name
    except (ValueError, RuntimeError):  # a covariance that is singular
        return {}
    return {COPY if name == "random walk, diagonal" else name: v for name, v in found.items()}
