"""The ``afslvm`` command."""

from pyro_afslvm.cli.main import main
from pyro_afslvm.moved import old_names

__all__ = ["main"]
__getattr__ = old_names(__name__)
