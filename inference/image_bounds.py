"""Metrics of one run on binary images: its bound, log p(x), and the cost of its training."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_afslvm import Pair
from pyro_afslvm.cli.workflow import load_run
from pyro_afslvm.data import BinarizedMNIST
from pyro_afslvm.objectives import FreeBitsELBO, bound_terms, iwae
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.contents import read_json
from pyro_afslvm.runs.run import Run
from pyro_afslvm.utils.files import write_json
from pyro_afslvm.utils.progress import counting_bar
from pyro_afslvm.utils.seeding import Stream, seed_step


class Measured(NamedTuple):
    """Metrics of one run, in nats per image."""

    vlb: Tensor  # (images,), mean over samples
    log_p: Tensor  # (images,), importance-sampled
    kl: float  # mean of log q(z | x) - log p(z)
    objective: float | None  # with free bits


@torch.no_grad()
def measure(
    pair: Pair,
    x: Tensor,
    *,
    particles: int,
    samples: int,
    free_bits: float = 0.0,
    batch_size: int = 50,
    name: str = "",
) -> Measured:
    """Bound and importance-sampled log p(x) of images ``(N, 1, C, H, W)``."""
    device = next(pair.model.parameters()).device
    vlb, log_p, kl, objective = [], [], [], 0.0
    elbo = FreeBitsELBO(free_bits) if free_bits else None
    with counting_bar(f"measuring {name:<16}") as progress:
        for i, batch in enumerate(x.to(device).split(batch_size)):
            seed_step(0, i, Stream.PARTICLES)
            terms = bound_terms(pair.model, pair.guide, batch, num_particles=samples)
            vlb.append(terms.bound.double().mean(0).sum(-1).cpu())
            kl.append(terms.kl.double().mean(0).sum(-1).cpu())
            found = iwae(pair.model, pair.guide, batch, num_particles=particles, chunk=8)
            log_p.append(found.log_evidence.cpu())
            if elbo:
                objective -= elbo.loss(pair.model, pair.guide, batch)
            progress(min((i + 1) * batch_size, len(x)), len(x))
    free = objective / len(x) if elbo else None
    return Measured(torch.cat(vlb), torch.cat(log_p), float(torch.cat(kl).mean()), free)


def measure_run(
    run: Run, source: BinarizedMNIST, x: Tensor, *, particles: int, samples: int
) -> Measured:
    """Measure a run; what was found is kept in its ``nats.json`` until it is trained further."""
    pair, recipe, checkpoint = load_run(run, source=source)
    wanted = {
        "data": source.describe(),
        "images": len(x),
        "particles": particles,
        "samples": samples,
        "step": checkpoint["step"],
        "last_step": load_checkpoint(run.last)["step"],
    }
    kept = run.path / "nats.json"
    if kept.exists():
        stored = read_json(kept)
        if {name: stored.get(name) for name in wanted} == wanted:
            vlb, log_p = (_precise(stored[name]) for name in ("vlb", "log_p"))
            return Measured(vlb, log_p, stored["kl"], stored["objective"])
    found = measure(
        pair,
        x,
        particles=particles,
        samples=samples,
        free_bits=run.settings.free_bits,
        name=recipe.name,
    )
    numbers = {"vlb": found.vlb.tolist(), "log_p": found.log_p.tolist()}
    write_json(kept, wanted | numbers | {"kl": found.kl, "objective": found.objective})
    return found


def _precise(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def training(run: Run) -> dict[str, Any]:
    """Steps, seconds and curve of a run's training."""
    last, dims = load_checkpoint(run.last), math.prod(run.source.frame_shape)
    return {
        "train_seed": run.settings.seed,
        "train_steps": last["step"],
        "train_seconds": last["seconds"],
        "curve": {
            "step": [row[0] for row in last["curve"]],
            "seconds": [row[1] for row in last["curve"]],
            "train_nats_per_image": [dims * row[2] for row in last["curve"]],
        },
    }
