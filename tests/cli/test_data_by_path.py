"""``--data PATH`` takes the source that the path is for."""

import json
from pathlib import Path

import numpy as np
import pytest

from pyro_afslvm.cli.main import main

SIZES = ["--steps", "1", "--batch_size", "2", "--scored_frames", "2"]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found = Path("models/small/vector_af1.py").absolute()
    monkeypatch.chdir(tmp_path)
    np.save("weather.npy", np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    return str(found)


@pytest.mark.parametrize("form", [["--data", "weather.npy"], ["--data=weather.npy"]])
def test_a_path_is_enough(recipe: str, form: list[str]) -> None:
    assert (
        main(["train", recipe, "--out", "run", *form, "--data.standardize", "false", *SIZES]) == 0
    )
    source = json.loads(Path("run/settings.json").read_text())["source"]
    assert source["class"] == "Arrays"
    assert source["arguments"]["path"] == "weather.npy"
    assert source["arguments"]["standardize"] is False


def test_a_class_is_a_class_beside_a_folder_of_its_name(recipe: str) -> None:
    Path("Arrays").mkdir()
    data = ["--data", "Arrays", "--data.path", "weather.npy"]
    assert main(["train", recipe, "--out", "run", *data, *SIZES]) == 0


def test_a_path_with_nothing_is_one_line(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", recipe, "--data", "films/none.npy", *SIZES])
    error = capsys.readouterr().err.strip()
    assert error == "afslvm: error: films/none.npy: there is no such file or folder"
