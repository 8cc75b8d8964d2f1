"""Stochastic variational inference in one call, for notebooks."""

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO
from pyro.infer.util import torch_item, zero_grads
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_afslvm.models.base import SequenceBatch
from pyro_afslvm.models.programs import evaluating, no_guide
from pyro_afslvm.objectives.annealing import KLScale, warmed_up
from pyro_afslvm.training.errors import TrainingError


class FitResult(NamedTuple):
    """What :func:`fit` saw.

    ``bound`` is the (noisy) bound after each step, in nats per sequence and scored frame;
    ``seconds`` the time since the start.
    """

    bound: Tensor  # (steps,)
    seconds: Tensor  # (steps,)


def fit(
    model: nn.Module,
    guide: nn.Module | None,
    data: Tensor,
    *,
    steps: int = 1000,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    clip_norm: float = 1.0,
    elbo: ELBO | None = None,
    kl_warmup: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> FitResult:
    """Train a model and its guide by SVI on a tensor of sequences.

    Args:
        model: a Pyro program of this library; with ``guide=None`` its exact likelihood is
            maximised.
        guide: a guide with the sites of the model, or ``None``.
        data: ``(N, T, *frame_shape)``, dequantized; moved batch by batch to the model's device.
        steps: optimizer steps.
        batch_size: sequences per step, drawn without replacement within an epoch.
        learning_rate: of Adam.
        clip_norm: largest gradient norm per parameter.
        elbo: the objective, ``Trace_ELBO()`` by default.
        kl_warmup: steps over which the divergence of the latents comes to count in full; the
            bound of these steps is then not a bound.
        seed: of the order of the sequences.
        progress: whether to show a progress bar.

    Raises:
        ValueError: for data that the model refuses, before the first step.
        TrainingError: if the bound is NaN or infinite; the parameters are those before.
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"expected at least 1 step and sequence, got {steps} and {batch_size}")
    if kl_warmup < 0:
        raise ValueError(f"expected kl_warmup of at least 0 steps, got {kl_warmup}")
    frames = _scored_frames(model, data)
    like = next(model.parameters(), data)
    scale = 1.0 / (min(batch_size, len(data)) * frames)
    adam = PyroOptim(torch.optim.Adam, {"lr": learning_rate}, {"clip_norm": clip_norm})
    latents = KLScale()
    programs = [poutine.scale(latents(part), scale) for part in (model, guide or no_guide)]
    svi = SVI(programs[0], programs[1], adam, elbo or Trace_ELBO())
    bound, seconds, start = torch.empty(steps), torch.empty(steps), time.perf_counter()
    batches = _batches(data, batch_size, torch.Generator().manual_seed(seed))
    with evaluating(model, guide):  # so that the modes they are in come back
        for part in (model, guide):
            if isinstance(part, nn.Module):
                part.train()
        for step in _counted(steps, progress, bound):
            latents.scale = warmed_up(step, kl_warmup)
            try:
                loss = _step(svi, next(batches).to(like.device, like.dtype))
            except ValueError as error:  # Pyro's validation met NaN in a distribution
                reason = str(error).split("\n")[0]
                raise TrainingError(f"step {step}: {reason}; lower the learning rate") from None
            bound[step], seconds[step] = -loss, time.perf_counter() - start
            if not torch.isfinite(bound[step]):
                raise TrainingError(f"the bound is {-loss} at step {step}: lower the learning rate")
    return FitResult(bound, seconds)


def _scored_frames(model: nn.Module, data: Tensor) -> int:
    """Frames per sequence that count; refuses bad data at once and not when its turn comes."""
    context = int(getattr(model, "context_length", 0))
    frame_shape = getattr(model, "frame_shape", tuple(data.shape[2:]))
    for part in data.split(64):
        SequenceBatch.of(part, frame_shape=frame_shape, context_length=context)
    return data.shape[1] - context


def _step(svi: SVI, batch: Tensor) -> float:
    """One step of SVI, without that of the optimizer if the loss is not finite."""
    with poutine.trace(param_only=True) as captured:
        loss = float(torch_item(svi.loss_and_grads(svi.model, svi.guide, batch)))
    sites: list[Any] = list(captured.trace.nodes.values())
    parameters = {site["value"].unconstrained() for site in sites}
    if math.isfinite(loss):
        svi.optim(parameters)
    zero_grads(parameters)
    return loss


def _batches(data: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    size = min(size, len(data))
    while True:
        order = torch.randperm(len(data), generator=generator)
        for start in range(0, len(data) - size + 1, size):
            yield data[order[start : start + size]]


def _counted(steps: int, progress: bool, bound: Tensor) -> Iterator[int]:
    if not progress:
        yield from range(steps)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("SVI"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("bound {task.fields[bound]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("SVI", total=steps, bound="")
        for step in range(steps):
            yield step
            bar.update(task, advance=1, bound=f"{bound[step]:.2f}")
