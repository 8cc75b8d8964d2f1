"""Series in tables: with names, dates and several of them by an identifier."""

from pyro_afslvm.data.series.source import Series
from pyro_afslvm.data.series.table import Table, read_table

__all__ = ["Series", "Table", "read_table"]
