"""Sources that a command line asks for, which a recipe named on it may define."""

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import isabstract, isroutine
from os.path import isdir, isfile  # which a text too long for a name is not
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pyro_afslvm.data.registry import (
    DATA_SUFFIXES,
    SOURCES,
    UnknownSourceError,
    find_source,
    guess_source,
    is_registered,
)
from pyro_afslvm.data.source import REGISTERED, SequenceSource
from pyro_afslvm.utils.errors import named_reason


def define_sources(arguments: Sequence[str]) -> None:
    """Make the sources known that ``--data``, or a file given as ``--config``, asks for.

    One that is unknown may be defined by a recipe among the arguments, or by the recipe of a run
    folder among them: those are executed in turn until one of them defines it.

    Args:
        arguments: Of a program.

    Raises:
        UnknownSourceError: Nothing defines it, or there are several of that name.
        RecipeError: A recipe raises.
    """
    for name in _asked(arguments):
        if "." in name:
            _define_path(name, arguments)
        else:
            _define_name(name, arguments)


def with_guessed_sources(arguments: Sequence[str]) -> list[str]:
    """Put the source of a file, a folder or a pattern in the place of ``--data PATH``.

    Args:
        arguments: Of a program.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: A single file of a set was named, not the set's folder.
    """
    given = list(arguments)
    for i, text in enumerate(given):
        name, equals, value = text.partition("=")
        if name != "--data" or (not equals and i + 1 == len(given)):
            continue
        size = 1 if equals else 2
        path = value if equals else given[i + 1]
        if _is_place(path):
            kind = type(guess_source(path)).__name__
            given[i : i + size] = ["--data", kind, "--data.path", path]
            break
    return given


def _is_place(text: str) -> bool:
    """Whether a value of ``--data`` is data, not a name, a mapping or a file of settings."""
    if "{" in text or text.endswith((".yaml", ".yml", ".json")):
        return False
    if any(name.rpartition(".")[2] == text for name in REGISTERED):  # whatever lies beside it
        return False
    is_there = isfile(text) or isdir(text) or any(sign in text for sign in "*?/\\")
    return is_there or text.lower().endswith(DATA_SUFFIXES)  # of which it is said that they are not


def _define_name(name: str, arguments: Sequence[str]) -> None:
    refusals: list[str] = []
    recipes = _executed(arguments, refusals)
    while not is_registered(name) and next(recipes, None):
        pass
    if is_registered(name):
        find_source(name)  # which refuses what is ambiguous
        return
    raise UnknownSourceError("; ".join([_unknown(name), *refusals]))


def _define_path(path: str, arguments: Sequence[str]) -> None:
    refusals: list[str] = []
    recipes = _executed(arguments, refusals)
    _look_here(path.partition(".")[0])
    while reason := _not_imported(path):
        if not next(recipes, None):
            raise UnknownSourceError("; ".join([f"no source {path}: {reason}", *refusals]))


def _look_here(module: str) -> None:
    """Let imports find a module of the working folder, after all others of its name."""
    here = os.getcwd()
    if here not in sys.path and (isfile(f"{module}.py") or isdir(module)):
        sys.path.append(here)


def _not_imported(path: str) -> str:
    """Say why there is no source at an import path; empty if there is one."""
    try:
        found = resolve_name(path)
    except Exception as error:  # of a module of the user's
        return named_reason(error)
    is_source = isinstance(found, type) and issubclass(found, SequenceSource)
    return "" if is_source or isroutine(found) else "it is no SequenceSource"


def _unknown(name: str) -> str:
    sources = (source for source in (*SOURCES, *REGISTERED.values()) if not isabstract(source))
    known = sorted({source.__name__ for source in sources})
    near = get_close_matches(name, known, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"no source {name} among those known here, {', '.join(known)}{guess}"


def _asked(arguments: Sequence[str]) -> Iterator[str]:
    """Names of the sources that the arguments ask for."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    options: dict[str, Any] = {"nargs": "?", "action": "append", "default": []}
    parser.add_argument("--data", "--data.class_path", "--data.help", dest="data", **options)
    parser.add_argument("--config", **options)
    given, _ = parser.parse_known_args([*arguments])
    for value in given.data:
        yield from _names(value)
    for value in given.config:
        content = _content(value)
        yield from _names(content.get("data") if isinstance(content, Mapping) else None)


def _names(value: object) -> Iterator[str]:
    """Name of the class in a value of ``data``: a name, a mapping, or a file of one."""
    if isinstance(value, str) and (isfile(value) or not _is_name(value)):
        value = _content(value)
    if isinstance(value, Mapping):
        value = value.get("class_path")
    if isinstance(value, str) and _is_name(value) and value != "null":
        yield value


def _is_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _content(text: object) -> object:
    """Content of YAML, or of a file of it; ``None`` where the true parser will complain."""
    import yaml

    try:
        given = str(text)
        content: object = yaml.safe_load(
            Path(given).read_text(encoding="utf-8") if isfile(given) else given
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return content


def _executed(arguments: Sequence[str], refusals: list[str]) -> Iterator[bool]:
    """Execute one recipe after another; say of those that may not be why."""
    from pyro_afslvm.runs.recipe import RecipeError, load_recipe
    from pyro_afslvm.runs.run import Run

    parts = (part for text in arguments for part in (text, *re.split(r"[=\[\],]", text)))
    words = list(dict.fromkeys(parts))  # also of --recipes=[a.py,b.py]
    for word in words:
        if word.endswith(".py") and isfile(word):
            load_recipe(word)
            yield True
    for word in words:
        if not isfile(f"{word}/recipe.py"):
            continue
        run, trust = Run(Path(word)), "--trust" in words
        if trust or run.is_known:
            run.recipe(trust=trust)
            yield True
            continue
        try:
            run.recipe()
        except RecipeError as error:
            refusals.append(str(error))
