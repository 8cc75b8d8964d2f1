"""Forecasts of any number of samples, a few at a time."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_afslvm.data import software_versions
from pyro_afslvm.forecasting.futures import Draw, futures
from pyro_afslvm.guides.base import ForwardGuide, check_guide
from pyro_afslvm.models.checks import check_latents, check_lengths, check_shape, check_values
from pyro_afslvm.models.flow import FlowModel
from pyro_afslvm.models.inputs import as_context, as_frames, as_lengths
from pyro_afslvm.models.programs import evaluating, given_context, one_line_errors
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.utils.dims import FRAME_DIMS

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


@torch.no_grad()
def rollout(
    model: FlowModel | SLVM,
    guide: Callable[..., Any] | None,
    x: Tensor | None,
    *,
    horizon: int,
    num_samples: int = 10,
    temperature: float = 1.0,
    chunk: int = 10,
    lengths: Tensor | None = None,
    context: Tensor | None = None,
    seed: int | None = None,
) -> "xr.Dataset":
    r"""Sample the frames that follow.

    .. math:: z_{1:T} \sim q(z \mid x), \qquad
        z_t \sim p(z_t \mid x_{<t}, z_{<t}), \quad y_t \sim p(y_t \mid z_t), \quad
        x_t = \mu(x_{<t}) + \sigma(x_{<t}) \odot y_t \qquad (t > T)

    Each frame costs the same, however far ahead. The frames that are given are looked at once
    for their latents and once for what follows, however many samples there are. Every chunk is
    moved to main memory as it is made: beside the result, the device holds one chunk.

    Args:
        model: a flow or SLVM; model and guide are run in evaluation mode.
        guide: any guide with a site ``z``; ``None`` for a flow.
        x: ``(batch, T, *frame_shape)``; ``None`` to sample from nothing.
        horizon: frames to sample.
        num_samples: futures of each sequence.
        temperature: factor of the N(0, I) draws behind future latents and frames; 0 for the
            centre of every step (the median of a mixture), 1 for samples of the model. The
            latents of ``x`` are drawn from the guide whatever it is.
        chunk: samples at a time.
        lengths: ``(batch,)``; the future of a sequence follows its own last frame.
        context: covariates of all frames, those to come too: ``(batch, T + horizon, features)``,
            of a shorter sequence right after its own last frame.
        seed: of torch's random numbers; as they are by default.

    Returns:
        ``x_future`` ``(sample, sequence, time_future, *frame)`` in the units of ``x``, float32,
        and for a model with latents ``z_future``.

    Raises:
        TypeError: for another model.
        ValueError: for a horizon below 1, no samples or chunks of none, a negative temperature,
            lengths out of range, or data or a guide the model refuses.
    """
    x = None if x is None else as_frames(x, model, guide, lengths=lengths)
    with evaluating(model, guide), one_line_errors():
        _check_options(horizon, num_samples, chunk, temperature)
        lengths = _check(model, guide, x, lengths)
        if seed is not None:
            pyro.set_rng_seed(seed)
        arrays = _empty(model, num_samples, 1 if x is None else len(x), horizon)
        for future in futures(
            model,
            lambda given, rows, known: _posterior(
                model, given_context(guide, known), given, len(rows)
            ),
            x,
            horizon=horizon,
            num_samples=num_samples,
            chunk=chunk,
            temperature=temperature,
            lengths=lengths,
            context=as_context(context, model, x, horizon),
        ):
            for name, array in arrays.items():
                array[future.samples, future.rows] = future.sites[name].float().cpu().numpy()
        return _dataset(arrays, temperature)


def _check_options(horizon: int, num_samples: int, chunk: int, temperature: float) -> None:
    if horizon < 1:
        raise ValueError(f"expected a horizon of at least 1 frame, got {horizon}")
    if num_samples < 1 or chunk < 1:
        raise ValueError(f"expected at least 1 sample, got {num_samples} in chunks of {chunk}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"expected a temperature of at least 0, got {temperature:g}")


def _check(
    model: FlowModel | SLVM,
    guide: Callable[..., Any] | None,
    x: Tensor | None,
    lengths: Tensor | None,
) -> Tensor | None:
    """Refuse a model, guide and data that do not fit; give the lengths as a tensor."""
    if not isinstance(model, FlowModel | SLVM):
        raise TypeError(f"expected a FlowModel or an SLVM, got {type(model).__name__}")
    if isinstance(model, FlowModel) and guide is not None:
        raise ValueError("expected no guide, for a flow has no latents; got one")
    if isinstance(guide, ForwardGuide):
        check_guide(model, guide)
    if x is None:
        if lengths is not None:
            raise ValueError("expected no lengths without x")
        return None
    check_shape(x, model.frame_shape)
    check_values(x, model.frame_shape)
    if lengths is None:
        return None
    lengths = torch.as_tensor(as_lengths(lengths))
    check_lengths(lengths, len(x), max(1, model.context_length), x.shape[1])
    return lengths


def _posterior(
    model: FlowModel | SLVM, guide: Callable[..., Any] | None, x: Tensor | None, batch: int
) -> Draw:
    """Give what draws latents of the frames that are given, which are encoded here, once."""
    if isinstance(model, FlowModel) or x is None or x.shape[1] == model.context_length:
        return lambda samples: {}
    if guide is None:
        raise ValueError("expected a guide, for this model has latents; got none")
    sites = _stochastic(guide, x)
    if "z" not in sites:
        raise ValueError(f"expected a guide with a site z, got sites {sorted(sites)}")
    check_latents(sites["z"]["value"], x.shape[1] - model.context_length, model.latent_size)
    if list(sites) == ["z"]:
        q = sites["z"]["fn"]
        return lambda samples: {"z": q.expand((len(samples), batch)).sample()}

    def again(samples: range) -> dict[str, Tensor]:
        with pyro.plate("particles", len(samples), dim=-2):
            z: Tensor = _stochastic(guide, x)["z"]["value"]
        return {"z": z.expand(len(samples), batch, *z.shape[-2:])}

    return again


def _stochastic(guide: Callable[..., Any], x: Tensor) -> dict[str, Any]:
    trace = poutine.trace(guide).get_trace(x)
    sites: dict[str, Any] = {name: trace.nodes[name] for name in trace.stochastic_nodes}
    return {name: site for name, site in sites.items() if not site_is_subsample(site)}


def _empty(
    model: FlowModel | SLVM, num_samples: int, batch: int, horizon: int
) -> dict[str, "NDArray[np.float32]"]:
    leading = (num_samples, batch, horizon)
    arrays = {"x_future": np.empty((*leading, *model.frame_shape), np.float32)}
    if isinstance(model, SLVM):
        arrays["z_future"] = np.empty((*leading, model.latent_size), np.float32)
    return arrays


def _dataset(arrays: dict[str, "NDArray[np.float32]"], temperature: float) -> "xr.Dataset":
    import xarray as xr

    samples, batch, horizon, *frame = arrays["x_future"].shape
    leading = ("sample", "sequence", "time_future")
    frame_dims = FRAME_DIMS.get(len(frame)) or tuple(f"frame_{i}" for i in range(len(frame)))
    dims = {"x_future": (*leading, *frame_dims), "z_future": (*leading, "latent")}
    coords = {
        "sample": np.arange(samples),
        "sequence": np.arange(batch),
        "time_future": ("time_future", np.arange(1, horizon + 1), {"units": "frames ahead"}),
    }
    variables = {name: (dims[name], values) for name, values in arrays.items()}
    return xr.Dataset(variables, coords, {"temperature": temperature} | software_versions())
