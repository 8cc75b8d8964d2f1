"""Conversion of results for ArviZ."""

import warnings
from typing import Any

import numpy as np
import xarray as xr


def to_arviz(tree: xr.DataTree) -> Any:
    """Convert results to the type of the installed ArviZ, ready for its statistics.

    ``az.summary``, ``az.loo`` and ``az.compare`` run on it as they are; what their numbers
    mean is said in :func:`~pyro_afslvm.results.infer`. For that, in a copy:

    - ``log_likelihood`` holds ``x`` alone, as ArviZ asks for one variable; ``x_step`` stands in
      ``sample_stats`` as ``log_likelihood_step``.
    - Where all draws agree on log p(x) to the rounding of float32, as those of a model without
      latents do, they are spread evenly over it: ArviZ fits a tail, and refuses constants.
    - A model without latents has ``log_evidence``, its log p(x), for a posterior.

    Args:
        tree: results from :func:`~pyro_afslvm.results.infer` or
            :func:`~pyro_afslvm.results.load`.

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
    root = xr.Dataset(attrs=tree.attrs)
    copy = xr.DataTree.from_dict({"/": root, **groups})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.23 warns on import, 1.x of the question alone
        import arviz

        kind = getattr(arviz, "InferenceData", None)
    return copy if kind in (None, xr.DataTree) else kind.from_datatree(copy)


def _spread(log_prob: xr.DataArray) -> xr.DataArray:
    """Spread draws that agree to the rounding of float32 evenly over it."""
    rounding = np.finfo(np.float32).eps * np.maximum(1.0, abs(log_prob.mean("draw")))
    agree = log_prob.max("draw") - log_prob.min("draw") < rounding
    ladder = xr.DataArray(np.linspace(-0.5, 0.5, log_prob.sizes["draw"]), dims="draw")
    return log_prob.where(~agree, log_prob + rounding * ladder)
