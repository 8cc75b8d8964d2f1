"""The source of an object, found by its name; needs no Sphinx, so that tests use it too."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


class Source(NamedTuple):
    """Lines of an object, without its docstring."""

    code: str
    path: Path  # from the repository's root
    line: int


def source_of(name: str, match: str = "") -> Source:
    """Read the source of ``package.module:Class.method``.

    Args:
        name: of the object.
        match: text that the source must hold.

    Raises:
        LookupError: there is no such object any more, or it does not hold the text.
    """
    try:
        obj = find(name)
        lines, first = inspect.getsourcelines(obj)
        path = Path(inspect.getsourcefile(obj) or "").relative_to(ROOT)
    except (ImportError, AttributeError, OSError, TypeError, ValueError) as error:
        raise LookupError(f"{name} is not where this page says: {error}") from error
    code = inspect.cleandoc("\n" + "".join(without_docstring(lines, obj)))
    if match not in code:
        raise LookupError(f"{name} does not say {match!r} any more")
    return Source(code, path, first)


def find(name: str) -> Any:
    """Import what ``package.module:Class.method`` names."""
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    return inspect.unwrap(found)


def without_docstring(lines: list[str], obj: Any) -> list[str]:
    """Leave out the docstring of a function or class: the formula stands above."""
    text = "".join(lines)
    doc = obj.__doc__
    if doc is None:
        return lines
    for quotes in ('r"""', '"""'):
        start = text.find(quotes)
        if start >= 0:
            end = text.index('"""', start + len(quotes)) + 3
            return (text[:start].rstrip() + "\n" + text[end:].lstrip("\n")).splitlines(True)
    return lines
