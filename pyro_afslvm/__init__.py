"""Sequence models with autoregressive flows across time, in Pyro.

Affine autoregressive flows and sequential latent variable models with exact
likelihoods, after Marino, Chen, He, Mandt, *Improving Sequential Latent Variable
Models with Autoregressive Flows*.

The names below are loaded on first use, so that ``afslvm --help`` costs no import of
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_afslvm.flow import FlowModel as FlowModel
    from pyro_afslvm.guides import FilteringGuide as FilteringGuide
    from pyro_afslvm.guides import IterativeGuide as IterativeGuide
    from pyro_afslvm.guides import SmoothingGuide as SmoothingGuide
    from pyro_afslvm.memory import FrameMemory as FrameMemory
    from pyro_afslvm.pair import Pair as Pair
    from pyro_afslvm.rollout import rollout as rollout
    from pyro_afslvm.slvm import SLVM as SLVM
    from pyro_afslvm.streaming import StreamingFilter as StreamingFilter
    from pyro_afslvm.svi import fit as fit
    from pyro_afslvm.transforms import ConvConditioner as ConvConditioner
    from pyro_afslvm.transforms import InverseAutoregressive as InverseAutoregressive
    from pyro_afslvm.transforms import LSTMConditioner as LSTMConditioner
    from pyro_afslvm.transforms import MLPConditioner as MLPConditioner
    from pyro_afslvm.transforms import TemporalAffine as TemporalAffine
    from pyro_afslvm.transforms import TemporalChain as TemporalChain
    from pyro_afslvm.transforms import TemporalDifference as TemporalDifference
    from pyro_afslvm.transforms import TemporalHierarchy as TemporalHierarchy
    from pyro_afslvm.vae import VAE as VAE
    from pyro_afslvm.vae import ResNetVAE as ResNetVAE
    from pyro_afslvm.vae import ResNetVAEGuide as ResNetVAEGuide
    from pyro_afslvm.vae import VAEGuide as VAEGuide

__version__ = "0.1.0"

_HOME = {
    "ConvConditioner": "transforms",
    "FilteringGuide": "guides",
    "FlowModel": "flow",
    "FrameMemory": "memory",
    "InverseAutoregressive": "transforms",
    "IterativeGuide": "guides",
    "LSTMConditioner": "transforms",
    "MLPConditioner": "transforms",
    "Pair": "pair",
    "ResNetVAE": "vae",
    "ResNetVAEGuide": "vae",
    "SLVM": "slvm",
    "SmoothingGuide": "guides",
    "StreamingFilter": "streaming",
    "TemporalAffine": "transforms",
    "TemporalChain": "transforms",
    "TemporalDifference": "transforms",
    "TemporalHierarchy": "transforms",
    "VAE": "vae",
    "VAEGuide": "vae",
    "fit": "svi",
    "rollout": "rollout",
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
