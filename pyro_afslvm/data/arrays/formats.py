"""Opening of array files of any format; a damaged one ends in one clear line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.utils.errors import reason

Pixels = NDArray[np.uint8]


class StoredArray(NamedTuple):
    """An array that is read piece by piece.

    Args:
        values: The array, indexed by tuples of integers and slices; has a shape and a dtype.
        dims: Names of its dimensions; ``None`` where the file has none.
        lengths: Frames of each sequence that count; ``None`` where all do.
    """

    values: Any
    dims: tuple[str, ...] | None = None
    lengths: NDArray[np.int64] | None = None


def open_array(
    path: Path, *, variable: str | None = None, lengths: str | None = None
) -> StoredArray:
    """Open an array of an npy, npz or netCDF file or a zarr folder; nothing is ever unpickled.

    Args:
        path: The file or folder.
        variable: Which array, where there are several.
        lengths: Array of the sequences' lengths; ``"lengths"`` by default, where it is there.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or the array is not in it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    kind = "zarr" if path.is_dir() else path.suffix.lower()
    if kind == ".npy":
        return StoredArray(open_npy(path))
    readers = {".npz": _npz, "zarr": _zarr, **dict.fromkeys(_NETCDF, _netcdf)}
    if kind not in readers:
        raise ValueError(f"{path}: expected a .npy, .npz or .nc file or a zarr folder")
    try:
        return _chosen(readers[kind](path), path, variable, lengths or "lengths", lengths)
    except _Missing:
        raise
    except Exception as error:  # the libraries raise of all kinds on damaged files
        raise ValueError(f"{path}: cannot be read: {reason(error)}") from error


_NETCDF = (".nc", ".nc4", ".netcdf", ".cdf", ".h5")


class _Missing(ValueError):
    """A sound file lacks the array that was asked for."""


class _Member(NamedTuple):
    values: Any
    dims: tuple[str, ...] | None


def _npz(path: Path) -> dict[str, _Member]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: _Member(archive[name], None) for name in archive.files}


def _netcdf(path: Path) -> dict[str, _Member]:
    import xarray

    return _of_dataset(xarray.open_dataset(path, engine="h5netcdf"))


def _zarr(path: Path) -> dict[str, _Member]:
    import xarray
    import zarr

    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Array):
        return {found.basename or path.stem: _Member(found, _named(found))}
    arrays = dict(found.arrays())
    if all(_named(array) for array in arrays.values()):  # then units may be packed: decode them
        return _of_dataset(xarray.open_zarr(path, chunks=None, consolidated=False))
    return {name: _Member(array, _named(array)) for name, array in arrays.items()}


def _named(array: Any) -> tuple[str, ...] | None:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if names and all(names) else None


def _of_dataset(dataset: Any) -> dict[str, _Member]:
    variables = dataset.data_vars.items()
    return {str(name): _Member(array.variable, array.dims) for name, array in variables}


def _chosen(
    members: dict[str, _Member], path: Path, variable: str | None, name: str, asked: str | None
) -> StoredArray:
    if asked is not None and asked not in members:
        raise _Missing(f"{path}: holds no array {asked!r} of lengths, but {_listed(members)}")
    others = [key for key in members if key != name]
    if variable is None and len(others) == 1:
        (variable,) = others
    if variable is None or variable not in members:
        wanted = "several arrays, choose one by variable" if variable is None else f"no {variable}"
        raise _Missing(f"{path}: holds {wanted}: {_listed(others)}")
    lengths = np.asarray(members[name].values[:]) if name in members else None
    return StoredArray(*members[variable], lengths)


def _listed(names: Sequence[str] | dict[str, _Member]) -> str:
    return ", ".join(names) or "nothing"


def open_npy(path: Path) -> Any:
    """Map an npy file.

    Raises:
        ValueError: It is no complete npy file.
    """
    try:  # maps or fails: it never unpickles
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, SyntaxError, EOFError, OverflowError) as error:
        raise ValueError(f"{path}: expected a complete npy file: {reason(error)}") from error
