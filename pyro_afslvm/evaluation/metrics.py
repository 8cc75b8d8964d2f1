"""Metrics of a trained model on a data set, with the protocol they were got under."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from pyro_afslvm.data import (
    Dequantization,
    Protocol,
    SequenceDataset,
    SequenceSource,
    Split,
    check_ceiling,
    choose_dequantization,
    software_versions,
)
from pyro_afslvm.data.dequantize import BinaryPixels
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.metrics import temporal_correlation
from pyro_afslvm.models.base import context_length, flow_of
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.utils.distributed import ALONE, Processes
from pyro_afslvm.utils.renamed import renamed_keyword
from pyro_afslvm.utils.seeding import Stream, seed_step

Progress = Callable[[int, int], None]

_BITS = ("bits_per_dim", "bits_per_dim_error", "protocol_bits")


class Likelihood(NamedTuple):
    """The bound on the last frames of every sequence, in nats/dim of the model's units."""

    per_sequence: NDArray[np.float64]  # (N,)
    num_values: int  # entries of frames scored in all

    @property
    def mean(self) -> float:
        """Mean over sequences."""
        return float(self.per_sequence.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean over sequences."""
        n = len(self.per_sequence)
        return float(self.per_sequence.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan


@torch.no_grad()
@renamed_keyword("noise", "dequantization")
def likelihood(
    pair: Pair,
    data: SequenceDataset,
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
        data: sequences long enough for the model's context and the scored frames.
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
    metrics: dict[int, tuple[NDArray[np.float64], int]] = {}
    for i, batch in _batches(data, batch_size, processes):
        seed_step(seed, i, Stream.EVALUATION)
        x = dequantization(batch.to(device))
        terms = bound_terms(pair.model, pair.guide, x, num_particles=num_samples)
        scored = terms.bound[..., -scored_frames:].double()
        dims = math.prod(x.shape[2:])
        per_sequence = scored.mean((0, 2)) / dims
        metrics[i] = per_sequence.cpu().numpy(), x.shape[0] * scored_frames * dims
        progress(min((i + 1) * batch_size, len(data)), len(data))
    parts, counts = zip(*processes.collect(metrics), strict=True)
    num_values = sum(counts)
    result = Likelihood(np.concatenate(parts), num_values)
    check_ceiling(
        dequantization.to_nats(result.mean), dequantization=dequantization, num_values=num_values
    )
    return result


@torch.no_grad()
def correlations(
    pair: Pair,
    data: SequenceDataset,
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
    pair.eval()
    device = next(pair.model.parameters()).device
    flow, context = flow_of(pair.model), context_length(pair.model)
    frames: dict[int, Tensor] = {}
    noise: dict[int, Tensor] = {}
    for i, batch in _batches(data, 25, processes):
        seed_step(seed, i, Stream.EVALUATION)
        x = dequantization(batch.to(device))
        frames[i] = x[:, -scored_frames:].cpu()
        if flow is not None:
            y = flow.condition(history=x[:, :context]).inv(x[:, context:])
            noise[i] = y[:, -scored_frames:].cpu()
    parts = [processes.collect(part, everywhere=False) for part in (frames, noise)]
    of_x, of_y = (temporal_correlation(torch.cat(part)) if part else None for part in parts)
    return of_x, of_y


def evaluate(
    pair: Pair,
    source: SequenceSource,
    *,
    split: Split = "test",
    scored_frames: int = 10,
    num_samples: int = 1,
    seed: int = 0,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Compute all metrics of a model on one split.

    Args:
        pair: model and guide.
        source: where sequences come from.
        split: of the data.
        scored_frames: the last frames of each sequence, which are reported.
        num_samples: samples of the guide.
        seed: of dequantization and samples.
        limit: use only so many sequences.
        progress: called with sequences done and their number.
        processes: that share the work and all call this; correlations go to the first only.

    Returns:
        as JSON values, for 8-bit data nats/dim under the paper's protocol and bits/dim under
        the discrete one, for real numbers nats/dim in their own units; temporal
        correlations, the number of parameters, and the protocols; for binary images nats/image
        too.
    """
    crops = _crops(pair, source, split, scored_frames, limit)
    shared: dict[str, Any] = {"scored_frames": crops.scored, "seed": seed, "processes": processes}
    dequantizations = _reported(source)
    results: dict[str, Any] = dict.fromkeys(_BITS)  # real numbers have none
    for k, dequantization in enumerate(dequantizations):
        found = likelihood(
            pair,
            crops.data,
            dequantization=dequantization,
            num_samples=num_samples,
            progress=_share_of(progress, k, len(dequantizations)),
            **shared,
        )
        protocol = _protocol(pair, source, crops, dequantization.name, num_samples, seed)
        results |= _metrics(found, dequantization, protocol, len(crops.data))
        results |= _image_metrics(found, dequantization, math.prod(source.frame_shape))
    x = y = None
    if crops.scored > 1:
        x, y = correlations(pair, crops.data, dequantization=dequantizations[0], **shared)
    results |= {"correlation_x": _number(x), "correlation_y": _number(y)}
    return results | {"parameters": pair.num_parameters}


class _Crops(NamedTuple):
    """Sequences of a split, cut to the frames that are given and those that are scored."""

    data: Any  # a SequenceDataset, or the first so many of one
    split: Split
    given: int
    scored: int


def _crops(
    pair: Pair, source: SequenceSource, split: Split, scored_frames: int, limit: int | None
) -> _Crops:
    """Cut the sequences of a split, at most ``limit`` of them, to what the model needs."""
    frames = crop_length(pair.model, scored_frames, most=source.num_frames)
    scored = min(scored_frames, frames - context_length(pair.model))
    full = source.dataset(split, num_frames=frames)
    chosen = Subset(full, range(min(limit or len(full), len(full))))
    return _Crops(chosen, split, frames - scored, scored)


def _share_of(progress: Progress, part: int, parts: int) -> Progress:
    """Report the progress of one of several equal parts as that of the whole."""
    return lambda done, total: progress(part * total + done, parts * total)


def _reported(source: SequenceSource) -> list[Dequantization]:
    """Choose the protocols: both for 8-bit data, real numbers as they are."""
    needed = choose_dequantization(None, source)
    discrete = [choose_dequantization("uniform", source)] if needed.whole_numbers else []
    return [needed, *discrete]


def _number(value: float | None) -> float | None:
    """Give ``None`` for NaN, which JSON does not know."""
    return None if value is None or math.isnan(value) else value


def _metrics(
    found: Likelihood, dequantization: Dequantization, protocol: dict[str, Any], num_sequences: int
) -> dict[str, Any]:
    """Give the metrics of one protocol by their names in results."""
    if dequantization.name == "uniform":
        error = _number(found.error / math.log(2))
        return dict(
            zip(_BITS, (dequantization.to_report(found.mean), error, protocol), strict=True)
        )
    return {
        "nats_per_dim": dequantization.to_report(found.mean),
        "nats_per_dim_error": _number(found.error),
        "nats_per_dim_unit": found.mean if dequantization.whole_numbers else None,
        "num_sequences": num_sequences,
        "protocol": protocol,
    }


def _image_metrics(found: Likelihood, dequantization: Dequantization, dims: int) -> dict[str, Any]:
    """Give the log-probability of whole images, if they are binary."""
    if dequantization.data != BinaryPixels.data:
        return {}
    error = _number(dims * found.error)
    return {"nats_per_image": dims * found.mean, "nats_per_image_error": error}


def _protocol(
    pair: Pair,
    source: SequenceSource,
    crops: _Crops,
    dequantization: str,
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Give the protocol of a result as JSON values."""
    protocol = Protocol(
        data=source.describe(),
        split=crops.split,
        context_frames=crops.given,
        scored_frames=crops.scored,
        noise=dequantization,
        num_samples=num_samples if pair.guide is not None else 1,
        bound="exact" if pair.guide is None else "ELBO",
        seed=seed,
        versions=software_versions(),
    )
    return dict(json.loads(protocol.to_json()))


def _batches(
    data: Any, batch_size: int, processes: Processes = ALONE
) -> Iterator[tuple[int, Tensor]]:
    """Yield the batches that are for this process, with their numbers."""
    starts = range(0, len(data), batch_size)
    every = [[*range(i, min(i + batch_size, len(data)))] for i in starts]
    chosen = processes.share([*enumerate(every)])
    loader = DataLoader(data, batch_sampler=[indices for _, indices in chosen])
    yield from zip((i for i, _ in chosen), loader, strict=True)
