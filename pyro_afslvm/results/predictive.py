"""Frames that a model draws given latents: the sequences anew, and what follows them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
from torch import Tensor

from pyro_afslvm.forecasting.futures import futures
from pyro_afslvm.objectives.importance import in_chunks
from pyro_afslvm.results.particles import Draws
from pyro_afslvm.results.variables import Array, Sequences, Variable
from pyro_afslvm.utils.precision import as_array

Program = Callable[..., Any]


def replicated(
    model: Program,
    draws: Draws,
    x: Tensor,
    sequences: Sequences,
    *,
    num_draws: int,
    chunk: int,
    lengths: Tensor | None,
) -> Variable | None:
    """Draw the scored frames anew, given each draw's latents; ``None`` where a model cannot."""
    scored = (len(x), x.shape[1] - sequences.given, *x.shape[2:])
    values = np.empty((num_draws, *scored), sequences.x.dtype)
    done = 0
    for size in in_chunks(num_draws, chunk):
        latents = {site: z[done : done + size].to(x.device) for site, z in draws.latents.items()}
        try:
            values[done : done + size] = as_array(_drawn_anew(model, latents, x, size, lengths))
        except NotImplementedError:  # a density that nothing can be drawn from
            return None
        done += size
    hidden = sequences.hidden(values, len(sequences.dims))
    dims = ("chain", "draw", "sequence", "time", *sequences.dims)
    return Variable(dims, hidden, "x ~ p(x | z)", "1")


def _drawn_anew(
    model: Program, latents: dict[str, Tensor], x: Tensor, size: int, lengths: Tensor | None
) -> Tensor:
    def particles() -> None:
        with pyro.plate("particles", size, dim=-2):
            model(x, lengths=lengths)

    trace = poutine.trace(poutine.condition(particles, data=latents)).get_trace()
    observed: Any = trace.nodes["x"]["fn"]
    value: Tensor = observed.expand((size, len(x))).sample()
    return value


def followed(
    model: Program,
    draws: Draws,
    x: Tensor,
    sequences: Sequences,
    *,
    horizon: int,
    num_draws: int,
    chunk: int,
    lengths: Tensor | None,
    context: Tensor | None = None,
) -> Variable:
    """Draw the frames that follow each sequence's own last one."""

    def posterior(
        given: Tensor | None, rows: Array, context: Tensor | None
    ) -> Callable[[range], dict[str, Tensor]]:
        scored = (0 if given is None else given.shape[1]) - sequences.given
        latents = {
            site: z[:, rows, :scored] if site in draws.in_time else z[:, rows]
            for site, z in draws.latents.items()
        }
        return lambda samples: {site: z[samples].to(x.device) for site, z in latents.items()}

    values = np.empty((num_draws, len(x), horizon, *x.shape[2:]), sequences.x.dtype)
    options: dict[str, Any] = {"horizon": horizon, "num_samples": num_draws, "chunk": chunk}
    for future in futures(model, posterior, x, lengths=lengths, context=context, **options):
        values[future.samples, future.rows] = as_array(future.sites["x_future"])
    dims = ("chain", "draw", "sequence", "time_future", *sequences.dims)
    return Variable(dims, values, "frames that follow each sequence's own last one", "1")
