"""Bounds of several guides on the same frames, side by side: metrics, table, JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Subset

from inference import seeds as seeds_of
from inference.seeds import errors_text, metric_text
from pyro_afslvm import Pair
from pyro_afslvm.data import Dequantization, SequenceSource, check_ceiling
from pyro_afslvm.data.sequences import Windows
from pyro_afslvm.evaluation.bounds import units_of
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.metrics import estimate
from pyro_afslvm.objectives import bound_terms, smc
from pyro_afslvm.utils.seeding import Stream, seed_step
from pyro_afslvm.utils.tables import table_text

MOST_PARTICLES = 512  # of all sequences together, at once in the particle filter
BOUNDS = ("elbo", "iwae", "smc")
Metric = dict[str, float | None]  # mean, and its standard error


class Bounds(NamedTuple):
    """Bounds of each sequence and their terms, nats in the model's units, ``(N,)`` in float64."""

    elbo: Tensor  # mean over the K samples
    iwae: Tensor  # of the same K samples
    smc: Tensor  # of a particle filter with K particles
    log_likelihood: Tensor  # log p(x | z), mean over the K samples
    kl: Tensor  # log q(z | x) - log p(z), likewise


class Scored(NamedTuple):
    """Sequences that are scored, and what they are cut from."""

    x: Tensor  # (N, T, *frame_shape)
    units: list[int]  # independent unit of each, such as its video
    windows: Windows


def frames_to_score(
    source: SequenceSource,
    dequantization: Dequantization,
    *,
    sequences: int,
    num_frames: int,
    seed: int,
) -> Scored:
    """Take the first test sequences, dequantized the same whoever asks."""
    data = source.dataset("test", num_frames=num_frames)
    if len(data) < sequences:
        raise ValueError(f"the test set holds {len(data)} sequences, fewer than {sequences}")
    pixels = torch.stack([data[i] for i in range(sequences)])
    seed_step(seed, 0, Stream.PROGRAM)
    units = units_of(Subset(data, range(sequences)))
    numbers = [*range(sequences)] if units is None else [*units.tolist()]
    return Scored(dequantization(pixels), numbers, data.windows)


@torch.no_grad()
def measure(
    pair: Pair,
    x: Tensor,
    *,
    particles: int = 64,
    batch_size: int = 25,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Bounds:
    r"""Measure ELBO, its terms, and the tighter bounds, sequence by sequence.

    .. math:: \mathrm{ELBO} = \frac{1}{K} \sum_k \log w_k \le
        \mathrm{IWAE} = \log \frac{1}{K} \sum_k w_k, \qquad w_k = \frac{p(x, z_k)}{q(z_k \mid x)}

    Both are of the same samples, so that their difference is never negative. Samples are drawn
    one at a time: memory does not grow with K. The particle filter takes fewer sequences at a
    time the more particles there are.

    Args:
        pair: model and guide, in evaluation mode.
        x: ``(N, T, *frame_shape)``.
        particles: K.
        batch_size: sequences at a time.
        seed: of the samples.
        progress: called with batches done and their number.

    Source: Burda et al., arXiv:1509.00519; Maddison et al., arXiv:1705.09279.
    """
    device = next(pair.model.parameters()).device
    batches = x.split(batch_size)
    found = []
    for i, rows in enumerate(batches):
        seed_step(seed, i, Stream.PARTICLES)
        found.append(_bounds(pair, rows.to(device), particles))
        progress(i + 1, len(batches))
    return Bounds(*(torch.cat(values) for values in zip(*found, strict=True)))


def _bounds(pair: Pair, x: Tensor, particles: int) -> Bounds:
    terms = bound_terms(pair.model, pair.guide, x, num_particles=particles)
    log_weights = terms.bound.double().sum(-1)  # (K, batch)
    few = max(1, MOST_PARTICLES // particles)
    filtered = [
        smc(pair.model, pair.guide, some, num_particles=particles).log_evidence
        for some in x.split(few)
    ]
    found = Bounds(
        elbo=log_weights.mean(0),
        iwae=log_weights.logsumexp(0) - math.log(particles),
        smc=torch.cat(filtered),
        log_likelihood=terms.log_likelihood.double().sum(-1).mean(0),
        kl=terms.kl.double().sum(-1).mean(0),
    )
    return Bounds(*(value.cpu() for value in found))


def check_scored(pair: Pair, name: str, scored_frames: int) -> None:
    """Refuse what has no bound on just the frames that the others are scored on."""
    if pair.guide is None:
        raise ValueError(f"{name} has no guide to compare")
    given = crop_length(pair.model, scored_frames) - scored_frames
    if pair.model.context_length != given:
        raise ValueError(
            f"{name} is given {pair.model.context_length} frames where the others are given "
            f"{given}: its bound is one on other frames"
        )


def check_possible(found: Bounds, dequantization: Dequantization, dims: int) -> None:
    """Stop where a bound is above what the dequantization of the pixels allows."""
    for name in BOUNDS:
        mean = float(getattr(found, name).mean()) / dims
        nats, values = dequantization.to_nats(mean), dims * len(found.elbo)
        check_ceiling(nats, dequantization=dequantization, num_values=values)


def metrics(
    found: Bounds,
    first: Bounds,
    *,
    dequantization: Dequantization,
    dims: int,
    units: Sequence[int] | None = None,
) -> dict[str, dict[str, Metric]]:
    """Means over sequences and their standard errors, none of fewer than five units.

    Args:
        found: of one guide.
        first: of the guide it is compared to, on the same sequences.
        dequantization: of the frames, which gives the units.
        dims: entries of all scored frames of a sequence.
        units: independent unit of each sequence, such as its video.

    Returns:
        ``nats_per_dim`` in the data's units; ``nats_per_sequence``, among them ``gap`` (IWAE
        less ELBO); ``difference``, paired by sequence, of the bounds to those of ``first``.
    """
    mean = partial(_mean, units=units)
    per_dim = {name: getattr(found, name) / dims for name in (*BOUNDS, "log_likelihood")}
    return {
        "nats_per_dim": {
            name: mean(value) | {"mean": dequantization.to_nats(float(value.mean()))}
            for name, value in per_dim.items()
        },
        "nats_per_sequence": {
            "kl": mean(found.kl),
            "gap": mean(found.iwae - found.elbo),
            "smc_gap": mean(found.smc - found.elbo),
        },
        "difference": {name: mean(getattr(found, name) - getattr(first, name)) for name in BOUNDS},
    }


def _mean(values: Tensor, units: Sequence[int] | None) -> Metric:
    found = estimate(values, units)
    return {"mean": found.mean, "error": None if math.isnan(found.error) else found.error}


def over_seeds(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Metric]]:
    """Means over seeds, their errors over sequences and, beside, what seeds differ by."""
    if len(seeds) == 1:
        return {kind: dict(seeds[0][kind]) for kind in KINDS}
    return {
        kind: {
            name: seeds_of.over_seeds([seed[kind][name] for seed in seeds])
            for name in seeds[0][kind]
        }
        for kind in KINDS
    }


KINDS = ("nats_per_dim", "nats_per_sequence", "difference")


def table(
    guides: Sequence[Mapping[str, Any]], *, particles: int, seeds: int, units: str = "sequences"
) -> str:
    """The bounds, terms and costs of all guides, and what the numbers mean."""
    note = f"{errors_text(units, seeds)}; Δ paired, to {guides[0]['name']}"
    return "\n\n".join([_per_dim(guides, particles), _per_sequence(guides), _costs(guides), note])


def _per_dim(guides: Sequence[Mapping[str, Any]], particles: int) -> str:
    head = ["nats/dim", "ELBO", f"IWAE-{particles}", f"SMC-{particles}", "log p(x|z)"]
    names = (*BOUNDS, "log_likelihood")
    rows = [
        [guide["name"], *(metric_text(guide["nats_per_dim"][name], 4) for name in names)]
        for guide in guides
    ]
    return table_text(rows, head=head)


def _per_sequence(guides: Sequence[Mapping[str, Any]]) -> str:
    head = ["nats/sequence", "KL", "IWAE − ELBO", "SMC − ELBO", "ΔELBO", "ΔIWAE", "ΔSMC"]
    rows = []
    for i, guide in enumerate(guides):
        terms, other = guide["nats_per_sequence"], guide["difference"]
        texts = [metric_text(terms[name], 2) for name in ("kl", "gap", "smc_gap")]
        differences = [metric_text(other[name], 1, sign=True) if i else "0" for name in BOUNDS]
        rows.append([guide["name"], *texts, *differences])
    return table_text(rows, head=head)


def _costs(guides: Sequence[Mapping[str, Any]]) -> str:
    head = ["training", "s/step", "s in all", "steps", "parameters of guide", "of model"]
    rows = [
        [
            guide["name"],
            f"{guide['seconds_per_step']['mean']:.4f}",
            f"{guide['train_seconds']['mean']:.1f}",
            f"{guide['train_steps']['mean']:.0f}",
            *(f"{guide['parameters'][part]:,}" for part in ("guide", "model")),
        ]
        for guide in guides
    ]
    return table_text(rows, head=head)
