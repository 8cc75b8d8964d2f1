"""Data sets, dequantization and protocols.

The names below are loaded on first use, so that the command line can show the data
sets' settings without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_afslvm.data.base import EmptySplitError as EmptySplitError
    from pyro_afslvm.data.base import SequenceSource as SequenceSource
    from pyro_afslvm.data.base import Split as Split
    from pyro_afslvm.data.base import source_from_config as source_from_config
    from pyro_afslvm.data.datasets import GeneratedSequences as GeneratedSequences
    from pyro_afslvm.data.datasets import SequenceDataset as SequenceDataset
    from pyro_afslvm.data.datasets import StoredSequences as StoredSequences
    from pyro_afslvm.data.digits import MovingDigits as MovingDigits
    from pyro_afslvm.data.mnist import MovingMNIST as MovingMNIST
    from pyro_afslvm.data.noise import Dequantization as Dequantization
    from pyro_afslvm.data.noise import GaussianDequantization as GaussianDequantization
    from pyro_afslvm.data.noise import UniformDequantization as UniformDequantization
    from pyro_afslvm.data.noise import dequantization as dequantization
    from pyro_afslvm.data.protocol import Protocol as Protocol
    from pyro_afslvm.data.protocol import check_ceiling as check_ceiling
    from pyro_afslvm.data.protocol import check_unit_range as check_unit_range
    from pyro_afslvm.data.protocol import nats_per_dim as nats_per_dim
    from pyro_afslvm.data.protocol import software_versions as software_versions

_HOME = {
    "Dequantization": "noise",
    "EmptySplitError": "base",
    "GaussianDequantization": "noise",
    "GeneratedSequences": "datasets",
    "MovingDigits": "digits",
    "MovingMNIST": "mnist",
    "Protocol": "protocol",
    "SequenceDataset": "datasets",
    "SequenceSource": "base",
    "Split": "base",
    "StoredSequences": "datasets",
    "UniformDequantization": "noise",
    "check_ceiling": "protocol",
    "check_unit_range": "protocol",
    "dequantization": "noise",
    "nats_per_dim": "protocol",
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
