"""Tables of all kinds as one DataFrame, with what they say of times and identifiers."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_afslvm.utils.errors import reason

TIMES = ("time", "date", "ds", "timestamp", "datetime", "t")  # what columns of them are called
TABLES = (".csv", ".tsv", ".parquet", ".pq")  # what files of tables end in


class Columns(NamedTuple):
    """A DataFrame of columns alone, and which of them holds times and identifiers."""

    frame: Any
    time: str | None = None
    id: str | None = None


def open_table(path: Path) -> Columns:
    """Read a file of CSV, TSV or Parquet.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: Parquet needs a package that is not there.
        ValueError: It cannot be read.
    """
    import pandas as pd

    kind = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if kind not in TABLES:
        raise ValueError(f"{path}: expected a table in a file {', '.join(TABLES)}")
    try:
        if kind in (".parquet", ".pq"):
            return of_frame(pd.read_parquet(path))
        return Columns(pd.read_csv(path, sep="\t" if kind == ".tsv" else ","))
    except ImportError:
        raise ImportError(
            f"{path}: Parquet needs pyarrow: install the extra parquet, or store the table as CSV"
        ) from None
    except Exception as error:  # the libraries raise of all kinds on damaged files
        raise ValueError(f"{path}: cannot be read: {reason(error)}") from error


def of_memory(data: Any, where: str) -> Columns:
    """Take a DataFrame, an xarray object, an array, or a list of arrays of any lengths.

    Raises:
        TypeError: It is something else.
        ValueError: Its dimensions are not those of series.
    """
    import pandas as pd
    import xarray as xr

    if isinstance(data, pd.Series):
        return of_frame(data.to_frame(data.name or "value"))
    if isinstance(data, pd.DataFrame):
        return of_frame(data)
    if isinstance(data, xr.DataArray):
        return _of_dataset(_dataset(data, where), where)
    if isinstance(data, xr.Dataset):
        return _of_dataset(data, where)
    if isinstance(data, np.ndarray) and data.ndim < 3:
        data = [data]
    if not isinstance(data, list | tuple | np.ndarray):
        raise TypeError(
            f"{where}: expected a DataFrame, an xarray object, or arrays, got {type(data).__name__}"
        )
    return _of_arrays([*data], where)


def of_frame(frame: Any) -> Columns:
    """Take a DataFrame; an index that says something becomes a column."""
    import pandas as pd

    index = frame.index
    if index.nlevels == 1 and index.name is None and index.dtype.kind == "i":  # row numbers
        return Columns(frame.reset_index(drop=True))
    if isinstance(index, pd.PeriodIndex):
        frame = frame.set_axis(index.to_timestamp().rename(index.name))
    levels = frame.index.names
    names = [name or f"level_{i}" for i, name in enumerate(levels[:-1])] + [levels[-1] or "time"]
    return Columns(frame.reset_index(names=names), time=str(names[-1]))


def _dataset(array: Any, where: str) -> Any:
    """Give an array's features as variables: those along its last dimension of no time."""
    if array.ndim < 2:
        return array.to_dataset(name=array.name or "value")
    feature = [d for d in array.dims if str(d).lower() in ("feature", "features", "variable")]
    if len(feature) != 1:
        raise ValueError(f"{where}: name one dimension of {array.dims} feature")
    names = array.indexes.get(feature[0], range(array.sizes[feature[0]]))
    parts = zip(names, array.transpose(feature[0], ...), strict=True)
    named = {f"feature_{n + 1}" if isinstance(n, int) else str(n): part for n, part in parts}
    from xarray import Dataset

    return Dataset(
        {name: part.drop_vars(feature[0], errors="ignore") for name, part in named.items()}
    )


def _of_dataset(data: Any, where: str) -> Columns:
    dims = [str(d) for d in data.dims]
    times = [d for d in dims if d.lower() in TIMES or data[d].dtype.kind == "M"]
    others = [d for d in dims if d not in times]
    if len(times) != 1 or len(others) > 1:
        raise ValueError(
            f"{where}: expected dimensions time and at most one of series, got {tuple(dims)}"
        )
    frame = data.to_dataframe().reset_index()
    kept = [*dims, *map(str, data.data_vars)]
    frame = frame[kept].sort_values([*others, *times], kind="stable", ignore_index=True)
    if others:  # series that are shorter are padded by missing values
        values = frame[[*map(str, data.data_vars)]].notna().any(axis=1)
        later = values[::-1].groupby(frame[others[0]][::-1]).cummax()[::-1]
        frame = frame[later].reset_index(drop=True)
    return Columns(frame, times[0], others[0] if others else None)


def _of_arrays(arrays: list[Any], where: str) -> Columns:
    import pandas as pd

    found = [np.asarray(a, dtype=float) for a in arrays]
    found = [a[:, None] if a.ndim == 1 else a for a in found]
    widths = {a.shape[1] if a.ndim == 2 else None for a in found}
    if len(widths) != 1 or None in widths:
        shapes = ", ".join(str(a.shape) for a in found[:4])
        raise ValueError(f"{where}: expected arrays (time, feature) of one width, got {shapes}")
    names = [f"feature_{j + 1}" for j in range(found[0].shape[1])]
    frame = pd.DataFrame(np.concatenate(found), columns=names)
    frame.insert(0, "series", np.repeat(np.arange(len(found)), [len(a) for a in found]))
    return Columns(frame, None, "series")
