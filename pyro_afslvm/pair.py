"""A model and its guide, as a recipe returns them."""

from typing import NamedTuple

from torch import nn


class Pair(NamedTuple):
    """A generative model and a guide for it; both are Pyro programs.

    ``guide`` is ``None`` for models without latent variables.
    """

    model: nn.Module
    guide: nn.Module | None
