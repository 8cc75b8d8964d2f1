"""Sequences in video files."""

from pyro_afslvm.data.videos.source import Videos

__all__ = ["Videos"]
