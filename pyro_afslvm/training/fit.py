"""Stochastic variational inference in one call, for notebooks."""

import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm.models.base import SequenceBatch, SequenceModel, context_length
from pyro_afslvm.models.inputs import as_context, as_frames, as_lengths, without_padding
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.models.programs import evaluating, one_line_errors
from pyro_afslvm.objectives.importance import random_sites
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.loop import Batch, descend, parameters
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
    lengths: Tensor | None = None,
    context: Tensor | None = None,
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
        seed: of the order of the sequences.
        progress: whether to show a progress bar.

    Raises:
        ValueError: before the first step, for data that the model refuses, a guide without the
            model's latents, and batches of some of the sequences with a guide that has latents
            of its own for each of them, such as most of Pyro's AutoGuides: it would mix them up.
        TrainingError: if the bound is NaN or infinite; the parameters are those before.
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"expected at least 1 step and sequence, got {steps} and {batch_size}")
    if kl_warmup < 0:
        raise ValueError(f"expected kl_warmup of at least 0 steps, got {kl_warmup}")
    if not isinstance(data, Tensor):
        data = as_frames(data)
    lengths = as_lengths(lengths)
    data = without_padding(data, lengths)
    context = as_context(context, model, data)
    _check(model, data, lengths)
    if guide is None and isinstance(model, SequenceModel) and model.sites:
        raise ValueError(f"expected a guide for the latents {', '.join(model.sites)}, got none")
    _warn_of_values(model, data)
    if guide is not None and batch_size < len(data):
        first = torch.arange(batch_size)
        _check_amortized(model, guide, *_rows(first, model, data, lengths, context))
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


def _check(model: nn.Module, data: Tensor, lengths: Tensor | None) -> None:
    """Refuse bad data at once and not when their turn comes."""
    # a user's own program says nothing of its frames
    shape = model.frame_shape if isinstance(model, SequenceModel) else tuple(data.shape[2:])
    skip = context_length(model)
    if lengths is not None and lengths.shape != (len(data),):
        raise ValueError(f"expected {len(data)} lengths, got {tuple(lengths.shape)}")
    for rows in torch.arange(len(data)).split(64):
        some = None if lengths is None else lengths[rows]
        SequenceBatch.of(data[rows], frame_shape=shape, context_length=skip, lengths=some)


def _warn_of_values(model: nn.Module, data: Tensor) -> None:
    """Say where a density has no upper bound: on a constant, and on 8-bit pixels without noise."""
    # what a user's own program does with its frames is not known
    if not getattr(model, "has_density", False):
        return
    some = data[:64]
    if (some == some.flatten()[0]).all():
        warnings.warn("the data are constant: their density has no upper bound", stacklevel=3)
    elif data.ndim == 5 and ((255 * some).round() - 255 * some).abs().max() < 1e-3:
        warnings.warn(
            "the data are whole 255ths, 8-bit pixels without noise: their density has no upper "
            "bound; dequantize them, see pyro_afslvm.data.GaussianDequantization",
            stacklevel=3,
        )


@torch.no_grad()
def _check_amortized(
    model: nn.Module,
    guide: Callable[..., Any],
    x: Tensor,
    lengths: Tensor | None,
    context: Tensor | None,
) -> None:
    """Refuse a guide that cannot do with other sequences than those it has seen.

    It is run on a batch and then on part of one: parameters of single sequences do not fit.
    """
    given_too = zip(("lengths", "covariates"), (lengths, context), strict=True)
    options = {name: value for name, value in given_too if value is not None}
    count = len(x)
    part = count - 1 if count > 1 else 2
    with torch.random.fork_rng(), evaluating(model, guide), one_line_errors():
        guide(x, **options)
        try:
            rows = torch.arange(part, device=x.device) % count
            some = {name: value[rows] for name, value in options.items()}
            trace = poutine.trace(guide).get_trace(x[rows], **some)
            latents = random_sites(trace).values()
            sizes = {
                plate.size
                for site in latents
                for plate in site["cond_indep_stack"]
                if plate.dim == -1
            }
            fits = sizes <= {part}
        except (RuntimeError, ValueError):
            fits = False
    if not fits:
        raise ValueError(
            "the guide has latents of its own for each sequence, and batches of some of them "
            "would mix these up: pass `batch_size=len(data)`, or take a guide that sees the "
            "sequences, such as FilteringGuide"
        )


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
