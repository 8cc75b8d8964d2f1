"""Sequence models with autoregressive flows across time, in Pyro.

Affine autoregressive flows and sequential latent variable models with exact
likelihoods, after Marino, Chen, He, Mandt, *Improving Sequential Latent Variable
Models with Autoregressive Flows*.

The names below are loaded on first use, so that ``afslvm --help`` costs no import of
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pyro_afslvm import moved  # noqa: F401  # old module paths still work

if TYPE_CHECKING:
    from pyro_afslvm.forecasting.backtest import backtest as backtest
    from pyro_afslvm.forecasting.rollout import rollout as rollout
    from pyro_afslvm.forecasting.series import forecast as forecast
    from pyro_afslvm.forecasting.streaming import StreamingFilter as StreamingFilter
    from pyro_afslvm.guides import FilteringGuide as FilteringGuide
    from pyro_afslvm.guides import IterativeGuide as IterativeGuide
    from pyro_afslvm.guides import SmoothingGuide as SmoothingGuide
    from pyro_afslvm.models.flow import FlowModel as FlowModel
    from pyro_afslvm.models.pair import Pair as Pair
    from pyro_afslvm.models.slvm import SLVM as SLVM
    from pyro_afslvm.models.vae import VAE as VAE
    from pyro_afslvm.models.vae import ResNetVAE as ResNetVAE
    from pyro_afslvm.models.vae import ResNetVAEGuide as ResNetVAEGuide
    from pyro_afslvm.models.vae import VAEGuide as VAEGuide
    from pyro_afslvm.networks.history_encoder import FrameMemory as FrameMemory
    from pyro_afslvm.networks.history_encoder import HistoryEncoder as HistoryEncoder
    from pyro_afslvm.runs.shipped import pretrained as pretrained
    from pyro_afslvm.training.fit import fit as fit
    from pyro_afslvm.transforms import AttentionConditioner as AttentionConditioner
    from pyro_afslvm.transforms import ConvConditioner as ConvConditioner
    from pyro_afslvm.transforms import ConvLSTMConditioner as ConvLSTMConditioner
    from pyro_afslvm.transforms import DilatedConditioner as DilatedConditioner
    from pyro_afslvm.transforms import InverseAutoregressive as InverseAutoregressive
    from pyro_afslvm.transforms import LinearConditioner as LinearConditioner
    from pyro_afslvm.transforms import LSTMConditioner as LSTMConditioner
    from pyro_afslvm.transforms import MLPConditioner as MLPConditioner
    from pyro_afslvm.transforms import MotionConditioner as MotionConditioner
    from pyro_afslvm.transforms import PatchAttentionConditioner as PatchAttentionConditioner
    from pyro_afslvm.transforms import TemporalAffine as TemporalAffine
    from pyro_afslvm.transforms import TemporalAutoregressive as TemporalAutoregressive
    from pyro_afslvm.transforms import TemporalChain as TemporalChain
    from pyro_afslvm.transforms import TemporalDifference as TemporalDifference
    from pyro_afslvm.transforms import TemporalHierarchy as TemporalHierarchy
    from pyro_afslvm.transforms import TemporalMixture as TemporalMixture
    from pyro_afslvm.transforms import TemporalSpline as TemporalSpline

__version__ = "0.1.0"

_HOME = {
    "ConvConditioner": "transforms",
    "FilteringGuide": "guides",
    "FlowModel": "models.flow",
    "FrameMemory": "networks.history_encoder",
    "HistoryEncoder": "networks.history_encoder",
    "InverseAutoregressive": "transforms",
    "IterativeGuide": "guides",
    "LSTMConditioner": "transforms",
    "LinearConditioner": "transforms",
    "MLPConditioner": "transforms",
    "Pair": "models.pair",
    "ResNetVAE": "models.vae",
    "ResNetVAEGuide": "models.vae",
    "SLVM": "models.slvm",
    "SmoothingGuide": "guides",
    "StreamingFilter": "forecasting.streaming",
    "TemporalAffine": "transforms",
    "AttentionConditioner": "transforms",
    "ConvLSTMConditioner": "transforms",
    "DilatedConditioner": "transforms",
    "MotionConditioner": "transforms",
    "PatchAttentionConditioner": "transforms",
    "TemporalAutoregressive": "transforms",
    "TemporalMixture": "transforms",
    "TemporalSpline": "transforms",
    "TemporalChain": "transforms",
    "TemporalDifference": "transforms",
    "TemporalHierarchy": "transforms",
    "VAE": "models.vae",
    "VAEGuide": "models.vae",
    "backtest": "forecasting.backtest",
    "fit": "training.fit",
    "forecast": "forecasting.series",
    "pretrained": "runs.shipped",
    "rollout": "forecasting.rollout",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
