"""Metrics of sequences, and of forecasts of them."""

from pyro_afslvm.metrics.forecasts import (
    coverage,
    crps,
    energy_score,
    forecast_scores,
    squared_error,
)
from pyro_afslvm.metrics.images import psnr, ssim
from pyro_afslvm.metrics.temporal import temporal_correlation, temporal_correlations
from pyro_afslvm.metrics.uncertainty import difference, estimate

__all__ = [
    "coverage",
    "crps",
    "difference",
    "energy_score",
    "estimate",
    "forecast_scores",
    "psnr",
    "squared_error",
    "ssim",
    "temporal_correlation",
    "temporal_correlations",
]
