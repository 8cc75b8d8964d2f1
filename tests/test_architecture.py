"""Imports of the library point one way, as ``scripts/architecture.py`` counts them."""

import re
import textwrap
from pathlib import Path

import pytest

from scripts.architecture import ORDER, Library, main

ROOT = Path(__file__).parents[1]
MADE_UP = {
    "__init__.py": '"""A door."""\n\nfrom made_up.top.a import thing as thing\n',
    "top/__init__.py": "",
    "top/a.py": "from made_up.low.c import other\n\nthing = other\n",
    "top/b.py": "import made_up.top.a\n",
    "low/__init__.py": "from made_up.low.c import other as other\n",
    "low/c.py": "other = 1\n",
}
SMALL_ORDER = (("made_up",), ("top",), ("low",))


def library(folder: Path, *, doors: bool = True, **more: str) -> Library:
    """The made-up package with lines added to files, named like ``top__a``."""
    root = folder / "made_up"
    for name, text in MADE_UP.items():
        added = textwrap.dedent(more.get(name.removesuffix(".py").replace("/", "__"), ""))
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + added)
    return Library(root, doors=doors, order=SMALL_ORDER)


# the library -----------------------------------------------------------------------------


def test_no_arrow_points_upwards() -> None:
    found = Library(ROOT / "pyro_afslvm", doors=True)
    assert found.upward == []
    assert found.unplaced == []
    assert len(found.arrows) > 200


@pytest.mark.parametrize("doors", [False, True])
def test_there_are_no_circles(doors: bool) -> None:
    assert Library(ROOT / "pyro_afslvm", doors=doors).circles == []


def test_the_readme_has_the_order() -> None:
    table = (ROOT / "README.md").read_text().partition("| package |")[2].partition("\n\n")[0]
    first = (line.split("|")[1] for line in table.splitlines()[2:])
    named = [tuple(re.findall(r"`(\w+)`", cell)) for cell in first]
    assert named == [*ORDER[1:-1], ("utils",)]
    assert ORDER[-1] == ("utils", "moved")


@pytest.mark.parametrize("place", ["", "nowhere", "notes.txt"])
def test_a_folder_without_a_package_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "notes.txt").write_text("no code")
    with pytest.raises(SystemExit, match=r"^architecture: error: .*: holds no Python files$"):
        main(tmp_path / place)


# how they are counted --------------------------------------------------------------------


def test_what_points_down_is_in_order(tmp_path: Path) -> None:
    found = library(tmp_path)
    assert found.upward == found.unplaced == found.circles == []
    arrow = ("made_up.top.a", "made_up.low.c")
    assert arrow in found.arrows
    assert ("made_up", "made_up.top.a") in found.arrows
    assert ("made_up.top.b", "made_up.top.a") in found.arrows
    assert len(found.rooms) == 6
    assert found.floors == 3
    assert [*library(tmp_path, doors=False).rooms] == [
        "made_up.low.c",
        "made_up.top.a",
        "made_up.top.b",
    ]


UPWARD = ("made_up.low.c", "made_up.top.b")
IMPORTS = {
    "plain": "from made_up.top.b import x",
    "of a module": "import made_up.top.b",
    "from a package": "from made_up.top import b",
    "relative": "from ..top import b",
    "lazy": "def late():\n    from made_up.top.b import x",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import made_up.top.b",
}


@pytest.mark.parametrize("line", IMPORTS.values(), ids=IMPORTS)
def test_an_arrow_upwards_is_seen(line: str, tmp_path: Path) -> None:
    found = library(tmp_path, low__c=line)
    assert found.upward == [UPWARD]
    # b imports a, a imports c
    assert found.circles == [["made_up.low.c", "made_up.top.a", "made_up.top.b"]]


def test_packages_of_one_row_do_not_import_each_other(tmp_path: Path) -> None:
    library(tmp_path)
    order = (("made_up",), ("top", "low"))
    assert Library(tmp_path / "made_up", order=order).upward == [
        ("made_up.top.a", "made_up.low.c"),
    ]


def test_an_arrow_through_a_door_leads_to_what_is_behind(tmp_path: Path) -> None:
    line = {"top__b": "from made_up.low import other"}
    arrows = library(tmp_path, doors=False, **line).arrows
    assert ("made_up.top.b", "made_up.low.c") in arrows
    assert ("made_up.top.b", "made_up.low") in library(tmp_path, **line).arrows


def test_a_door_points_down_too(tmp_path: Path) -> None:
    found = library(tmp_path, low____init__="from made_up.top.b import x")
    assert found.upward == [("made_up.low", "made_up.top.b")]


@pytest.mark.parametrize("line", IMPORTS.values(), ids=IMPORTS)
def test_a_circle_is_seen(line: str, tmp_path: Path) -> None:
    found = library(tmp_path, top__a=line)
    assert found.circles == [["made_up.top.a", "made_up.top.b"]]
    assert found.upward == []
    assert found.floors == 3  # door, circle, c


def test_a_circle_through_a_door_is_seen(tmp_path: Path) -> None:
    """Of a module that imports from the package it is in, whose door imports it."""
    line = {"low__c": "def late():\n    from made_up.low import other"}
    assert library(tmp_path, **line).circles == [["made_up.low", "made_up.low.c"]]
    assert library(tmp_path, doors=False, **line).circles == []


def test_a_package_without_a_place_is_named(tmp_path: Path) -> None:
    library(tmp_path)
    (tmp_path / "made_up" / "new.py").write_text("from made_up.low.c import other\n")
    assert Library(tmp_path / "made_up", order=SMALL_ORDER).unplaced == ["new"]


def test_functions_and_docstrings_are_measured(tmp_path: Path) -> None:
    text = '''
    def long():
        """What is it?

        More of it.
        """
        x = 1
        return x


    def short(): return 1


    class Plain:
        """A thing."""

        def _hidden(self):
            """Of no account."""
    '''
    found = library(tmp_path, low__c=text)
    assert sorted(found.function_lengths) == [1, 1, 3]
    count, riddles = found.docstrings
    assert count == 3  # with that of the library's door
    assert riddles == [("made_up.low.c.long", "What is it?")]


def test_the_numbers_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(ROOT / "pyro_afslvm")
    printed = capsys.readouterr().out
    for what in ("rooms ", "arrows ", "circles 0", "upward arrows 0\n", "lines of the library "):
        assert f"\n{what}" in f"\n{printed}"
