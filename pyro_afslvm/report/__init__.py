"""Finished runs as one self-contained HTML page, and as a table in the terminal."""

from pyro_afslvm.moved import old_names
from pyro_afslvm.report.page import table_text, write_report

__all__ = ["table_text", "write_report"]
__getattr__ = old_names(__name__)
