"""Frames that follow given ones and draws of their latents, a few at a time."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.infer import Predictive
from torch import Tensor

from pyro_afslvm.models.base import SequenceModel, simulate
from pyro_afslvm.models.programs import given_context

Rows = NDArray[np.intp]
Latents = Mapping[str, Tensor]  # by site, each (samples, batch, T, ...)
Draw = Callable[[range], Latents]  # these of all samples
# of given frames, which of all they are, and their covariates
Posterior = Callable[[Tensor | None, Rows, Tensor | None], Draw]
Follow = Callable[[Latents, int], dict[str, Tensor]]  # so many samples of sites


class Futures(NamedTuple):
    """A chunk of samples of what follows some of the sequences."""

    samples: slice
    rows: Rows
    sites: dict[str, Tensor]  # x_future, perhaps z_future: (samples, rows, horizon, ...)


def futures(
    model: Callable[..., Any],
    posterior: Posterior,
    x: Tensor | None,
    *,
    horizon: int,
    num_samples: int,
    chunk: int,
    temperature: float = 1.0,
    lengths: Tensor | None = None,
    context: Tensor | None = None,
) -> Iterator[Futures]:
    """Sample the frames that follow each sequence's own last one.

    A model with steps looks at the frames that are given once, however many samples there are;
    any other Pyro program with a ``horizon`` is run with its latents given.

    Args:
        model: the model.
        posterior: is called with sequences of one length, their places in ``x`` and covariates,
            and gives what draws their latents.
        x: ``(batch, T, *frame_shape)``; ``None`` to sample from nothing.
        horizon: frames to sample.
        num_samples: futures of each sequence.
        chunk: samples at a time.
        temperature: standard deviation of what is drawn at each step; 1 for a program without.
        lengths: ``(batch,)``.
        context: covariates of all frames and those to come, ``(batch, T + horizon, features)``.
    """
    for rows, given in _of_one_length(x, lengths):
        known = None
        if context is not None:
            past = 0 if given is None else given.shape[1]
            known = context[torch.as_tensor(rows, device=context.device), : past + horizon]
        draw = posterior(given, rows, None if known is None else known[:, :-horizon])
        follow = _follow(model, given, len(rows), horizon, temperature, known)
        for first in range(0, num_samples, chunk):
            samples = range(first, min(first + chunk, num_samples))
            sites = follow(draw(samples), len(samples))
            yield Futures(slice(first, samples.stop), rows, sites)


def _follow(
    model: Callable[..., Any],
    x: Tensor | None,
    batch: int,
    horizon: int,
    temperature: float,
    context: Tensor | None,
) -> Follow:
    """Look at frames that are given; give what samples the future of them and their latents."""
    if isinstance(model, SequenceModel) and model.eps_size:
        return _by_steps(model, x, batch, horizon, temperature, context)
    return _by_program(given_context(model, context), x, horizon)


def _by_steps(
    model: SequenceModel,
    x: Tensor | None,
    batch: int,
    horizon: int,
    temperature: float,
    context: Tensor | None,
) -> Follow:
    before = {} if context is None else {"context": context[:, :-horizon]}
    given = None if x is None else model.given(x, **before)
    after = None if context is None else context[:, -horizon:]
    like = next(model.parameters(), torch.empty(())) if x is None else x

    def follow(latents: Latents, size: int) -> dict[str, Tensor]:
        scored = x is not None and x.shape[1] > model.context_length
        if scored and not set(model.sites) <= latents.keys():
            raise ValueError(f"expected latents {model.sites} of the model, got {tuple(latents)}")
        shape = torch.Size((size, batch))
        state = model.initial_state(shape, given=given, z=latents.get("z"))
        eps = torch.randn(*shape, horizon, model.eps_size, dtype=like.dtype, device=like.device)
        future = simulate(model, temperature * eps, state, after)
        return {f"{site}_future": v for site, v in future._asdict().items() if v is not None}

    return follow


def _by_program(model: Callable[..., Any], x: Tensor | None, horizon: int) -> Follow:
    def follow(latents: Latents, size: int) -> dict[str, Tensor]:
        options: dict[str, Any] = {"posterior_samples": dict(latents)}
        if not latents:
            options = {"num_samples": size}
        program = Predictive(model, parallel=True, return_sites=("x_future",), **options)
        frames = program(x, horizon=horizon)["x_future"]
        if x is not None:
            frames = frames.reshape(size, len(x), horizon, *x.shape[2:])
        return {"x_future": frames}

    return follow


def _of_one_length(
    x: Tensor | None, lengths: Tensor | None
) -> Iterator[tuple[Rows, Tensor | None]]:
    """Group sequences by length, for no future follows padding: their places, and themselves."""
    if x is None:
        yield np.arange(1), None
        return
    if lengths is None:
        yield np.arange(len(x)), x
        return
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero().squeeze(-1)
        yield rows.cpu().numpy(), x[rows.to(x.device), :length]
