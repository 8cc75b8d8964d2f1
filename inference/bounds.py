"""Bounds of several guides on the same frames, side by side: figures, table, JSON."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_afslvm import Pair
from pyro_afslvm.data import Dequantization, SequenceSource, check_ceiling
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.objectives import bound_terms, smc
from pyro_afslvm.utils.seeding import seed_step

MOST_PARTICLES = 512  # of all sequences together, at once in the particle filter
BOUNDS = ("elbo", "iwae", "smc")
Figure = dict[str, float | None]


class Bounds(NamedTuple):
    """What is known of each sequence, in nats of the model's units, each ``(N,)`` in float64."""

    elbo: Tensor  # mean over the K samples
    iwae: Tensor  # of the same K samples
    smc: Tensor  # of a particle filter with K particles
    log_likelihood: Tensor  # log p(x | z), mean over the K samples
    kl: Tensor  # log q(z | x) - log p(z), likewise


def frames_to_score(
    source: SequenceSource,
    dequantization: Dequantization,
    *,
    sequences: int,
    num_frames: int,
    seed: int,
) -> Tensor:
    """The first test sequences, dequantized the same whoever asks."""
    data = source.dataset("test", num_frames=num_frames)
    if len(data) < sequences:
        raise ValueError(f"the test set holds {len(data)} sequences, fewer than {sequences}")
    pixels = torch.stack([data[i] for i in range(sequences)])
    seed_step(seed, 0, 1 << 24)
    return dequantization(pixels)


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
    r"""ELBO, its terms, and the tighter bounds, sequence by sequence.

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
        progress: called with parts done and their number.

    Source: Burda et al., arXiv:1509.00519; Maddison et al., arXiv:1705.09279.
    """
    device = next(pair.model.parameters()).device
    parts = x.split(batch_size)
    few = max(1, MOST_PARTICLES // particles)
    found = []
    for i, rows in enumerate(parts):
        rows = rows.to(device)
        seed_step(seed, i, 1 << 25)
        terms = bound_terms(pair.model, pair.guide, rows, num_particles=particles)
        log_weights = terms.bound.double().sum(-1)  # (K, batch)
        filtered = [
            smc(pair.model, pair.guide, some, num_particles=particles).log_evidence
            for some in rows.split(few)
        ]
        of_part = Bounds(
            elbo=log_weights.mean(0),
            iwae=log_weights.logsumexp(0) - math.log(particles),
            smc=torch.cat(filtered),
            log_likelihood=terms.log_likelihood.double().sum(-1).mean(0),
            kl=terms.kl.double().sum(-1).mean(0),
        )
        found.append(Bounds(*(value.cpu() for value in of_part)))
        progress(i + 1, len(parts))
    return Bounds(*(torch.cat(values) for values in zip(*found, strict=True)))


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


def figures(
    found: Bounds, first: Bounds, *, dequantization: Dequantization, dims: int
) -> dict[str, dict[str, Figure]]:
    """Means over sequences and their standard errors.

    Args:
        found: of one guide.
        first: of the guide it is compared to, on the same sequences.
        dequantization: of the frames, which gives the units.
        dims: entries of all scored frames of a sequence.

    Returns:
        ``nats_per_dim`` in the data's units; ``nats_per_sequence``, among them ``gap`` (IWAE
        less ELBO); ``difference``, paired by sequence, of the bounds to those of ``first``.
    """
    per_dim = {name: getattr(found, name) / dims for name in (*BOUNDS, "log_likelihood")}
    return {
        "nats_per_dim": {
            name: _mean(value) | {"mean": dequantization.to_nats(float(value.mean()))}
            for name, value in per_dim.items()
        },
        "nats_per_sequence": {
            "kl": _mean(found.kl),
            "gap": _mean(found.iwae - found.elbo),
            "smc_gap": _mean(found.smc - found.elbo),
        },
        "difference": {name: _mean(getattr(found, name) - getattr(first, name)) for name in BOUNDS},
    }


def _mean(values: Tensor) -> Figure:
    n = len(values)
    error = float(values.std()) / math.sqrt(n) if n > 1 else None
    return {"mean": float(values.mean()), "error": error}


def over_seeds(seeds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Figure]]:
    """Means over seeds and their standard errors; with one seed the errors over sequences."""
    if len(seeds) == 1:
        return {kind: dict(seeds[0][kind]) for kind in KINDS}
    return {
        kind: {
            name: _spread([seed[kind][name]["mean"] for seed in seeds]) for name in seeds[0][kind]
        }
        for kind in KINDS
    }


KINDS = ("nats_per_dim", "nats_per_sequence", "difference")


def _spread(values: list[float]) -> Figure:
    error = statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.fmean(values), "error": error}


def table(guides: Sequence[Mapping[str, Any]], *, particles: int, seeds: int) -> str:
    """The figures, aligned, and what stands in them."""
    k = f"-{particles}"
    rows = [["nats/dim", "ELBO", f"IWAE{k}", f"SMC{k}", "log p(x|z)"]]
    for guide in guides:
        per_dim = guide["nats_per_dim"]
        columns = (*BOUNDS, "log_likelihood")
        rows.append([guide["name"], *(_text(per_dim[name], 4) for name in columns)])
    first = guides[0]["name"]
    more = [["nats/sequence", "KL", "IWAE − ELBO", "SMC − ELBO", "ΔELBO", "ΔIWAE", "ΔSMC"]]
    for guide in guides:
        own, other = guide["nats_per_sequence"], guide["difference"]
        texts = [_text(own[name], 2) for name in ("kl", "gap", "smc_gap")]
        if guide is guides[0]:
            texts += ["0"] * 3
        else:
            texts += [_text(other[name], 1, sign=True) for name in BOUNDS]
        more.append([guide["name"], *texts])
    cost = [["training", "s/step", "s in all", "steps", "parameters of guide", "of model"]]
    for guide in guides:
        sizes = [f"{guide['parameters'][part]:,}" for part in ("guide", "model")]
        steps = f"{guide['train_steps']['mean']:.0f}"
        step, whole = guide["seconds_per_step"]["mean"], guide["train_seconds"]["mean"]
        cost.append([guide["name"], f"{step:.4f}", f"{whole:.1f}", steps, *sizes])
    errors = f"{seeds} seeds" if seeds > 1 else "sequences (one seed)"
    note = f"± standard error over {errors}; Δ paired, to {first}"
    return "\n\n".join([_aligned(rows), _aligned(more), _aligned(cost), note])


def _text(figure: Figure, digits: int, *, sign: bool = False) -> str:
    mean = f"{figure['mean']:{'+' if sign else ''}.{digits}f}"
    text = mean if figure["error"] is None else f"{mean} ± {figure['error']:.{digits}f}"
    return text.replace("-", "−")


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("   ".join(cells))
    return "\n".join(lines)
