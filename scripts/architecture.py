"""Shape of the library, in numbers: ``python scripts/architecture.py [FOLDER]``.

Prints rooms, arrows, floors, circles and upward arrows of the package in FOLDER (this one by
default), its lines and those of its tests, its longest files, the median length of a function, and
which public docstrings open with a riddle. The tests hold circles and upward arrows at none.

A room is a module; an arrow is an import of one module by another, wherever it stands: at the top
of a file, inside a function, or for a type checker only. A package's ``__init__`` is a door: with
``doors`` it is a room like any other; without, what is imported through it counts as imported from
where it is defined, unless it defines something itself.
"""

import ast
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Imports point from an earlier row to a later one, never within a row.
ORDER = (
    ("pyro_afslvm",),  # its own door
    ("cli",),
    ("training",),
    ("evaluation", "report"),
    ("results",),
    ("forecasting",),
    ("objectives",),
    ("guides", "runs"),
    ("models", "plots"),
    ("distributions",),
    ("transforms", "data"),
    ("networks", "metrics", "recipes"),
    ("utils", "moved"),
)
# First words of a sentence that does not say what the thing is or does.
RIDDLES = (
    *("what", "who", "whose", "which", "where", "when", "how", "why"),
    *("that", "those", "as", "of", "for", "by", "with"),
)


class Library:
    """The modules of a package and their imports of one another.

    Args:
        root: the folder of the package.
        doors: whether to count doors as rooms too.
        order: rows of packages, each of which may import those of later rows only.
    """

    def __init__(
        self, root: Path, *, doors: bool = False, order: Sequence[Sequence[str]] = ORDER
    ) -> None:
        self.root = root
        self._rank = {package: row for row, packages in enumerate(order) for package in packages}
        # folders that are no packages hold files for users, not modules
        paths = sorted(p for p in root.rglob("*.py") if (p.parent / "__init__.py").is_file())
        self._trees = {self._name(path): ast.parse(path.read_text("utf-8")) for path in paths}
        self._doors = {self._name(path) for path in paths if path.name == "__init__.py"}
        closed = {d for d in self._doors if not doors and not _defines(self._trees[d])}
        self._behind = {door: self._names(door) for door in closed}
        self.rooms = sorted(self._trees.keys() - closed)
        self.arrows = {
            (room, target)
            for room in self.rooms
            for target in self._targets(room)
            if target != room and target in self.rooms
        }

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.root.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _imports(self, module: str) -> Iterator[tuple[str, list[ast.alias]]]:
        """Modules that it imports names from, relative ones too, and the names."""
        for node in ast.walk(self._trees[module]):
            if not isinstance(node, ast.ImportFrom):
                continue
            source = node.module or ""
            if node.level:
                up = node.level - (module in self._doors)
                parents = module.split(".")[: -up or None]
                source = ".".join([*parents, *([source] if source else [])])
            if source in self._trees:
                yield source, node.names

    def _names(self, door: str) -> dict[str, str]:
        """Names that a door hands on, and the module each comes from."""
        return {a.asname or a.name: source for source, names in self._imports(door) for a in names}

    def _targets(self, module: str) -> Iterator[str]:
        for node in ast.walk(self._trees[module]):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
        for source, names in self._imports(module):
            yield from (self._home(source, alias.name) for alias in names)

    def _home(self, module: str, name: str) -> str:
        """Where a name that is imported from a module is defined."""
        if f"{module}.{name}" in self._trees:
            return f"{module}.{name}"
        behind = self._behind.get(module, {}).get(name)
        return module if behind is None else self._home(behind, name)

    @property
    def circles(self) -> list[list[str]]:
        """Modules that import one another, directly or by way of others."""
        reached = {room: self._reached(room) for room in self.rooms}
        groups = {
            frozenset(other for other in reached[room] if room in reached[other])
            for room in self.rooms
            if room in reached[room]
        }
        return sorted(sorted(group) for group in groups)

    def _reached(self, room: str) -> set[str]:
        found: set[str] = set()
        waiting = [room]
        while waiting:
            here = waiting.pop()
            new = {b for a, b in self.arrows if a == here} - found
            found |= new
            waiting += new
        return found

    def package(self, module: str) -> str:
        """The package of a module, right below the library; a file there is its own."""
        return [*module.split(".")[:2]][-1]

    @property
    def unplaced(self) -> list[str]:
        """Packages that stand in no row of the order."""
        return sorted({self.package(room) for room in self.rooms} - self._rank.keys())

    @property
    def upward(self) -> list[tuple[str, str]]:
        """Imports from one package of the order by another that do not point down."""
        return sorted(
            (a, b)
            for a, b in self.arrows
            if (above := self.package(a)) != (below := self.package(b))
            and {above, below} <= self._rank.keys()
            and self._rank[above] >= self._rank[below]
        )

    @property
    def floors(self) -> int:
        """Modules of the longest chain of imports; a circle is one floor."""
        circle = {room: i for i, group in enumerate(self.circles) for room in group}
        node = {room: str(circle.get(room, room)) for room in self.rooms}
        below = {n: {node[b] for a, b in self.arrows if node[a] == n} - {n} for n in node.values()}
        depth: dict[str, int] = {}

        def measure(n: str) -> int:
            if n not in depth:
                depth[n] = 1 + max((measure(other) for other in below[n]), default=0)
            return depth[n]

        return max(map(measure, below))

    @property
    def function_lengths(self) -> list[int]:
        """Lines of every function and method, its docstring not counted."""
        return [
            _length(node)
            for tree in self._trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]

    @property
    def docstrings(self) -> "Docstrings":
        """Public docstrings, and those that open with a riddle."""
        found = [each for name, tree in self._trees.items() for each in _docstrings(name, tree)]
        riddles = [(name, first) for name, first in found if _is_riddle(first)]
        return Docstrings(len(found), riddles)


class Docstrings(NamedTuple):
    """How many public docstrings there are; names and first lines of the riddles."""

    count: int
    riddles: list[tuple[str, str]]


def _defines(tree: ast.Module) -> bool:
    """Whether a package's ``__init__`` holds code of its own."""
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return bool(names - {"__getattr__", "__dir__"})


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is None:
        return whole
    return whole - ((first.end_lineno or first.lineno) - first.lineno + 1)


def _docstrings(name: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    """Names and first lines, of a module or class and of all that is public in it."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if isinstance(node, documented) and (text := ast.get_docstring(node)):
        yield name, text.splitlines()[0]
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            child_name = getattr(child, "name", "_")
            if not child_name.startswith("_"):
                yield from _docstrings(f"{name}.{child_name}", child)


def _is_riddle(first: str) -> bool:
    return first.split(maxsplit=1)[0].strip(",.:;").lower() in RIDDLES


def lines(folder: Path) -> Mapping[Path, int]:
    """Lines of every Python file in a folder, the longest first."""
    counts = {path: len(path.read_text("utf-8").splitlines()) for path in folder.rglob("*.py")}
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def main(root: Path) -> None:
    """Print the numbers of the library at ``root``."""
    if not any(root.rglob("*.py")):
        sys.exit(f"architecture: error: {root}: holds no Python files")
    library, with_doors = Library(root), Library(root, doors=True)
    flat = sum(room.count(".") == 1 for room in library.rooms)
    print(f"rooms {len(library.rooms)}, of which {flat} right at the top")
    print(f"arrows {len(library.arrows)}, floors {library.floors}")
    for kind, one in (("circles", library), ("circles, doors counted", with_doors)):
        print(f"{kind} {len(one.circles)}, of {sum(map(len, one.circles))} modules")
        for circle in one.circles:
            print("  " + " ↔ ".join(name.partition(".")[2] or name for name in circle))
    print(f"upward arrows {len(with_doors.upward)}")
    for a, b in with_doors.upward:
        print(f"  {a} → {b}")
    if with_doors.unplaced:
        print(f"  not in the order: {', '.join(with_doors.unplaced)}")
    counts = lines(root)
    tests = sum(lines(root.parent / "tests").values())
    print(f"lines of the library {sum(counts.values()):,}, of its tests {tests:,}")
    print("longest files " + ", ".join(f"{p.relative_to(root)} {n}" for p, n in top(counts, 5)))
    print(f"median length of a function {statistics.median(library.function_lengths):g} lines")
    count, riddles = library.docstrings
    print(f"riddles {len(riddles)} of {count} public docstrings, {len(riddles) / count:.0%}")
    for name, first in riddles:
        print(f"  {name.partition('.')[2]}: {first}")


def top(counts: Mapping[Path, int], number: int) -> list[tuple[Path, int]]:
    """The first so many of them."""
    return [*counts.items()][:number]


if __name__ == "__main__":
    here = Path(__file__).parents[1] / "pyro_afslvm"
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else here)
