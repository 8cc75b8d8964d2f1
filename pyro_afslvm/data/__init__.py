"""Data sets, dequantization and protocols.

The names below are loaded on first use, so that the command line can show the data
sets' settings without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_afslvm.data.arrays import Arrays as Arrays
    from pyro_afslvm.data.bair import BAIR as BAIR
    from pyro_afslvm.data.base import EmptySplitError as EmptySplitError
    from pyro_afslvm.data.base import SequenceSource as SequenceSource
    from pyro_afslvm.data.base import ShortSplitError as ShortSplitError
    from pyro_afslvm.data.base import Split as Split
    from pyro_afslvm.data.base import source_from_config as source_from_config
    from pyro_afslvm.data.binarized import BinarizedMNIST as BinarizedMNIST
    from pyro_afslvm.data.datasets import GeneratedSequences as GeneratedSequences
    from pyro_afslvm.data.datasets import SequenceDataset as SequenceDataset
    from pyro_afslvm.data.datasets import StoredSequences as StoredSequences
    from pyro_afslvm.data.digits import MovingDigits as MovingDigits
    from pyro_afslvm.data.kth import KTH as KTH
    from pyro_afslvm.data.mnist import MovingMNIST as MovingMNIST
    from pyro_afslvm.data.noise import Dequantization as Dequantization
    from pyro_afslvm.data.noise import GaussianDequantization as GaussianDequantization
    from pyro_afslvm.data.noise import NoDequantization as NoDequantization
    from pyro_afslvm.data.noise import UniformDequantization as UniformDequantization
    from pyro_afslvm.data.noise import choose_noise as choose_noise
    from pyro_afslvm.data.noise import dequantization as dequantization
    from pyro_afslvm.data.protocol import Protocol as Protocol
    from pyro_afslvm.data.protocol import check_ceiling as check_ceiling
    from pyro_afslvm.data.protocol import software_versions as software_versions
    from pyro_afslvm.data.videos import Videos as Videos

_HOME = {
    "Arrays": "arrays",
    "BAIR": "bair",
    "BinarizedMNIST": "binarized",
    "Dequantization": "noise",
    "EmptySplitError": "base",
    "GaussianDequantization": "noise",
    "GeneratedSequences": "datasets",
    "KTH": "kth",
    "MovingDigits": "digits",
    "MovingMNIST": "mnist",
    "NoDequantization": "noise",
    "Protocol": "protocol",
    "SequenceDataset": "datasets",
    "SequenceSource": "base",
    "ShortSplitError": "base",
    "Split": "base",
    "StoredSequences": "datasets",
    "UniformDequantization": "noise",
    "Videos": "videos",
    "check_ceiling": "protocol",
    "choose_noise": "noise",
    "dequantization": "noise",
    "software_versions": "protocol",
    "source_from_config": "base",
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
