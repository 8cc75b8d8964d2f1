"""Rooms, arrows, circles and upward arrows of the library: ``python scripts/architecture.py``.

A room is a module, an arrow an import of one module by another, wherever it stands: at the top
of a file, inside a function, or for a type checker only. A package's ``__init__`` is a door and
no room, unless it defines something: what is imported through a door counts as imported from
where it is defined.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# Imports point from an earlier row to a later one, never within a row.
ORDER = (
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
    ("networks", "metrics"),
    ("utils",),
)
RANK = {package: -row for row, packages in enumerate(ORDER) for package in packages}


class Library:
    """The modules of a package and their imports of one another.

    Args:
        root: the folder of the package.
        doors: whether to count doors as rooms too.
    """

    def __init__(self, root: Path, *, doors: bool = False) -> None:
        self.root = root
        paths = sorted(root.rglob("*.py"))
        trees = {self._name(path): ast.parse(path.read_text("utf-8")) for path in paths}
        closed = {self._name(path) for path in paths if path.name == "__init__.py"}
        closed = {door for door in closed if not doors and not _defines(trees[door])}
        self.rooms = sorted(trees.keys() - closed)
        self._known = trees.keys()
        self._doors = {door: dict(self._names(trees[door])) for door in closed}
        self.arrows = {
            (room, target)
            for room in self.rooms
            for target in self._targets(trees[room])
            if target != room and target in self.rooms
        }

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.root.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _names(self, tree: ast.Module) -> Iterator[tuple[str, str]]:
        """What a door hands on, and the module each comes from."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from ((a.asname or a.name, node.module) for a in node.names)

    def _targets(self, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (a.name for a in node.names if a.name in self.rooms)
            elif isinstance(node, ast.ImportFrom) and node.module in self._known:
                yield from (self._home(node.module, a.name) for a in node.names)

    def _home(self, module: str, name: str) -> str:
        """Where a name that is imported from a module is defined."""
        if f"{module}.{name}" in self._known:
            return f"{module}.{name}"
        if module not in self._doors:
            return module
        behind = self._doors[module].get(name)
        return self._home(behind, name) if behind in self._known else module

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

    @property
    def upward(self) -> list[tuple[str, str]]:
        """Imports between packages that do not point down in :data:`ORDER`."""
        return sorted(
            (a, b)
            for a, b in self.arrows
            if self.package(a) != self.package(b)
            and not RANK[self.package(a)] > RANK[self.package(b)]
        )

    def package(self, module: str) -> str:
        """The package of a module, right below the library; a file there is its own."""
        return module.split(".")[1]

    @property
    def packages(self) -> set[str]:
        """All that stands right below the library."""
        return {self.package(room) for room in self.rooms}

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


def _defines(tree: ast.Module) -> bool:
    """Whether a package's ``__init__`` holds code of its own."""
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return bool(names - {"__getattr__", "__dir__"})


def main(root: Path) -> None:
    """Print the counts of the library at ``root``."""
    library = Library(root)
    flat = sum(room.count(".") == 1 for room in library.rooms)
    print(f"rooms {len(library.rooms)}, of which {flat} right at the top")
    print(f"arrows {len(library.arrows)}, floors {library.floors}")
    for kind, circles in (
        ("circles", library.circles),
        ("circles through doors", Library(root, doors=True).circles),
    ):
        print(f"{kind} {len(circles)}, of {sum(map(len, circles))} modules")
        for circle in circles:
            print("  " + " ↔ ".join(name.partition(".")[2] or name for name in circle))
    if library.packages <= RANK.keys():
        print(f"upward arrows {len(library.upward)}")
        for a, b in library.upward:
            print(f"  {a} → {b}")


if __name__ == "__main__":
    here = Path(__file__).parents[1] / "pyro_afslvm"
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else here)
