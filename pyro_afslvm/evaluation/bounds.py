"""The likelihood of sequences under a trained model, sequence by sequence."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from pyro_afslvm.data import Dequantization, check_ceiling
from pyro_afslvm.data.ragged import Ragged, WholeSequences
from pyro_afslvm.data.sequences import parted
from pyro_afslvm.metrics import estimate
from pyro_afslvm.metrics.uncertainty import Estimate
from pyro_afslvm.models.base import context_length
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.utils.distributed import ALONE, Processes
from pyro_afslvm.utils.precision import widened
from pyro_afslvm.utils.renamed import renamed_keyword
from pyro_afslvm.utils.seeding import Stream, seed_step

Progress = Callable[[int, int], None]
Values = NDArray[np.float64]


class Likelihood(NamedTuple):
    """The terms of the bound on the last frames of every sequence, nats/dim of the model's units.

    Together they are exact for a model without latents, and a bound for one that is given all
    frames before them. Otherwise the bound is that of all frames, ``whole``.
    """

    per_sequence: Values  # (N,)
    num_values: int  # entries of frames scored in all
    units: NDArray[np.int64] | None = None  # (N,), of sequences that may depend on one another
    whole: "Likelihood | None" = None  # of all frames, where their bound is no sum of bounds
    frames: NDArray[np.int64] | None = None  # (N,), scored of each, where they differ

    @property
    def mean(self) -> float:
        """Mean over sequences; over all their frames where some have more of them."""
        return self._estimate.mean

    @property
    def error(self) -> float:
        """Standard error of the mean, over independent units; NaN for fewer than five."""
        return self._estimate.error

    @property
    def num_units(self) -> int:
        """Number of independent units."""
        return self._estimate.num_units

    @property
    def _estimate(self) -> Estimate:
        units = None if self.units is None else [*self.units.tolist()]
        return estimate(self.per_sequence, units, weights=self.frames)


@torch.no_grad()
@renamed_keyword("noise", "dequantization")
def likelihood(
    pair: Pair,
    data: Any,
    *,
    dequantization: Dequantization,
    scored_frames: int,
    num_samples: int = 1,
    batch_size: int = 25,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    processes: Processes = ALONE,
) -> Likelihood:
    """Compute the bound (exact for flows) on the last frames of each sequence.

    Args:
        pair: model and guide, set to evaluation mode here.
        data: sequences long enough for the model's context and the scored frames, with their
            covariates where the model takes any; or
            :class:`~pyro_afslvm.data.ragged.WholeSequences`, of which the frames count that
            there are.
        dequantization: of the data.
        scored_frames: how many frames, the last of each sequence, are reported.
        num_samples: samples of the guide over which the bound is averaged.
        batch_size: sequences at a time.
        seed: of dequantization and samples.
        progress: called with sequences done and their number.
        processes: that share the batches; every one of them has the result.

    Raises:
        ValueError: if the mean is above the negative entropy of the dequantization: a bug.
    """
    pair.eval()
    device = next(pair.model.parameters()).device
    found: dict[int, tuple[Values, Values, tuple[int, ...]]] = {}
    for i, batch in batches(data, batch_size, processes):
        seed_step(seed, i, Stream.EVALUATION)
        frames, known = on_device(batch, device)
        x = dequantization(frames)
        lengths = lengths_of(batch, device)
        terms = bound_terms(
            pair.model, pair.guide, x, num_particles=num_samples, lengths=lengths, context=known
        )
        per_frame = widened(terms.bound).mean(0) / math.prod(x.shape[2:])  # (batch, T)
        counts = scored_frames if lengths is None else lengths - context_length(pair.model)
        last, every = per_frame[:, -scored_frames:].sum(1) / counts, per_frame.mean(1)
        found[i] = last.cpu().numpy(), every.cpu().numpy(), tuple(x.shape[1:])
        progress(min((i + 1) * batch_size, len(data)), len(data))
    last_frames, all_frames, shapes = zip(*processes.collect(found), strict=True)
    (total, *frame), units, whole = shapes[0], units_of(data), None
    counted = frames_of(data, context_length(pair.model))
    values = len(data) * math.prod(frame)  # of each frame, in all sequences
    if is_conditional(pair, total, scored_frames):
        count = values * (total - context_length(pair.model))
        whole = Likelihood(np.concatenate(all_frames), count, units)
    scored = values * scored_frames if counted is None else math.prod(frame) * int(counted.sum())
    result = Likelihood(np.concatenate(last_frames), scored, units, whole, counted)
    for each in (result, whole):
        if each is not None:
            nats, count = dequantization.to_nats(each.mean), each.num_values
            check_ceiling(nats, dequantization=dequantization, num_values=count)
    return result


def is_conditional(pair: Pair, num_frames: int, scored_frames: int) -> bool:
    """Whether the scored frames' terms are but the last of a bound on more frames.

    The sum of such terms is no lower bound on log p(scored | given): a guide that sees all frames
    may spend at the beginning what it gains at the end. The bound of all frames is one.
    """
    return pair.guide is not None and num_frames - context_length(pair.model) > scored_frames


def on_device(batch: Any, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Take frames and covariates of a batch apart, on a device."""
    frames, known = parted(batch)
    return frames.to(device), None if known is None else known.to(device)


def lengths_of(batch: Any, device: torch.device) -> Tensor | None:
    """Frames of each sequence of a batch; ``None`` where all have as many."""
    return batch.lengths.to(device) if isinstance(batch, Ragged) else None


def frames_of(data: Any, context: int) -> NDArray[np.int64] | None:
    """Frames of each sequence that follow those that are given; ``None`` where all are alike."""
    return data.lengths - context if isinstance(data, WholeSequences) else None


def units_of(data: Any) -> NDArray[np.int64] | None:
    """Independent unit of each sequence; ``None`` where the data do not say."""
    if isinstance(data, Subset):
        units = units_of(data.dataset)
        return None if units is None else units[np.asarray(data.indices, dtype=np.int64)]
    units = getattr(data, "units", None)
    return None if units is None else np.asarray(units)


def batches(data: Any, batch_size: int, processes: Processes = ALONE) -> Iterator[tuple[int, Any]]:
    """Yield the batches that are for this process, with their numbers."""
    starts = range(0, len(data), batch_size)
    every = [[*range(i, min(i + batch_size, len(data)))] for i in starts]
    chosen = processes.share([*enumerate(every)])
    collate = data.collate if isinstance(data, WholeSequences) else None
    loader = DataLoader(data, batch_sampler=[i for _, i in chosen], collate_fn=collate)
    yield from zip((i for i, _ in chosen), loader, strict=True)
