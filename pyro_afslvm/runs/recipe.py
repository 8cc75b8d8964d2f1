"""Recipes: Python files with a ``build()``, whose text is the whole configuration.

A recipe may import files that lie beside it; they are part of its text. Relative paths in it start
at its folder, wherever Python was started.
"""

import hashlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_afslvm.runs.beside import (
    Texts,
    imported_files,
    importing,
    read_source,
    with_imports,
    within,
)
from pyro_afslvm.utils.errors import named_reason
from pyro_afslvm.utils.files import shown

if TYPE_CHECKING:
    from pyro_afslvm.models.pair import Pair


class RecipeError(ValueError):
    """A recipe is missing, has no ``build()``, raises, or may not be executed."""


@dataclass(frozen=True)
class Recipe:
    """A model's definition: ``build(frame_shape=...)`` and its hyper-parameters.

    It may have an ``estimate(pair, batches)``, called once before training with batches
    ``(batch, T, *frame_shape)`` of training sequences, which sets what has a closed form.
    Parameters that need no gradient stay as it leaves them.
    """

    path: Path
    text: str
    build: Callable[..., Any]
    constants: dict[str, Any] = field(default_factory=dict)
    files: Texts = field(default_factory=dict)  # beside it, that it imports
    estimate: Callable[..., None] | None = None
    origin: Path | None = None  # where a text that a run keeps is from

    @property
    def file_name(self) -> str:
        """Name of its file, before a run kept it."""
        return shown((self.origin or self.path).name)

    @property
    def name(self) -> str:
        """``NAME`` of the recipe, else its file name."""
        return str(self.constants.get("NAME", Path(self.file_name).stem))

    @property
    def digest(self) -> str:
        """SHA-256 of the text, and of the files that it imports."""
        return digest(self.text, self.files)


def digest(text: str, files: Texts | None = None) -> str:
    """Compute the SHA-256 of a recipe's text, and of the files beside that it imports."""
    sha = hashlib.sha256(text.encode())
    for place, content in sorted((files or {}).items()):
        for part in (place, content):
            sha.update(hashlib.sha256(part.encode()).digest())
    return sha.hexdigest()


def load_recipe(path: str | Path) -> Recipe:
    """Read and execute a recipe.

    Args:
        path: a Python file that defines ``build(frame_shape=...)`` and returns a ``Pair``.

    Raises:
        RecipeError: if the file is missing, raises, or has no ``build``.
    """
    path = Path(path)
    try:
        text = read_source(path)
        files = imported_files(path, text)
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {path}, or a file it imports, is not UTF-8") from None
    except OSError as error:
        raise RecipeError(f"cannot read recipe {path}: {error.strerror}") from None
    return execute(path, text, files)


def execute(
    path: Path, text: str, files: Texts | None = None, *, origin: Path | None = None
) -> Recipe:
    """Make a recipe of its text, and of the files it imports; this runs it.

    Args:
        path: of the text.
        text: the text.
        files: texts of the files it imports.
        origin: where the text is from, if that is not the path; relative paths start there as
            long as there is that folder.
    """
    files, path = files or {}, Path(path)
    home = origin if origin and origin.parent.is_dir() else path.absolute()
    module = types.ModuleType(f"recipe_{digest(text)[:12]}")
    module.__file__ = str(home)
    sys.modules[module.__name__] = module  # dataclasses and pickles look there
    try:
        with importing(files, home.parent), within(home.parent):
            exec(compile(text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"recipe {path} raises {_reason(error)}") from error
    build = module.__dict__.get("build")
    if not callable(build):
        raise RecipeError(f"recipe {path} has no build(); expected build(frame_shape=...)")
    constants = {k: v for k, v in module.__dict__.items() if k.isupper()}
    build = with_imports(build, files, home.parent)
    estimate = module.__dict__.get("estimate")
    return Recipe(path, text, build, constants, files, estimate, origin)


def build_pair(recipe: Recipe, frame_shape: tuple[int, ...], context_features: int = 0) -> "Pair":
    """Call the recipe for these frames.

    Args:
        recipe: its ``build`` is called with ``frame_shape`` and, if it takes that, with
            ``context_features``.
        frame_shape: ``(C, H, W)`` or ``(D,)``.
        context_features: covariates that are known of each frame.

    Raises:
        RecipeError: if it raises, returns something else than a model and a guide, or a model of
            other covariates.
    """
    from torch import nn

    from pyro_afslvm.models import base
    from pyro_afslvm.models.pair import Pair

    takes = _takes_context(recipe, context_features)
    options = {"context_features": context_features} if takes else {}
    try:
        model, guide = recipe.build(frame_shape=tuple(frame_shape), **options)
    except Exception as error:
        raise RecipeError(f"build() of recipe {recipe.path} raises {_reason(error)}") from error
    if not isinstance(model, nn.Module) or not isinstance(guide, nn.Module | None):
        raise RecipeError(f"build() of recipe {recipe.path} must return Pair(model, guide)")
    if (wanted := base.context_features(model)) != context_features:
        raise RecipeError(
            f"the model of {recipe.path} takes {wanted} covariates of each frame, the data have "
            f"{context_features}: {_what_to_do(wanted)}"
        )
    return Pair(model, guide)


def _takes_context(recipe: Recipe, context_features: int) -> bool:
    parameters = inspect.signature(recipe.build).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return "context_features" in parameters or (context_features > 0 and takes_all)


def _what_to_do(wanted: int) -> str:
    if wanted:
        return "choose them by --data.context"
    return "leave --data.context out, or have build() take context_features and use them"


def remember(recipe: Recipe) -> None:
    """Note that the user ran this very text here, so that its runs may be reopened."""
    try:
        ledger = _ledger()
        ledger.mkdir(parents=True, exist_ok=True)
        (ledger / recipe.digest).touch()
    except OSError:  # a read-only home costs convenience only
        return


def is_known(text: str, files: Texts | None = None) -> bool:
    """Whether the user trained this very text here, with these files beside it."""
    return (_ledger() / digest(text, files)).exists()


def _ledger() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "pyro_afslvm" / "recipes"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return named_reason(error)
