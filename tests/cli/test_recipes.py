"""Ready recipes by name, and the folders that their runs are written to."""

from pathlib import Path

import pytest
from jsonargparse import Namespace

from pyro_afslvm import recipes
from pyro_afslvm.cli.main import main, out_folder
from pyro_afslvm.runs.recipe import load_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_all_are_listed(capsys: Capture) -> None:
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    for name in recipes.names():
        assert f"{name} " in shown
    assert "1-AF" in shown


def test_a_copy_builds_the_same_and_is_not_overwritten(capsys: Capture) -> None:
    assert main(["recipes", "--copy", "slvm_af1"]) == 0
    assert load_recipe("slvm_af1.py").text == load_recipe(recipes.find("slvm_af1")).text
    Path("slvm_af1.py").write_text("mine")
    assert main(["recipes", "--copy", "slvm_af1"]) == 2
    assert Path("slvm_af1.py").read_text() == "mine"
    assert "there already" in capsys.readouterr().err


def test_a_recipe_is_trained_by_its_name() -> None:
    data = ("--data", "MovingDigits", "--data.size", "16", "--data.test_size", "4")
    few = ("--steps", "1", "--validation_sequences", "1", "--scored_frames", "2")
    assert main(["train", "copy_last_frame", *data, *few, "--batch_size", "1"]) == 0
    assert Path("runs/small_copy_last_frame/last.ckpt").exists()


def test_a_misspelt_name_is_told_the_nearest(capsys: Capture) -> None:
    assert main(["train", "slvm_af", "--steps", "1"]) == 2
    assert "did you mean slvm_af1?" in capsys.readouterr().err


def test_families_of_recipes_do_not_share_folders() -> None:
    given = ("models/slvm_af1.py", "models/small/slvm_af1.py", "models/fast/af1.py", "my/af1.py")
    folders = [out_folder(Namespace(out=None, recipe=text)) for text in given]
    named = [path.name for path in folders]
    assert named == ["slvm_af1", "small_slvm_af1", "fast_af1", "af1"]
    assert out_folder(Namespace(out=None, recipe="slvm_af1")).name == "small_slvm_af1"
