"""Recipes: Python files with a ``build()``, whose text is the whole configuration."""

import hashlib
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_afslvm.utils.errors import named_reason

if TYPE_CHECKING:
    from pyro_afslvm.models.pair import Pair


class RecipeError(ValueError):
    """A recipe is missing, has no ``build()``, raises, or may not be executed."""


@dataclass(frozen=True)
class Recipe:
    """A model's definition: ``build(frame_shape=...)`` and its hyper-parameters."""

    path: Path
    text: str
    build: Callable[..., Any]
    constants: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``NAME`` of the recipe, else its file name."""
        return str(self.constants.get("NAME", self.path.stem))

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return digest(self.text)


def digest(text: str) -> str:
    """Compute the SHA-256 of a recipe's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: str | Path) -> Recipe:
    """Read and execute a recipe.

    Args:
        path: a Python file that defines ``build(frame_shape=...)`` and returns a ``Pair``.

    Raises:
        RecipeError: if the file is missing, raises, or has no ``build``.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path}: {_reason(error)}") from None
    return execute(path, text)


def execute(path: Path, text: str) -> Recipe:
    """Make a recipe of its text; this runs it."""
    module = types.ModuleType(f"recipe_{digest(text)[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickles look there
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"recipe {path} raises {_reason(error)}") from error
    build = module.__dict__.get("build")
    if not callable(build):
        raise RecipeError(f"recipe {path} has no build(); expected build(frame_shape=...)")
    constants = {k: v for k, v in module.__dict__.items() if k.isupper()}
    return Recipe(path, text, build, constants)


def build_pair(recipe: Recipe, frame_shape: tuple[int, ...]) -> "Pair":
    """Call the recipe for these frames.

    Raises:
        RecipeError: if it raises, or returns something else than a model and a guide.
    """
    from torch import nn

    from pyro_afslvm.models.pair import Pair

    try:
        model, guide = recipe.build(frame_shape=tuple(frame_shape))
    except Exception as error:
        raise RecipeError(f"build() of recipe {recipe.path} raises {_reason(error)}") from error
    if not isinstance(model, nn.Module) or not isinstance(guide, nn.Module | None):
        raise RecipeError(f"build() of recipe {recipe.path} must return Pair(model, guide)")
    return Pair(model, guide)


def remember(recipe: Recipe) -> None:
    """Note that the user ran this very text here, so that its runs may be reopened."""
    try:
        ledger = _ledger()
        ledger.mkdir(parents=True, exist_ok=True)
        (ledger / recipe.digest).touch()
    except OSError:  # a read-only home costs convenience only
        return


def is_known(text: str) -> bool:
    """Whether the user trained this very text here."""
    return (_ledger() / digest(text)).exists()


def _ledger() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "pyro_afslvm" / "recipes"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return named_reason(error)
