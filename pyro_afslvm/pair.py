"""A model and its guide, as a recipe returns them."""

from typing import NamedTuple

from torch import nn


class Pair(NamedTuple):
    """A generative model and a guide for it; both are Pyro programs.

    ``guide`` is ``None`` for models without latent variables.
    """

    model: nn.Module
    guide: nn.Module | None

    def eval(self) -> "Pair":
        """Both in evaluation mode; gives the pair."""
        for part in self:
            if part is not None:
                part.eval()
        return self
