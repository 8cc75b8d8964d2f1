"""Run folders: made once, opened again, also those of earlier versions."""

import json
from pathlib import Path

import pytest

from pyro_afslvm.data import MovingDigits
from pyro_afslvm.runs.checkpoint import FORMAT
from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.runs.recipe import Recipe, RecipeError, load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings

SOURCE, SETTINGS = MovingDigits(size=16), TrainSettings(steps=4, average=0.5)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "mine.py").write_text("def build(frame_shape):\n    return None, None\n")
    return load_recipe(tmp_path / "mine.py")


@pytest.fixture
def run(recipe: Recipe, tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", recipe, SETTINGS, SOURCE)


def change(run: Run, **parts: object) -> None:
    content = run.read_settings() | parts
    (run.path / "settings.json").write_text(json.dumps(content))


def test_a_run_is_opened_as_it_was_made(run: Run, recipe: Recipe) -> None:
    again = Run.open(str(run.path))
    assert again == run
    assert again.settings == SETTINGS
    assert again.source.describe() == SOURCE.describe()
    assert again.recipe_text == recipe.text
    assert {"torch", "pyro-ppl"} <= again.read_settings()["versions"].keys()
    again.check_resumable(recipe, SETTINGS, SOURCE)


def test_a_new_budget_is_noted_and_all_else_stays(run: Run) -> None:
    before = run.read_settings()
    run.update_settings(TrainSettings(steps=9, average=0.5))
    assert run.settings.steps == 9
    after = run.read_settings()
    assert {**after, "training": None} == {**before, "training": None}


@pytest.mark.parametrize("old", [{"steps": 4, "seed": 3}, {"steps": 4, "seed": 3, "workers": 1}])
def test_settings_of_a_run_from_before_some_settings(run: Run, old: dict[str, int]) -> None:
    change(run, training=old)
    assert run.settings == TrainSettings(**old, average=0.0)
    (run.path / "mine.py").write_text(run.recipe_text)
    run.check_resumable(
        load_recipe(run.path / "mine.py"), TrainSettings(**old | {"steps": 9}, average=0.0), SOURCE
    )


def test_a_folder_in_the_way(run: Run, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run is not empty: choose another --out, or give --resume"):
        Run.create(run.path, recipe, SETTINGS, SOURCE)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is a file, not a folder: choose another --out"):
        Run.create(tmp_path / "file", recipe, SETTINGS, SOURCE)
    with pytest.raises(RunError, match=r"cannot make .*: Not a directory"):
        Run.create(tmp_path / "file" / "run", recipe, SETTINGS, SOURCE)


def test_no_run_of_this_version(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere holds no run: settings\.json is missing"):
        Run.open(tmp_path / "nowhere")
    change(run, format=FORMAT + 1)
    with pytest.raises(RunError, match=f"format {FORMAT + 1}, this version reads {FORMAT}"):
        Run.open(run.path)


@pytest.mark.parametrize(
    "training", [None, {"steps": 0}, {"no_setting": 1}], ids=["none", "bad", "unknown"]
)
def test_damaged_settings(run: Run, training: object) -> None:
    change(run, training=training)
    with pytest.raises(RunError, match=r"settings\.json is damaged: "):
        _ = run.settings
    (run.path / "settings.json").write_text("{")
    with pytest.raises(RunError) as caught:
        _ = run.settings
    assert str(caught.value) == f"{run.path / 'settings.json'}: not valid JSON"


def test_what_differs_is_not_resumed(run: Run, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="trained with another learning_rate, average, seed"):
        run.check_resumable(recipe, TrainSettings(steps=4, seed=1, learning_rate=1.0), SOURCE)
    with pytest.raises(RunError, match="was trained on other data"):
        run.check_resumable(recipe, SETTINGS, MovingDigits(size=32))
    (tmp_path / "other.py").write_text(recipe.text + "\n")
    with pytest.raises(RunError, match=r"another recipe than .*other\.py"):
        run.check_resumable(load_recipe(tmp_path / "other.py"), SETTINGS, SOURCE)


def test_a_recipe_of_others_is_not_executed(run: Run, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is code that was not run here before"):
        run.recipe()
    assert run.recipe(trust=True).text == recipe.text
    assert run.recipe(given=tmp_path / "mine.py").path == tmp_path / "mine.py"
    (tmp_path / "other.py").write_text(recipe.text + "\n")
    with pytest.raises(RecipeError, match="was trained with another recipe than"):
        run.recipe(given=tmp_path / "other.py")
    (run.path / "recipe.py").unlink()
    with pytest.raises(RunError, match=r"holds no readable recipe\.py"):
        run.recipe()


OLD_IMPORTS = {  # of recipes in the release before, and now
    "vrnn": (
        "from pyro_afslvm import SLVM, FrameMemory, Pair\nmemory = FrameMemory\n",
        "from pyro_afslvm import SLVM, HistoryEncoder, Pair\nmemory = HistoryEncoder\n",
    ),
    "vae": (
        "from pyro_afslvm.residual import ResidualDecoder, ResidualEncoder\n",
        "from pyro_afslvm.networks.residual import ResidualDecoder, ResidualEncoder\n",
    ),
}


@pytest.mark.parametrize("name", OLD_IMPORTS)
def test_a_recipe_with_imports_of_before_is_the_same(run: Run, recipe: Recipe, name: str) -> None:
    old, new = (text + recipe.text for text in OLD_IMPORTS[name])
    (run.path / "recipe.py").write_text(old)
    (run.path / "new.py").write_text(new)
    run.check_resumable(load_recipe(run.path / "new.py"), SETTINGS, SOURCE)
    assert run.recipe(given=run.path / "new.py").text == new
    (run.path / "new.py").write_text(new + "STEPS = 3\n")
    with pytest.raises(RunError, match="another recipe"):
        run.check_resumable(load_recipe(run.path / "new.py"), SETTINGS, SOURCE)


def test_settings_by_the_keyword_of_the_release_before() -> None:
    with pytest.warns(FutureWarning, match=r"^TrainSettings\(noise=\) is now dequantization=$"):
        assert TrainSettings(noise="uniform") == TrainSettings(dequantization="uniform")
