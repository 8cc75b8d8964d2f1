"""Sequences in video files."""

from pyro_afslvm.data.videos.source import Videos
from pyro_afslvm.moved import old_names

__all__ = ["Videos"]
__getattr__ = old_names(__name__)
