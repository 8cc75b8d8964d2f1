"""Data sets, dequantization and protocols.

The names below are loaded on first use, so that the command line can show the data
sets' settings without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_afslvm.data.arrays.source import Arrays as Arrays
    from pyro_afslvm.data.datasets.bair import BAIR as BAIR
    from pyro_afslvm.data.datasets.binarized_mnist import BinarizedMNIST as BinarizedMNIST
    from pyro_afslvm.data.datasets.kth import KTH as KTH
    from pyro_afslvm.data.datasets.moving_digits import MovingDigits as MovingDigits
    from pyro_afslvm.data.datasets.moving_mnist import MovingMNIST as MovingMNIST
    from pyro_afslvm.data.dequantize import Dequantization as Dequantization
    from pyro_afslvm.data.dequantize import GaussianDequantization as GaussianDequantization
    from pyro_afslvm.data.dequantize import NoDequantization as NoDequantization
    from pyro_afslvm.data.dequantize import UniformDequantization as UniformDequantization
    from pyro_afslvm.data.dequantize import dequantization as dequantization
    from pyro_afslvm.data.protocol import Protocol as Protocol
    from pyro_afslvm.data.protocol import check_ceiling as check_ceiling
    from pyro_afslvm.data.protocol import software_versions as software_versions
    from pyro_afslvm.data.registry import source_from_config as source_from_config
    from pyro_afslvm.data.sequences import GeneratedSequences as GeneratedSequences
    from pyro_afslvm.data.sequences import SequenceDataset as SequenceDataset
    from pyro_afslvm.data.sequences import StoredSequences as StoredSequences
    from pyro_afslvm.data.series.source import Series as Series
    from pyro_afslvm.data.source import SequenceSource as SequenceSource
    from pyro_afslvm.data.source import choose_dequantization as choose_dequantization
    from pyro_afslvm.data.source import choose_noise as choose_noise
    from pyro_afslvm.data.splits import EmptySplitError as EmptySplitError
    from pyro_afslvm.data.splits import ShortSplitError as ShortSplitError
    from pyro_afslvm.data.splits import Split as Split
    from pyro_afslvm.data.videos.source import Videos as Videos

_HOME = {
    "Arrays": "arrays.source",
    "BAIR": "datasets.bair",
    "BinarizedMNIST": "datasets.binarized_mnist",
    "Dequantization": "dequantize",
    "EmptySplitError": "splits",
    "GaussianDequantization": "dequantize",
    "GeneratedSequences": "sequences",
    "KTH": "datasets.kth",
    "MovingDigits": "datasets.moving_digits",
    "MovingMNIST": "datasets.moving_mnist",
    "NoDequantization": "dequantize",
    "Protocol": "protocol",
    "SequenceDataset": "sequences",
    "SequenceSource": "source",
    "Series": "series.source",
    "ShortSplitError": "splits",
    "Split": "splits",
    "StoredSequences": "sequences",
    "UniformDequantization": "dequantize",
    "Videos": "videos.source",
    "check_ceiling": "protocol",
    "choose_dequantization": "source",
    "choose_noise": "source",
    "dequantization": "dequantize",
    "software_versions": "protocol",
    "source_from_config": "registry",
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
