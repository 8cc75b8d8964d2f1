"""Stochastic variational inference in one call, for notebooks."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pyro_afslvm.models.base import SequenceModel
from pyro_afslvm.models.inputs import as_context, as_frames, as_lengths, without_padding
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.models.programs import evaluating
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.acceptance import check_amortized, check_data, warn_of_values
from pyro_afslvm.training.held_out import HeldOut
from pyro_afslvm.training.loop import Batch, descend, parameters
from pyro_afslvm.training.progress import bound_bar


class FitResult(NamedTuple):
    """Course of a :func:`fit`.

    ``bound`` is the (noisy) bound at each step, in nats per sequence and scored frame;
    ``seconds`` the time since the start.
    """

    bound: Tensor  # (steps,)
    seconds: Tensor  # (steps,)


class ValidatedFit(FitResult):
    """Course of a :func:`fit` that was validated on sequences held out.

    ``validation`` has a row for each validation: steps done, and the bound of the held-out
    sequences in nats per sequence and scored frame; ``best_step`` is the one whose parameters the
    model has.
    """

    validation: Tensor  # (validations, 2)
    best_step: int


def fit(
    model: nn.Module,
    guide: Callable[..., Any] | None,
    data: Tensor,
    *,
    lengths: Tensor | None = None,
    context: Tensor | None = None,
    steps: int = 1000,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    clip_norm: float = 1.0,
    elbo: ELBO | None = None,
    kl_warmup: int = 0,
    validation: Tensor | tuple[Tensor, Tensor | None, Tensor | None] | None = None,
    validate_every: int = 100,
    patience: int | None = None,
    scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    callbacks: Sequence[Callable[[int, float], object]] = (),
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
        lengths: ``(N,)`` whole numbers: frames of each sequence that count, the others are
            padding, which may be NaN. The bound is then in nats per frame that is there.
        context: covariates of every frame, ``(N, T, context_features)``, or ``(T, ...)`` for all.
        steps: optimizer steps.
        batch_size: sequences per step, drawn without replacement within an epoch; all of them,
            in their own order, if there are no more.
        learning_rate: of Adam.
        clip_norm: largest norm of the gradient of the loss, in nats per sequence and frame.
        elbo: the objective, ``Trace_ELBO()`` by default.
        kl_warmup: steps over which the divergence of the latents comes to count in full; the
            bound of these steps is then not a bound.
        validation: sequences held out, or these, their lengths and covariates: the parameters
            that are best for them are kept, and the result is a :class:`ValidatedFit`.
        validate_every: steps between validations; there is one at the end.
        patience: stop after so many validations without a new best.
        scheduler: makes a schedule of the learning rate of the optimizer, which takes a step
            after each of its own, such as ``partial(OneCycleLR, max_lr=1e-2, total_steps=1000)``;
            a ``ReduceLROnPlateau`` takes one after each validation.
        callbacks: called after each step with the steps done and the bound; training stops if
            one gives ``True``.
        seed: of the order of the sequences.
        progress: whether to show a progress bar.

    Raises:
        ValueError: before the first step, for data that the model refuses, a guide without the
            model's latents, patience without a validation, and batches of some of the sequences
            with a guide that has latents of its own for each of them, such as most of Pyro's
            AutoGuides: it would mix them up.
        TrainingError: if the bound is NaN or infinite; the parameters are those before.
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"expected at least 1 step and sequence, got {steps} and {batch_size}")
    if kl_warmup < 0:
        raise ValueError(f"expected kl_warmup of at least 0 steps, got {kl_warmup}")
    if validate_every < 1 or (patience is not None and patience < 1):
        raise ValueError(f"expected at least 1, got {validate_every=} and {patience=}")
    data, lengths, context = _accepted(model, data, lengths, context)
    if guide is None and isinstance(model, SequenceModel) and model.sites:
        raise ValueError(f"expected a guide for the latents {', '.join(model.sites)}, got none")
    warn_of_values(model, data)
    if guide is not None and batch_size < len(data):
        first = torch.arange(batch_size)
        check_amortized(model, guide, *_rows(first, model, data, lengths, context))
    watch = _held_out(model, guide, validation, batch_size, patience)
    loss = BoundLoss(Pair(model, guide), elbo or Trace_ELBO())  # type: ignore[arg-type]
    optimizer = torch.optim.Adam([{"params": [*loss.parameters()]}], learning_rate)
    losses = descend(
        loss,
        optimizer,
        islice(_batches(model, data, lengths, context, batch_size, seed), steps),
        clip_norm=clip_norm,
        kl_warmup=kl_warmup,
        forward=_Learned(loss, optimizer),
    )
    schedule = None if scheduler is None else scheduler(optimizer)
    bound, seconds, start = [], [], time.perf_counter()
    # afterwards the modules are in the modes that they were in
    with evaluating(model, guide), bound_bar("SVI", steps, shown=progress) as show:
        for step, value in enumerate(losses, 1):
            bound.append(-float(value))
            seconds.append(time.perf_counter() - start)
            show(bound[-1])
            answers = [callback(step, bound[-1]) for callback in callbacks]
            stop = any(answer is True for answer in answers)
            found = None
            if watch is not None and (step % validate_every == 0 or step == steps or stop):
                found = watch(step, parameters(optimizer))
            _take_step(schedule, found)
            if stop or (watch is not None and watch.curve and not watch.is_patient):
                break
    course = torch.tensor(bound), torch.tensor(seconds)
    if watch is None:
        return FitResult(*course)
    watch.restore()
    result = ValidatedFit(*course)
    result.validation = torch.tensor(watch.curve)
    result.best_step = watch.best[0]
    return result


def _accepted(
    model: nn.Module, data: Any, lengths: Any, context: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Sequences, lengths and covariates as tensors that the model takes."""
    if not isinstance(data, Tensor):
        data = as_frames(data)
    lengths = as_lengths(lengths)
    data = without_padding(data, lengths)
    check_data(model, data, lengths)
    return data, lengths, as_context(context, model, data)


def _held_out(
    model: nn.Module,
    guide: Callable[..., Any] | None,
    validation: Tensor | tuple[Tensor, Tensor | None, Tensor | None] | None,
    size: int,
    patience: int | None,
) -> HeldOut | None:
    """What watches the sequences that are held out, if there are any."""
    if validation is None:
        if patience is not None:
            raise ValueError("patience counts validations: pass the sequences of `validation=` too")
        return None
    given = validation if isinstance(validation, tuple) else (validation, None, None)
    data, lengths, context = _accepted(model, *given)
    rows = torch.arange(len(data)).split(size)
    return HeldOut(
        model,
        guide,
        lambda: (_rows(some, model, data, lengths, context) for some in rows),
        patience=patience,
    )


def _take_step(schedule: LRScheduler | None, bound: float | None) -> None:
    """Move the learning rate on; after validations only, for one that waits for a plateau."""
    if isinstance(schedule, ReduceLROnPlateau):
        if bound is not None:
            schedule.step(-bound)
    elif schedule is not None:
        schedule.step()


class _Learned:
    """A loss whose programs may make parameters as they run, which the optimizer then moves."""

    def __init__(self, loss: BoundLoss, optimizer: torch.optim.Optimizer) -> None:
        self.loss, self.optimizer = loss, optimizer
        self._known = -1  # parameters in the store

    def __call__(self, *given: Tensor) -> Tensor:
        if len(pyro.get_param_store()) == self._known:
            value: Tensor = self.loss(*given)
            return value
        with poutine.trace(param_only=True) as seen:
            value = self.loss(*given)
        moved = {id(p) for p in parameters(self.optimizer)}
        found: list[Any] = [*seen.trace.nodes.values()]
        made = [site["value"].unconstrained() for site in found]
        if made := [p for p in made if id(p) not in moved]:
            self.optimizer.add_param_group({"params": made})
        self._known = len(pyro.get_param_store())
        return value


def _rows(
    rows: Tensor, model: nn.Module, data: Tensor, lengths: Tensor | None, context: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Some of the sequences, as the model takes them, with their lengths and covariates."""
    like = next(model.parameters(), data)
    return (
        data[rows].to(like.device, like.dtype),
        None if lengths is None else lengths[rows].to(like.device),
        None if context is None else context[rows.to(context.device)],
    )


def _batches(
    model: nn.Module,
    data: Tensor,
    lengths: Tensor | None,
    context: Tensor | None,
    size: int,
    seed: int,
) -> Iterator[Batch]:
    """Batches without end, of the device and precision of the model."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(data), generator=generator)
        if size >= len(data):  # a guide may know each by its place
            size, order = len(data), torch.arange(len(data))
        for start in range(0, len(data) - size + 1, size):
            rows = order[start : start + size]
            yield _rows(rows, model, data, lengths, context)
