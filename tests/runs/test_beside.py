"""Recipes with files beside them: found, kept with the run, and read from where the recipe is."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from pyro_afslvm.cli.main import main
from pyro_afslvm.runs.recipe import RecipeError, build_pair, load_recipe
from pyro_afslvm.runs.run import Run

RECIPE = """
import json
from pathlib import Path

import parts.flow
from sizes import CONTEXT

WIDTHS = json.loads(Path("widths.json").read_text())
BATCH_SIZE = 2

def build(frame_shape):
    from late import model  # imported when it is called

    assert Path("widths.json").is_file()
    return model(parts.flow.flow(frame_shape), frame_shape, CONTEXT)
"""
FILES = {
    "sizes.py": "CONTEXT = 3\n",
    "late.py": """
from pyro_afslvm import FlowModel, Pair

def model(flow, frame_shape, context):
    return Pair(FlowModel(flow, frame_shape, context_length=context), None)
""",
    "parts/__init__.py": "",
    "parts/flow.py": """
from pyro_afslvm import TemporalAffine

from .conditioner import conditioner

def flow(frame_shape):
    return TemporalAffine(conditioner(frame_shape))
""",
    "parts/conditioner.py": """
from pyro_afslvm.transforms import LastFrame

def conditioner(frame_shape):
    return LastFrame(len(frame_shape), learned_scale=True)
""",
    "widths.json": "[8]",
    "unused.py": "raise ValueError('nobody imports this')",
}
DATA = ("--data", "MovingDigits", "--data.size", "16", "--data.test_size", "4")
QUICK = ("--steps", "2", "--scored_frames", "3", "--validation_sequences", "2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in a folder of its own, beside the one that programs work in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    written(tmp_path / "recipes", RECIPE, FILES)
    return tmp_path / "recipes"


def written(folder: Path, recipe: str, files: dict[str, str]) -> None:
    for name, text in {**files, "mine.py": recipe}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def train(*options: str) -> int:
    return main(["train", "../recipes/mine.py", *DATA, *QUICK, "--out", "run", *options])


def test_a_run_keeps_what_its_recipe_imports(folder: Path) -> None:
    before = {*sys.path}
    assert train() == 0
    kept = sorted(set(FILES) - {"widths.json", "unused.py"})
    assert json.loads(Path("run/settings.json").read_text())["recipe_files"] == kept
    for name in kept:
        assert Path("run", name).read_text() == FILES[name]
    for name in kept:
        (folder / name).unlink()  # the others are still where the recipe finds them
    assert main(["evaluate", "run"]) == 0
    assert main(["sample", "run", "--num_sequences", "1"]) == 0
    assert {*sys.path} == before


def test_a_run_reloads_after_the_recipe_is_gone(folder: Path) -> None:
    (folder / "mine.py").write_text(RECIPE.replace('"widths.json"', "__file__"))
    text = (folder / "mine.py").read_text().replace("json.loads(Path(__file__).read_text())", "[8]")
    (folder / "mine.py").write_text(text)
    assert train() == 0
    shutil.rmtree(folder)
    Path("run").rename("moved")
    assert main(["report", "moved"]) == 0


def test_a_file_that_it_reads_is_missed_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 0
    shutil.rmtree(folder)
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "afslvm: error: recipe run/recipe.py raises No such file or directory: widths.json"
    )


def test_another_text_beside_is_another_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 0
    (folder / "sizes.py").write_text("CONTEXT = 4\n")
    capsys.readouterr()
    assert train("--resume", "--steps", "3") == 2
    assert "was trained with another recipe than" in capsys.readouterr().err
    assert main(["evaluate", "run", "--recipe", str(folder / "mine.py")]) == 2
    assert main(["evaluate", "run"]) == 0  # with what was kept
    (folder / "sizes.py").write_text(FILES["sizes.py"])
    assert train("--resume", "--steps", "3") == 0


def test_texts_of_others_are_not_executed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train() == 0
    Path("run/sizes.py").write_text("raise SystemExit('executed')")
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 2
    assert "is code that was not run here before" in capsys.readouterr().err


def test_recipes_do_not_see_the_files_of_one_another(tmp_path: Path) -> None:
    for name, width in (("a", 2), ("b", 3)):
        text = RECIPE.replace("BATCH_SIZE = 2", "BATCH_SIZE = CONTEXT")
        written(tmp_path / name, text, FILES | {"sizes.py": f"CONTEXT = {width}\n"})
    a, b = (load_recipe(tmp_path / name / "mine.py") for name in "ab")
    assert (a.constants["BATCH_SIZE"], b.constants["BATCH_SIZE"]) == (2, 3)
    assert build_pair(a, (1, 8, 8)).model.context_length == 2
    assert build_pair(b, (1, 8, 8)).model.context_length == 3
    assert a.digest != b.digest


def test_a_file_beside_that_raises_is_told(tmp_path: Path) -> None:
    written(tmp_path, RECIPE, FILES | {"sizes.py": "raise ValueError('no, never')"})
    with pytest.raises(RecipeError, match=r"mine\.py raises ValueError: no, never$"):
        load_recipe(tmp_path / "mine.py")


def test_its_own_place_is_where_it_was(folder: Path) -> None:
    text = RECIPE.replace('Path("widths.json").read_text()', "'[8]'")
    text = text.replace("BATCH_SIZE = 2", "BATCH_SIZE = 2\nPLACE = __file__")
    (folder / "mine.py").write_text(text)
    assert train() == 0
    assert Run.open("run").recipe().constants["PLACE"] == str(Path("../recipes/mine.py").absolute())


def test_a_report_does_not_tell_where_a_recipe_lies(folder: Path) -> None:
    assert train() == 0
    assert main(["report", "run", "--out", "page.html"]) == 0
    assert str(folder.parent) not in Path("page.html").read_text()
