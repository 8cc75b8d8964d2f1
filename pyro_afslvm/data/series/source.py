"""Series of vectors from tables, as a source of sequences."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pyro_afslvm.data.arrays.formats import StoredArray
from pyro_afslvm.data.arrays.source import Arrays
from pyro_afslvm.data.series.table import Missing, Table, read_table

_MEMORY = ":memory:"


class Series(Arrays):
    """Series of vectors with names and dates: CSV, TSV or Parquet files, or tables in memory.

    A row is a time and a column a feature; several series lie below one another, told apart by
    a column ``id``. Time stamps must be regular, or are made so by ``resample``. From ten series
    on whole ones are dealt to the splits; fewer are cut in time, as
    :class:`~pyro_afslvm.data.Arrays` says.

    Args:
        path: The file.
        time: Column of time stamps: dates, or numbers; by default ``time``, ``date``, ``ds`` or
            another of dates, and the rows' numbers where there is none.
        id: Column that tells series apart, of numbers or text; by default ``id``,
            ``unique_id``, ``series``, or the only one of text.
        features: Columns that are modelled; by default all others.
        context: Columns that are known in advance, such as a calendar, and are no part of the
            frames. Rows at the end that have nothing else are of times to come.
        resample: Bring dates to this step, such as ``1h`` or ``1D``, by means.
        missing: What training does with missing values: ``refuse``, or ``interpolate`` on a line
            between their neighbours (likelihoods then count them as if they had been observed).
        standardize: As of arrays, but by default; what is printed, sampled and forecast is in
            the units of the table.
        validation_fraction: Part of the series, or of the time, for validation.
        test_fraction: Part for test.
        gap: Rows left out between splits in time.
        seed: Seed of random crops in time.

    Raises:
        ValueError: A setting is out of range, or, when the data are first needed, they cannot
            be used; in one line that names the file and the column, series or time.

    Example:
        >>> import pandas as pd
        >>> days = pd.date_range("2024-01-01", periods=200, name="day")
        >>> walk = np.random.default_rng(0).normal(size=(200, 2)).cumsum(0)
        >>> source = Series.of(pd.DataFrame(walk, index=days, columns=["sales", "price"]))
        >>> source.frame_shape, source.table.names
        ((2,), ('sales', 'price'))
    """

    name = "series"

    def __init__(
        self,
        *,
        path: str,
        time: str | None = None,
        id: str | None = None,
        features: list[str] | None = None,
        context: list[str] | None = None,
        resample: str | None = None,
        missing: Missing = "refuse",
        standardize: bool = True,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        gap: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(
            path=path,
            standardize=standardize,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            gap=gap,
            seed=seed,
            context=[*(context or [])],
        )
        self.missing = missing
        self._columns: dict[str, Any] = {
            "time": time,
            "id": id,
            "features": features,
            "known": tuple(context or ()),
            "resample": resample,
        }
        self._data: Any = None

    @classmethod
    def of(cls, data: Any, **settings: Any) -> "Series":
        """Make a source of series in memory.

        Args:
            data: A pandas DataFrame (wide, or long with an id), an xarray Dataset or DataArray
                of a dimension of time and perhaps one of series, an array (time, feature), or a
                list of those, of any lengths.
            settings: As for the class, but for ``path``.
        """
        source = cls(path=_MEMORY, **settings)
        source._data = data
        return source

    @cached_property
    def table(self) -> Table:
        """The series with their names and times; missing values are NaN."""
        if self._data is None and self.path == _MEMORY:
            raise ValueError("the data were given in memory: hand over the same source again")
        return read_table(self.path if self._data is None else self._data, **self._columns)

    @property
    def _where(self) -> str:
        return self.path if self._data is None else "the data in memory"

    @property
    def _opener(self) -> Any:
        return partial(_same, self._stored)

    @cached_property
    def _stored(self) -> StoredArray:
        """All series in one array, (series, time, feature), padded by zeros."""
        table = self.table.filled(self.missing)
        lengths = np.array([len(times) for times in table.times])
        names = (*table.names, *table.known)
        array = np.zeros((len(lengths), int(lengths.max()), len(names)))
        for place, length, values, known in zip(
            array, lengths, table.values, table.covariates, strict=True
        ):
            place[:length] = np.concatenate([values, known[:length]], 1)
        return StoredArray(array, ("sequence", "time", "feature"), lengths, names)

    def describe(self) -> dict[str, object]:
        """Settings as JSON values, with the features' names."""
        more = {} if self.missing == "refuse" else {"missing": self.missing}
        return {**super().describe(), "features": [*self.table.names], **more}


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name."""
    from pyro_afslvm.data.series.formats import TABLES

    return path.suffix.lower() in TABLES


def _same(stored: StoredArray) -> StoredArray:
    return stored
