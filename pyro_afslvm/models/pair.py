"""A model and its guide, as a recipe returns them."""

from importlib import import_module
from pathlib import Path
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

    @classmethod
    def load(
        cls, folder: str | Path, *, recipe: str | Path | None = None, trust: bool = False
    ) -> Any:
        """Load a run: its model and guide with the best weights, in evaluation mode.

        The result unpacks like any pair, and has the ``name`` of its recipe, the
        ``source_settings`` and the ``standardization`` of the data it was trained on.

        Args:
            folder: the run folder.
            recipe: a recipe of the user's own that must have the same text.
            trust: execute the folder's copy of the recipe whoever wrote it.

        Raises:
            RecipeError: the recipe is not one that the user ran here, and is not trusted.
            RunError: there is no run, or its checkpoint is missing or damaged.
        """
        return _trained().load(folder, recipe=recipe, trust=trust)

    def save(
        self,
        folder: str | Path,
        *,
        recipe: str | Path | None = None,
        source: Any = None,
    ) -> None:
        """Write a run folder that :meth:`load` and the command line read.

        Args:
            folder: new or empty.
            recipe: the file that builds this pair; a loaded pair has its own.
            source: the data it was trained on, a
                :class:`~pyro_afslvm.data.SequenceSource`; a loaded pair has its own.

        Raises:
            RunError: the folder holds anything, or the recipe builds another pair.
        """
        _trained().save(self, folder, recipe, source)


def _trained() -> Any:
    return import_module("pyro_afslvm.runs.trained")  # folders know pairs, not pairs folders
