"""Metrics of sequences, and of forecasts of them."""

from pyro_afslvm.metrics.forecasts import coverage, crps, forecast_scores
from pyro_afslvm.metrics.images import psnr, ssim
from pyro_afslvm.metrics.temporal import temporal_correlation, temporal_correlations
from pyro_afslvm.metrics.uncertainty import difference, estimate

__all__ = [
    "coverage",
    "crps",
    "difference",
    "estimate",
    "forecast_scores",
    "psnr",
    "ssim",
    "temporal_correlation",
    "temporal_correlations",
]
