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
        columns: Names of the features of vectors; ``None`` where the file has none.
    """

    values: Any
    dims: tuple[str, ...] | None = None
    lengths: NDArray[np.int64] | None = None
    columns: tuple[str, ...] | None = None


def open_array(
    path: Path,
    *,
    variable: str | None = None,
    lengths: str | None = None,
    others: Sequence[int | str] = (),
) -> StoredArray:
    """Open an array of an npy, npz, netCDF or HDF5 file or a zarr folder; nothing is unpickled.

    Args:
        path: The file or folder.
        variable: Which array, where there are several; with its group, such as ``train/x``.
        lengths: Array of the sequences' lengths; ``"lengths"`` by default, where it is there.
        others: Arrays that are for something else.

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
    readers |= dict.fromkeys(_HDF5, _hdf5)
    if kind not in readers:
        wanted = "expected a .npy, .npz, .nc or .h5 file or a zarr folder"
        raise ValueError(f"{path}: {CONVERTED.get(kind, wanted)}")
    try:
        members = readers[kind](path)
        left = {name: array for name, array in members.items() if name not in others}
        return _chosen(left, path, variable, lengths or "lengths", lengths)
    except _Missing:
        raise
    except Exception as error:  # the libraries raise of all kinds on damaged files
        advice = (
            _OF_OBJECTS if "Object arrays" in str(error) else f"cannot be read: {reason(error)}"
        )
        raise ValueError(f"{path}: {advice}") from error


_OF_OBJECTS = (
    "holds arrays of Python objects, which may hold code and are never loaded: store sequences of "
    "different lengths in one padded array, and their lengths as 'lengths' beside it"
)
_NETCDF = (".nc", ".nc4", ".netcdf", ".cdf")
_HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
ARRAYS = (".npy", ".npz", *_NETCDF, *_HDF5)  # what files of arrays end in

_SAVED = "store them by numpy.save as .npy"
_TABLE = "a table is read by --data Series, with its names and dates"
_SHEET = f"a sheet is not read as it is: store it as CSV, or by pandas.read_excel and {_SAVED}"
_PICKLE = "may hold code and is never loaded: load it, and store its array by numpy.save as .npy"
CONVERTED = {  # what to do with files of other formats
    ".csv": _TABLE,
    ".tsv": _TABLE,
    ".txt": f"text is not read: take its numbers by numpy.loadtxt and {_SAVED}",
    ".parquet": _TABLE,
    ".xlsx": _SHEET,
    ".pt": _PICKLE,
    ".pth": _PICKLE,
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".mat": f"a file of MATLAB is not read: take its values by scipy.io.loadmat and {_SAVED}",
}


class _Missing(ValueError):
    """A sound file lacks the array that was asked for."""


class _Member(NamedTuple):
    values: Any
    dims: tuple[str, ...] | None
    columns: tuple[str, ...] | None = None


def _npz(path: Path) -> dict[str, _Member]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: _Member(archive[name], None) for name in archive.files}


def _netcdf(path: Path) -> dict[str, _Member]:
    import xarray

    # times may be of any calendar, and of no use here
    options: dict[str, Any] = {"decode_times": False, "decode_timedelta": False}
    with path.open("rb") as file:
        is_classic = file.read(3) == b"CDF"  # netCDF 3
    groups: Any
    if is_classic:
        groups = {"/": xarray.open_dataset(path, engine="scipy", **options)}
    else:
        groups = xarray.open_groups(path, engine="h5netcdf", **options)
    return {
        f"{group.strip('/')}/{name}".lstrip("/"): member
        for group, dataset in groups.items()
        for name, member in _of_dataset(dataset).items()
    }


def _hdf5(path: Path) -> dict[str, _Member]:
    """Arrays of all groups; where dimensions have names the file is read as netCDF."""
    import h5py

    file = h5py.File(path, "r")  # stays open as long as an array of it is used
    found: dict[str, _Member] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = _Member(item, None)

    file.visititems(add)
    if any(member.values.attrs.get("DIMENSION_LIST") is not None for member in found.values()):
        file.close()
        return _netcdf(path)
    return found


def _zarr(path: Path) -> dict[str, _Member]:
    import xarray
    import zarr

    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Array):
        return {found.basename or path.stem: _Member(found, _named(found))}
    arrays = dict(found.arrays())
    if all(_named(array) for array in arrays.values()):  # then units may be packed: decode them
        return _of_dataset(
            xarray.open_zarr(
                path,
                chunks=None,
                consolidated=False,
                decode_times=False,
                decode_timedelta=False,
            )
        )
    return {name: _Member(array, _named(array)) for name, array in arrays.items()}


def _named(array: Any) -> tuple[str, ...] | None:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if names and all(names) else None


def _of_dataset(dataset: Any) -> dict[str, _Member]:
    variables = dataset.data_vars.items()
    return {
        str(name): _Member(array.variable, array.dims, column_names(array))
        for name, array in variables
    }


def column_names(array: Any) -> tuple[str, ...] | None:
    """Give the names that an ``xarray.DataArray`` has along its only dimension with any."""
    named = [c for d, c in array.coords.items() if d in array.dims and c.dtype.kind in "OUT"]
    return tuple(map(str, named[0].values)) if len(named) == 1 else None


def _chosen(
    members: dict[str, _Member], path: Path, variable: str | None, name: str, asked: str | None
) -> StoredArray:
    if asked is not None and asked not in members:
        raise _Missing(f"{path}: holds no array {asked!r} of lengths, but {_listed(members)}")
    others = [key for key in members if key != name]
    if variable is None and len(others) == 1:
        (variable,) = others
    if variable is None or variable not in members:
        if not others:
            raise _Missing(f"{path}: holds no arrays")
        wanted = "several arrays, choose one by variable" if variable is None else f"no {variable}"
        raise _Missing(f"{path}: holds {wanted}: {_listed(others)}")
    lengths = np.asarray(members[name].values[:]) if name in members else None
    found = members[variable]
    return StoredArray(found.values, found.dims, lengths, found.columns)


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
        found = f"expected a complete npy file: {reason(error)}"
        advice = _OF_OBJECTS if "Python objects" in str(error) else found
        raise ValueError(f"{path}: {advice}") from error
