"""Folders of pictures: each is a film, in the order of their names."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

PICTURES = (
    *(".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)


def pictures_in(folder: Path) -> list[Path]:
    """List the pictures in a folder, those with numbers in their names by these numbers.

    >>> [name for name in sorted(["a10", "a9", "b1"], key=by_numbers)]
    ['a9', 'a10', 'b1']
    """
    found = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in PICTURES and file.is_file() and not file.name.startswith(".")
    ]
    return sorted(found, key=lambda file: by_numbers(file.name))


def by_numbers(name: str) -> list[tuple[int, int, str]]:
    """Key of the order in which ``9`` comes before ``10``."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]


def hash_of_all(digests: Iterable[str]) -> str:
    """Hash of a film of pictures, from those of its pictures in order."""
    return hashlib.sha256(" ".join(["pictures", *digests]).encode()).hexdigest()
