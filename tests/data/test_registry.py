"""The registry: sources by their names, one's own too, and by what lies at a path."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from pyro_afslvm.cli.main import main
from pyro_afslvm.data import (
    BAIR,
    KTH,
    Arrays,
    MovingDigits,
    MovingMNIST,
    SequenceSource,
    Videos,
    source_from_config,
)
from pyro_afslvm.data.registry import (
    UnknownSourceError,
    find_source,
    guess_source,
    load_installed,
)
from pyro_afslvm.data.source import REGISTERED
from tests.cli.test_cli import refused
from tests.support.sources import RAMP
from tests.training.test_training import TINY

FAST = ("--steps", "2", "--validate_every", "2", "--validation_sequences", "3")
FAST += ("--scored_frames", "3")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module and a recipe; what they define is forgotten afterwards."""
    before, modules = dict(REGISTERED), set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(RAMP)
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "own.py").write_text(RAMP.replace("Ramp", "Slope") + TINY)
    yield tmp_path
    forget()
    REGISTERED.clear()
    REGISTERED.update(before)
    for name in set(sys.modules) - modules:
        if name == "mine" or name.startswith("recipe_"):
            del sys.modules[name]


def forget() -> None:
    """As in another process: nothing is imported."""
    for name in [name for name in sys.modules if name == "mine" or name.startswith("recipe_")]:
        for key in [key for key in REGISTERED if key.startswith(f"{name}.")]:
            del REGISTERED[key]
        del sys.modules[name]


def train(recipe: str, *data: str) -> int:
    return main(["train", recipe, *FAST, *data, "--out", "run"])


def stored() -> str:
    return json.loads(Path("run/settings.json").read_text())["source"]["class"]


# ---- by name ----


def test_sources_of_the_library() -> None:
    assert find_source("MovingDigits") is MovingDigits
    assert find_source("pyro_afslvm.data.datasets.moving_digits.MovingDigits") is MovingDigits
    for name in ("SequenceSource", "NoSuchData", "no.such.Data", "None", ""):
        with pytest.raises(UnknownSourceError, match="is no source that is known here"):
            source_from_config({"class": name, "arguments": {}})
    with pytest.raises(ValueError, match="settings of MovingDigits are damaged"):
        source_from_config({"class": "MovingDigits", "arguments": {"colour": 1}})


def test_a_stored_name_imports_nothing_unless_trusted(here: Path) -> None:
    (here / "mine.py").write_text("open('executed', 'w').close()\n" + RAMP)
    config = {"class": "mine.Ramp", "arguments": {"size": 9}}
    with pytest.raises(UnknownSourceError, match=r"mine\.Ramp is no source .* give --trust") as e:
        source_from_config(config)
    assert "\n" not in str(e.value)
    assert not Path("executed").exists()
    assert source_from_config(config, trust=True).frame_shape == (1, 9, 9)
    assert Path("executed").exists()
    assert source_from_config(config).config() == config  # it is registered now
    (here / "broken.py").write_text("def (:\n")
    refusals = {
        "mine.Lost": "mine.Lost is no source that is known here$",
        "lost.Ramp": "cannot import lost: ModuleNotFoundError",
        "broken.Ramp": "cannot import broken: SyntaxError",
    }
    for name, message in refusals.items():
        with pytest.raises(UnknownSourceError, match=message):
            source_from_config({"class": name}, trust=True)


def test_names_that_are_not_unique(here: Path) -> None:
    (here / "mine2.py").write_text(RAMP)
    for name in ("mine.Ramp", "mine2.Ramp"):
        find_source(name, trust=True)
    assert find_source("mine2.Ramp").__module__ == "mine2"
    with pytest.raises(UnknownSourceError, match=r"several sources Ramp: mine\.Ramp and mine2\."):
        find_source("Ramp")
    del sys.modules["mine2"]


def test_sources_of_installed_packages(here: Path) -> None:
    info = here / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    points = "[pyro_afslvm.sources]\nRamp = mine:Ramp\nLost = lost:Lost\n"
    (info / "entry_points.txt").write_text(points)
    load_installed.cache_clear()
    with pytest.warns(UserWarning, match=r"source Lost \(lost:Lost\): ModuleNotFoundError"):
        assert issubclass(find_source("Ramp"), SequenceSource)
    assert source_from_config({"class": "mine.Ramp"}).name == "ramp"


# ---- on the command line, and in runs ----


def test_a_source_of_a_module(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a ramp of 3 pixels" in refused(
        capsys, "train", "tiny.py", "--data", "mine.Ramp", "--data.size", "3"
    )
    assert train("tiny.py", "--data", "mine.Ramp", "--data.size", "16") == 0
    assert stored() == "mine.Ramp"
    assert main(["evaluate", "run", "--limit", "2"]) == 0
    forget()
    error = refused(capsys, "evaluate", "run", "--limit", "2")
    assert error == (
        "afslvm: error: the data of run are of mine.Ramp, which is no source that is known here: "
        "give --data mine.Ramp and its settings, or --trust to import it"
    )
    assert "mine" not in sys.modules
    assert main(["evaluate", "run", "--limit", "2", "--trust"]) == 0
    results = json.loads(Path("run/results.json").read_text())
    assert results["protocol"]["data"] == {"name": "ramp", "size": 16, "seed": 0}


def test_a_source_of_a_recipe(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("own.py", "--data", "Slope", "--data.size", "16") == 0
    name = stored()
    forget()
    assert main(["evaluate", "run", "--limit", "2"]) == 0  # the recipe was run here before
    assert main(["sample", "run", "--horizon", "2", "--num_sequences", "2"]) == 0
    forget()
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "another"))
    assert "recipe.py is code that was not run here" in refused(capsys, "evaluate", "run")
    assert name not in REGISTERED
    assert main(["evaluate", "run", "--limit", "2", "--recipe", "own.py"]) == 0
    assert name in REGISTERED


def test_a_recipe_that_fails_says_so_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.py").write_text("raise RuntimeError('no luck')\n")
    assert "no luck" in refused(capsys, "train", "bad.py", "--data", "Slope")
    assert "Slope" in refused(capsys, "train", "tiny.py", "--data", "Slope")


# ---- by what lies at a path ----


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def test_guesses(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x.zarr", shape=(2, 3), chunks=(2, 3), dtype="f4")
    with h5py.File(tmp_path / "x.nc", "w"):
        pass
    np.save(tmp_path / "x.npy", np.zeros(3))
    cases = {
        tmp_path / "x.zarr": Arrays,
        tmp_path / "x.nc": Arrays,
        tmp_path / "x.npy": Arrays,
        make(tmp_path / "kth", "00sequences.txt", "walking/person01_walking_d1_uncomp.avi"): KTH,
        make(tmp_path / "up", "softmotion30_44k/train/traj_0_to_9.tfrecords"): BAIR,
        tmp_path / "up" / "softmotion30_44k": BAIR,
        make(tmp_path / "robot", "test/traj_0_to_9.tfrecords"): BAIR,
        make(tmp_path / "digits", "t10k-images-idx3-ubyte.gz"): MovingMNIST,
        tmp_path / "digits" / "t10k-images-idx3-ubyte.gz": MovingMNIST,
        make(tmp_path / "public", "mnist_test_seq.npy") / "mnist_test_seq.npy": MovingMNIST,
        make(tmp_path / "films", "a.avi", "b.mp4"): Videos,
        tmp_path / "films" / "a.avi": Videos,
        tmp_path / "films" / "*.mp4": Videos,
    }
    for path, expected in cases.items():
        assert type(guess_source(str(path))) is expected, path
    with pytest.raises(FileNotFoundError, match="nowhere"):
        guess_source(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="folder that holds train and test"):
        guess_source(str(tmp_path / "up" / "softmotion30_44k/train/traj_0_to_9.tfrecords"))
