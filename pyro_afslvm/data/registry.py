"""Registry of sources, which finds them by name, by import path, or by what lies at a path.

A source is any subclass of :class:`SequenceSource` that was defined: this library's, those
that installed packages declare as entry points of the group ``pyro_afslvm.sources``, and
those of a module or recipe of yours::

    [project.entry-points."pyro_afslvm.sources"]
    Traffic = "my_package.data:Traffic"
"""

import warnings
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pyro_afslvm.data.arrays.formats import ARRAYS, CONVERTED
from pyro_afslvm.data.arrays.source import Arrays
from pyro_afslvm.data.datasets.bair import BAIR
from pyro_afslvm.data.datasets.binarized_mnist import BinarizedMNIST
from pyro_afslvm.data.datasets.kth import KTH
from pyro_afslvm.data.datasets.moving_digits import MovingDigits
from pyro_afslvm.data.datasets.moving_mnist import MovingMNIST
from pyro_afslvm.data.fetch import BAIR_FOLDER, IDX_TEST, IDX_TRAIN, PUBLIC
from pyro_afslvm.data.series.source import Series, is_table
from pyro_afslvm.data.source import REGISTERED, SequenceSource, import_path
from pyro_afslvm.data.videos.source import SUFFIXES, Videos
from pyro_afslvm.utils.errors import named_reason

GROUP = "pyro_afslvm.sources"
# This library's, imported here so that they are registered.
SOURCES: list[type[SequenceSource]] = [Arrays, BAIR, BinarizedMNIST, KTH]
SOURCES += [MovingDigits, MovingMNIST, Series, Videos]

_DIGITS = (PUBLIC, IDX_TEST, IDX_TRAIN, f"{IDX_TEST}.gz", f"{IDX_TRAIN}.gz")

DATA_SUFFIXES = (*ARRAYS, *CONVERTED, *SUFFIXES)  # what names of files of data end in


class UnknownSourceError(ValueError):
    """A stored run names a source that is not registered."""


@lru_cache(maxsize=1)
def load_installed() -> None:
    """Import the sources of installed packages.

    Warns:
        UserWarning: One cannot be imported.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            text = f"source {point.name} ({point.value}): {named_reason(error)}"
            warnings.warn(text, stacklevel=2)


def find_source(name: str, *, trust: bool = False) -> type[SequenceSource]:
    """Find a source by its name.

    Args:
        name: Name of the class, such as ``"MovingDigits"``, or its import path.
        trust: Import the path if it is not registered, which executes its module.

    Raises:
        UnknownSourceError: There is none of that name, or more than one.

    Example:
        >>> find_source("MovingDigits").name
        'moving_digits'
    """
    found = _registered(name)
    if not found:
        load_installed()
        found = _registered(name)
    if not found and trust and "." in name:
        _import(name.rpartition(".")[0])
        found = _registered(name)
    if len(found) > 1:
        paths = " and ".join(map(import_path, found))
        raise UnknownSourceError(f"there are several sources {name}: {paths}")
    if not found:
        what_to_do = "" if trust else ": import its module first, or give --trust to have it done"
        raise UnknownSourceError(f"{name} is no source that is known here{what_to_do}")
    return found[0]


def _import(module: str) -> None:
    try:
        import_module(module)
    except Exception as error:
        raise UnknownSourceError(f"cannot import {module}: {named_reason(error)}") from error


def _registered(name: str) -> list[type[SequenceSource]]:
    for source in SOURCES:
        if name == source.__name__:
            return [source]
    if name in REGISTERED:
        return [REGISTERED[name]]
    return [source for source in REGISTERED.values() if source.__name__ == name]


def is_registered(name: str) -> bool:
    """Check whether a source of that name, or import path, was defined here."""
    return bool(_registered(name))


def source_from_config(config: dict[str, Any], *, trust: bool = False) -> SequenceSource:
    """Make a source again from its ``config()``.

    Args:
        config: Class and arguments; a class that is not of this library must be registered.
        trust: Import the class otherwise, which executes its module.

    Raises:
        UnknownSourceError: The class is not registered.
        ValueError: Its arguments do not fit.
    """
    name = str(config.get("class"))
    source = find_source(name, trust=trust)
    try:
        return source(**config.get("arguments", {}))
    except TypeError as error:
        raise ValueError(f"settings of {name} are damaged: {error}") from None


def guess_source(path: str) -> SequenceSource:
    """Choose the source for a file, a folder or a pattern, with its default settings.

    Tables, array files and zarr folders, MNIST's digits, KTH Actions and BAIR robot pushing are
    known by their names; anything else is taken for videos.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: A single file of a set was named, not the set's folder.

    Example:
        >>> guess_source("films/*.mp4").name
        'videos'
    """
    place = Path(path).expanduser()
    is_pattern = any(sign in path for sign in "*?[")
    if not place.exists() and not is_pattern:
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if place.name.endswith(".tfrecords"):
        raise ValueError(f"{path}: name the folder that holds train and test, not one file")
    if place.name in _DIGITS or _holds(place, *_DIGITS):
        return MovingMNIST(path=path)
    if is_table(place):
        return Series(path=path)
    if place.suffix.lower() in (*ARRAYS, *CONVERTED) or _holds(
        place, "zarr.json", ".zarray", ".zgroup"
    ):
        return Arrays(path=path)
    if _holds(place, "00sequences.txt"):
        return KTH(path=path)
    if _holds(place, BAIR_FOLDER) or place.name == BAIR_FOLDER or _has_records(place):
        return BAIR(path=path)
    return Videos(path=path)


def _holds(folder: Path, *names: str) -> bool:
    return any((folder / name).exists() for name in names)


def _has_records(folder: Path) -> bool:
    return any(folder.glob("train/*.tfrecords")) or any(folder.glob("test/*.tfrecords"))
