"""The pages of the site: their examples run, their messages are the program's, their links hold."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_afslvm.cli.main import main
from tests.support.processes import ROOT

DOCS = ROOT / "docs"
PAGES = (
    "install",
    "start",
    "video",
    "write_recipe",
    "write_guide",
    "write_flow",
    "swap_guides",
    "load_run",
    "training",
    "figures",
    "gallery",
    "coming_from",
)
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)
SMOKE_SIZE = {
    r"(steps[= ])\d+": r"\g<1>2",
    r"--data MovingDigits": "--data MovingDigits --data.test_size 2 --data.validation_size 2",
}
pytestmark = pytest.mark.filterwarnings("ignore:.*could overwrite:UserWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    walk = np.random.default_rng(0).normal(size=(600, 3)).cumsum(0).astype("float32")
    np.save("walk.npy", walk)
    return tmp_path


def exit_code(line: str) -> int:
    try:
        return main(shlex.split(line.removeprefix("$ afslvm")))
    except SystemExit as stop:
        return int(stop.code)


def run_block(kind: str, text: str, names: dict) -> None:
    for pattern, smaller in SMOKE_SIZE.items():
        text = re.sub(pattern, smaller, text)
    if kind == "python":
        exec(compile(text, "example", "exec"), names)
        return
    for line in text.strip().splitlines():
        assert exit_code(line) == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, folder: Path) -> None:
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text())
    assert blocks
    names: dict = {"__name__": "example"}
    for kind, text in blocks:
        run_block(kind, text, names)


def test_pages_with_examples_are_all_run() -> None:
    tested_elsewhere = {"faq", "flows", "series"}
    found = {path.stem for path in DOCS.glob("*.md") if BLOCK.search(path.read_text())}
    assert found == {*PAGES} | tested_elsewhere


def make_faulty(folder: Path) -> None:
    """What the lines of the FAQ are about."""
    walk = np.load("walk.npy")
    np.save("short.npy", walk[:20])
    walk[5, 1] = np.nan
    np.save("gap.npy", walk)
    clip = folder / "small" / "clip"
    clip.mkdir(parents=True)
    for frame in range(3):
        Image.fromarray(np.full((32, 32), frame, "uint8")).save(clip / f"{frame}.png")
    for name in ("walk", "edited"):
        assert exit_code(f"train vector_af1 --data walk.npy --steps 2 --out runs/{name}") == 0
    np.save("other.npy", walk[:300, :1])
    assert exit_code("train vector_af1 --data other.npy --steps 2 --out runs/replaced") == 0
    np.save("other.npy", 2 * walk[:300, :1])
    with (folder / "runs/edited/recipe.py").open("a") as recipe:
        recipe.write("\n# by another hand\n")


def said(kind: str, text: str, names: dict, capsys: pytest.CaptureFixture) -> str:
    if kind == "python":
        with pytest.raises((ValueError, RuntimeError)) as error:
            exec(compile(text, "example", "exec"), names)
        return str(error.value)
    capsys.readouterr()
    assert exit_code(text.strip()) == 2, text
    return capsys.readouterr().err


def test_faq_has_the_messages_of_the_program(folder: Path, capsys: pytest.CaptureFixture) -> None:
    make_faulty(folder)
    sections = re.findall(
        r"^### `(?:` )?([^\n]*?)(?: `)?`$(.*?)(?=^##)", (DOCS / "faq.md").read_text(), re.M | re.S
    )
    assert len(sections) > 10
    names: dict = {}
    for message, section in sections:
        kind, text = BLOCK.search(section).groups()
        heard = said(kind, text, names, capsys)
        assert all(part in heard for part in message.split("…")), f"{message}\n{heard}"


def source_of(name: str, match: str):
    spec = importlib.util.spec_from_file_location("source_lines", DOCS / "_ext/source_lines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.source_of(name, match)


def test_equations_stand_beside_the_lines_that_compute_them() -> None:
    text = (DOCS / "mathematics.md").read_text()
    cited = re.findall(r"```\{lines\} (\S+)\n:match: (.*)\n", text)
    assert len(cited) == text.count("{lines}") > 10
    for name, match in cited:
        source = source_of(name, match)
        lines = (ROOT / source.path).read_text().splitlines()
        assert source.code.splitlines()[0] == lines[source.line - 1].strip()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("pyro_afslvm.models.slvm:SLVM.no_such", ""),
        ("pyro_afslvm.no_such:SLVM", ""),
        ("pyro_afslvm.models.slvm:SLVM.joint", "what it does not say"),
    ],
)
def test_a_stale_line_is_found(name: str, match: str) -> None:
    with pytest.raises(LookupError, match=r"not where|does not say"):
        source_of(name, match)


def test_every_page_is_in_the_contents() -> None:
    contents = (DOCS / "index.md").read_text() + (DOCS / "api/index.md").read_text()
    listed = set(contents.split())
    for page in DOCS.rglob("*.md"):
        name = str(page.relative_to(DOCS).with_suffix(""))
        if name.split("/")[0] not in ("index", "_build", "notebooks"):
            assert {name, name.removeprefix("api/")} & listed, name
