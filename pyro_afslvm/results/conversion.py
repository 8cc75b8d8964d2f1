"""Conversion of results for ArviZ."""

import warnings
from typing import Any

import numpy as np
import xarray as xr


def to_arviz(tree: xr.DataTree, *, entries: bool = False) -> Any:
    """Convert results to the type of the installed ArviZ, ready for its statistics.

    ``az.summary``, ``az.loo`` and ``az.compare`` run on it as they are; what their numbers
    mean is said in :func:`~pyro_afslvm.results.infer`. For that, in a copy:

    - ``log_likelihood`` holds ``x`` alone, as ArviZ asks for one variable; ``x_step`` stands in
      ``sample_stats`` as ``log_likelihood_step``.
    - Where all draws agree on log p(x) to the rounding of float32, as those of a model without
      latents do, they are spread evenly over it: ArviZ fits a tail, and refuses constants.
    - ``observed_data`` and ``posterior_predictive`` hold for ``x`` the mean of each sequence over
      the entries that count: one observation for each log-likelihood, as ``az.plot_loo_pit``
      asks for. With ``entries=True`` they hold the frames, for ``az.plot_ppc`` of all entries.
    - What follows the sequences, ``x_future``, stands in ``predictions``.
    - A model without latents has ``log_evidence``, its log p(x), for a posterior.

    Args:
        tree: results from :func:`~pyro_afslvm.results.infer` or
            :func:`~pyro_afslvm.results.load`.
        entries: whether ``x`` is the frames, entry by entry, and not the mean of each sequence.

    Returns:
        ``arviz.InferenceData`` for ArviZ 0.x, the tree's copy for 1.x.
    """
    groups = {name: child.to_dataset() for name, child in tree.children.items()}
    likelihood = groups["log_likelihood"]
    step = likelihood["x_step"].rename("log_likelihood_step")
    groups["sample_stats"] = groups["sample_stats"].assign({step.name: step})
    groups["log_likelihood"] = likelihood[["x"]].assign(x=_spread(likelihood["x"]))
    if "posterior" not in groups:
        groups["posterior"] = likelihood[["x"]].rename(x="log_evidence")
    _show_observations(groups, entries=entries)
    root = xr.Dataset(attrs=tree.attrs)
    copy = xr.DataTree.from_dict({"/": root, **groups})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.23 warns on import, 1.x of the question alone
        import arviz

        kind = getattr(arviz, "InferenceData", None)
    return copy if kind in (None, xr.DataTree) else kind.from_datatree(copy)


def _show_observations(groups: dict[str, xr.Dataset], *, entries: bool) -> None:
    """Let observations and their replicates be of one shape, alone in their groups."""
    predictive = groups.pop("posterior_predictive", xr.Dataset())
    if "x_future" in predictive:
        groups["predictions"] = predictive[["x_future"]]
    shown = {"observed_data": groups["observed_data"]}
    if "x" in predictive:
        shown["posterior_predictive"] = predictive[["x"]]
    for name, group in shown.items():
        groups[name] = group if entries else _means(group)


def _means(group: xr.Dataset) -> xr.Dataset:
    inner = [dim for dim in group["x"].dims if dim not in ("chain", "draw", "sequence")]
    mean = group[["x"]].mean(inner, skipna=True)
    mean["x"].attrs = {"long_name": "mean of the entries that count", "units": "1"}
    return mean


def _spread(log_prob: xr.DataArray) -> xr.DataArray:
    """Spread draws that agree to the rounding of float32 evenly over it."""
    rounding = np.finfo(np.float32).eps * np.maximum(1.0, abs(log_prob.mean("draw")))
    agree = log_prob.max("draw") - log_prob.min("draw") < rounding
    ladder = xr.DataArray(np.linspace(-0.5, 0.5, log_prob.sizes["draw"]), dims="draw")
    return log_prob.where(~agree, log_prob + rounding * ladder)
