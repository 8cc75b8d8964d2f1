"""Ready recipes by name: the small family and that of series, in the wheel and in models/.

Example:
    >>> find("slvm_af1").name
    'slvm_af1.py'
    >>> "vrnn" in names()
    True
"""

from difflib import get_close_matches
from pathlib import Path

from pyro_afslvm.moved import old_names

FAMILIES = ("small", "series")
_INSTALLED = Path(__file__).parent  # where the wheel has models/small and models/series
_CHECKOUT = Path(__file__).parents[2] / "models"


def folder(family: str = "small") -> Path:
    """The folder of a family of recipes.

    Raises:
        FileNotFoundError: The package was copied without them.
    """
    for place in (_INSTALLED / family, _CHECKOUT / family):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{_INSTALLED / family}: this copy of the package holds no recipes")


def names() -> list[str]:
    """Names of the recipes, sorted."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    return {path.stem: path for family in FAMILIES for path in folder(family).glob("*.py")}


def find(name: str) -> Path:
    """The file of a recipe.

    Raises:
        ValueError: There is none of that name.
    """
    known = _files()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]}?" if near else "`afslvm recipes` lists those there are"
        raise ValueError(f"there is no recipe {name}: {guess}")
    return known[name]


def resolve(recipe: str) -> Path:
    """The file that is meant: a path of the user's own, or else a name.

    Raises:
        ValueError: It is a name, and there is no such recipe.
    """
    path = Path(recipe)
    is_name = path.name == recipe and not path.suffix and not path.exists()
    return find(recipe) if is_name else path


def summary(path: Path) -> str:
    """First line of a recipe's docstring."""
    return path.read_text(encoding="utf-8").partition("\n")[0].strip('"').strip()


__getattr__ = old_names(__name__)
