"""A model and its guide, as a recipe returns them."""

from typing import Any, NamedTuple

from torch import nn


class Pair(NamedTuple):
    """A generative model and a guide for it; both are Pyro programs.

    ``guide`` is ``None`` for models without latent variables.
    """

    model: nn.Module
    guide: nn.Module | None

    @property
    def parts(self) -> list[nn.Module]:
        """The model, and the guide if there is one."""
        return [part for part in self if part is not None]

    @property
    def num_parameters(self) -> int:
        """Number of parameters of both, together."""
        return sum(parameter.numel() for part in self.parts for parameter in part.parameters())

    def to(self, *where: Any, **how: Any) -> "Pair":
        """Both on a device or in a precision, as :meth:`torch.nn.Module.to`; gives the pair."""
        for part in self.parts:
            part.to(*where, **how)
        return self

    def eval(self) -> "Pair":
        """Both in evaluation mode; gives the pair."""
        for part in self.parts:
            part.eval()
        return self
