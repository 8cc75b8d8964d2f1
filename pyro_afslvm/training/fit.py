"""Stochastic variational inference in one call, for notebooks."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm.models.base import SequenceBatch, SequenceModel, context_length
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.models.programs import evaluating
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.loop import descend, parameters
from pyro_afslvm.training.progress import bound_bar


class FitResult(NamedTuple):
    """Course of a :func:`fit`.

    ``bound`` is the (noisy) bound at each step, in nats per sequence and scored frame;
    ``seconds`` the time since the start.
    """

    bound: Tensor  # (steps,)
    seconds: Tensor  # (steps,)


def fit(
    model: nn.Module,
    guide: Callable[..., Any] | None,
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
    """Train a model and its guide by stochastic variational inference on a tensor of sequences.

    It takes the gradients of ``SVI(model, guide, optimizer, elbo)``, in the loop of
    ``afslvm train``.

    Args:
        model: a Pyro program of this library; with ``guide=None`` its exact likelihood is
            maximised.
        guide: a guide with the sites of the model, or ``None``. Parameters that it makes by
            ``pyro.param`` are trained too.
        data: ``(N, T, *frame_shape)``, dequantized; moved batch by batch to the model's device.
        steps: optimizer steps.
        batch_size: sequences per step, drawn without replacement within an epoch.
        learning_rate: of Adam.
        clip_norm: largest norm of the gradient of the loss, in nats per sequence and frame.
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
    _check(model, data)
    loss = BoundLoss(Pair(model, guide), elbo or Trace_ELBO())  # type: ignore[arg-type]
    optimizer = torch.optim.Adam([{"params": [*loss.parameters()]}], learning_rate)
    losses = descend(
        loss,
        optimizer,
        islice(_batches(model, data, batch_size, seed), steps),
        clip_norm=clip_norm,
        kl_warmup=kl_warmup,
        forward=_Learned(loss, optimizer),
    )
    bound, seconds, start = torch.empty(steps), torch.empty(steps), time.perf_counter()
    # afterwards the modules are in the modes that they were in
    with evaluating(model, guide), bound_bar("SVI", steps, shown=progress) as show:
        for step, value in enumerate(losses):
            bound[step], seconds[step] = -value, time.perf_counter() - start
            show(float(bound[step]))
    return FitResult(bound, seconds)


class _Learned:
    """A loss whose programs may make parameters as they run, which the optimizer then moves."""

    def __init__(self, loss: BoundLoss, optimizer: torch.optim.Optimizer) -> None:
        self.loss, self.optimizer = loss, optimizer
        self._known = -1  # parameters in the store

    def __call__(self, x: Tensor) -> Tensor:
        if len(pyro.get_param_store()) == self._known:
            value: Tensor = self.loss(x)
            return value
        with poutine.trace(param_only=True) as seen:
            value = self.loss(x)
        moved = {id(p) for p in parameters(self.optimizer)}
        found: list[Any] = [*seen.trace.nodes.values()]
        made = [site["value"].unconstrained() for site in found]
        if made := [p for p in made if id(p) not in moved]:
            self.optimizer.add_param_group({"params": made})
        self._known = len(pyro.get_param_store())
        return value


def _check(model: nn.Module, data: Tensor) -> None:
    """Refuse bad data at once and not when their turn comes."""
    # a user's own program says nothing of its frames
    shape = model.frame_shape if isinstance(model, SequenceModel) else tuple(data.shape[2:])
    for part in data.split(64):
        SequenceBatch.of(part, frame_shape=shape, context_length=context_length(model))


def _batches(model: nn.Module, data: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Batches without end, of the device and precision of the model."""
    size, generator = min(size, len(data)), torch.Generator().manual_seed(seed)
    like = next(model.parameters(), data)
    while True:
        order = torch.randperm(len(data), generator=generator)
        for start in range(0, len(data) - size + 1, size):
            yield data[order[start : start + size]].to(like.device, like.dtype)
