"""Files beside a recipe that it imports: found without executing it, and imported as kept."""

import ast
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

Texts = Mapping[str, str]  # path from the recipe's folder, with slashes, to the text
_NEVER = {*sys.stdlib_module_names, "pyro_afslvm", "pyro", "torch", "numpy"}


def read_source(path: Path) -> str:
    """Read a Python file, which is UTF-8 whatever the locale.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    return path.read_text(encoding="utf-8-sig")  # a byte order mark is no part of the text


def imported_files(recipe: Path, text: str) -> dict[str, str]:
    """Find the files beside a recipe that it imports, and those that these import in turn.

    Modules of the standard library and of the packages that every recipe needs are not looked
    for there.

    Args:
        recipe: where the recipe is.
        text: its text.

    Raises:
        OSError: a file cannot be read.
        UnicodeDecodeError: one is not UTF-8.
    """
    found: dict[str, str] = {}
    waiting = [("", text)]
    while waiting:
        package, content = waiting.pop()
        for name in _imports(content, package):
            for place in _places(recipe.parent, name):
                if place not in found:
                    found[place] = read_source(recipe.parent / place)
                    waiting.append((_package(place), found[place]))
    return found


def _imports(text: str, package: str) -> Iterator[str]:
    """Names of all modules that a text may import."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # which is told when it is executed
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _places(folder: Path, name: str) -> Iterator[str]:
    """The files beside that an import of a dotted name executes."""
    parts = name.split(".")
    if parts[0] in _NEVER or not _is_beside(folder, parts[0]):
        return
    for count in range(1, len(parts) + 1):
        stem = "/".join(parts[:count])
        for place in (f"{stem}/__init__.py", f"{stem}.py"):
            if (folder / place).is_file():
                yield place
                break


def _is_beside(folder: Path, name: str) -> bool:
    """Whether a module is a file beside, or a folder of such that nothing else is called like."""
    if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file():
        return True
    if not (folder / name).is_dir():
        return False
    elsewhere = PathFinder.find_spec(name)
    return elsewhere is None or elsewhere.loader is None


def _package(place: str) -> str:
    """The package of the module in a file."""
    return ".".join(place.split("/")[:-1])


class _Module(NamedTuple):
    place: str  # of its file; of a folder without __init__.py that itself
    text: str | None


class _Finder(MetaPathFinder, Loader):
    """Imports modules from texts."""

    def __init__(self, files: Texts, root: Path) -> None:
        self.files, self._root = dict(files), root
        self.modules: dict[str, _Module] = {}
        for place, text in files.items():
            parts = place.removesuffix(".py").removesuffix("/__init__").split("/")
            for count in range(1, len(parts)):
                name = ".".join(parts[:count])
                self.modules.setdefault(name, _Module("/".join(parts[:count]), None))
            self.modules[".".join(parts)] = _Module(place, text)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = self.modules.get(fullname)
        if module is None:
            return None
        is_package = module.text is None or module.place.endswith("/__init__.py")
        origin = str(self._root / module.place)
        spec = ModuleSpec(fullname, self, origin=origin, is_package=is_package)
        spec.has_location = module.text is not None
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        place, text = self.modules[module.__name__]
        if text is not None:
            exec(compile(text, str(self._root / place), "exec"), module.__dict__)


@contextmanager
def importing(files: Texts, root: Path) -> Iterator[None]:
    """Let imports find these texts first, as modules of one recipe that no other one sees.

    Args:
        files: the texts.
        root: the folder they are from.
    """
    finder = _Finder(files, root)
    hidden: dict[str, ModuleType] = {}
    for name in finder.modules.keys() & sys.modules.keys():
        loader = getattr(sys.modules[name], "__loader__", None)
        if not isinstance(loader, _Finder):
            hidden[name] = sys.modules.pop(name)
        elif loader.files != finder.files:  # another recipe's
            del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(hidden)


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in a folder; imports from the one that Python was started in go on as before."""
    before = os.getcwd()
    follows = "" in sys.path  # the folder that Python works in
    if follows:
        sys.path[sys.path.index("")] = before
    try:
        with chdir(folder):
            yield
    finally:
        if follows and before in sys.path:
            sys.path[sys.path.index(before)] = ""


def with_imports(function: Callable[..., Any], files: Texts, root: Path) -> Callable[..., Any]:
    """Let a function of a recipe import, and find files, as the recipe did."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with importing(files, root), within(root):
            return function(*args, **options)

    return call
