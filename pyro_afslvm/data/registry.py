"""Which source reads what lies at a path."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_afslvm.data.fetch import BAIR_FOLDER, IDX_TEST, IDX_TRAIN, PUBLIC
from pyro_afslvm.data.source import SequenceSource

if TYPE_CHECKING:
    pass


_ARRAYS = (".npy", ".npz", ".nc", ".nc4", ".netcdf", ".cdf", ".h5")
_DIGITS = (PUBLIC, IDX_TEST, IDX_TRAIN, f"{IDX_TEST}.gz", f"{IDX_TRAIN}.gz")


def guess_source(path: str) -> SequenceSource:
    """The source for a file, a folder or a pattern, with its default settings.

    Array files and zarr folders, MNIST's digits, KTH Actions and BAIR robot pushing are known
    by their names; anything else is taken for videos.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: A single file of a set was named, not the set's folder.

    Example:
        >>> guess_source("films/*.mp4").name
        'videos'
    """
    from pyro_afslvm.data import BAIR, KTH, Arrays, MovingMNIST, Videos

    place = Path(path).expanduser()
    is_pattern = any(sign in path for sign in "*?[")
    if not place.exists() and not is_pattern:
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if place.name.endswith(".tfrecords"):
        raise ValueError(f"{path}: name the folder that holds train and test, not one file")
    if place.name in _DIGITS or _holds(place, *_DIGITS):
        return MovingMNIST(path=path)
    if place.suffix.lower() in _ARRAYS or _holds(place, "zarr.json", ".zarray", ".zgroup"):
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


def source_from_config(config: dict[str, Any]) -> SequenceSource:
    """Make the source of which this is the ``config()``; sources of this library only.

    Raises:
        ValueError: It names something else.
    """
    import pyro_afslvm.data as data

    name = config.get("class")
    source = getattr(data, name) if isinstance(name, str) and name in data.__all__ else None
    if not (isinstance(source, type) and issubclass(source, SequenceSource)):
        raise ValueError(f"{name!r} is no source of sequences of this library: give --data")
    try:
        made: SequenceSource = source(**config.get("arguments", {}))
    except TypeError as error:
        raise ValueError(f"settings of {name} are damaged: {error}") from None
    return made
