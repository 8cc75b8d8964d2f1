"""Covariates through the commands: train, resume, evaluate, sample, report."""

import json
from pathlib import Path

import numpy as np
import pytest

from pyro_afslvm.cli.main import main
from pyro_afslvm.data import BAIR
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.runs.run import Run
from tests.cli.test_cli import refused
from tests.support.tfrecords import framed, trajectory
from tests.training.test_training import weights

MODELS = Path(__file__).parents[2] / "models" / "small"
FAST = ("--steps", "4", "--validate_every", "2", "--scored_frames", "4", "--batch_size", "4")
DATA = ("--data", "Arrays", "--data.path", "x.npz", "--data.context", "[c]")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    c = rng.normal(size=(900, 1))
    np.savez("x.npz", x=c * [1.0, -2.0] + 0.1 * rng.normal(size=(900, 2)), c=c)
    return tmp_path


def train(recipe: str, *more: str, out: str = "run") -> int:
    return main(["train", str(MODELS / f"{recipe}.py"), *DATA, *FAST, "--out", out, *more])


@pytest.mark.parametrize("recipe", ["vector_af1", "vector_slvm_af1"])
def test_train_resume_evaluate_sample_report(here: Path, recipe: str) -> None:
    assert train(recipe) == 0
    settings = json.loads(Path("run/settings.json").read_text())
    assert settings["context_features"] == 1
    assert settings["source"]["arguments"]["context"] == ["c"]
    assert main(["train", str(MODELS / f"{recipe}.py"), *FAST, "--out", "run", "--resume",
                 "--steps", "8"]) == 0  # fmt: skip
    assert train(recipe, "--steps", "8", out="whole") == 0
    resumed, whole = weights(Run(Path("run"))), weights(Run(Path("whole")))
    assert resumed.keys() == whole.keys()
    assert all(bool((resumed[name] == whole[name]).all()) for name in whole)
    assert main(["evaluate", "run"]) == 0
    results = json.loads(Path("run/results.json").read_text())
    assert results["protocol"]["data"]["context"] == 1
    assert results["correlation_y"] is not None
    assert main(["sample", "run", "--horizon", "5"]) == 0
    with np.load("run/pictures.npz") as arrays:
        assert arrays["rollout_samples"].shape == (3, 4, 11, 2)
    assert main(["report", "run", "--out", "page.html"]) == 0


def test_what_is_known_is_used(here: Path) -> None:
    """x_t is 0.1 N(0, 1) around a multiple of c_t: with c_t known it costs little."""
    long = ("--steps", "300", "--validate_every", "300", "--learning_rate", "0.01")
    train("vector_af1", *long)
    train("vector_af1", *long, "--data.context", "null", "--data.variable", "x", out="without")
    found = []
    for run in ("run", "without"):
        assert main(["evaluate", run]) == 0
        found.append(json.loads(Path(run, "results.json").read_text())["nats_per_dim"])
    assert found[0] > found[1] + 1.0


def test_no_more_is_forecast_than_is_known(here: Path) -> None:
    with np.load("x.npz") as stored:
        x, c = (stored[name].reshape(60, 15, -1) for name in ("x", "c"))
    np.savez("x.npz", x=x, c=c)
    assert train("vector_af1") == 0
    assert main(["sample", "run", "--horizon", "50"]) == 0
    with np.load("run/pictures.npz") as arrays:
        assert arrays["rollout_samples"].shape == (3, 4, 15, 2)
    assert main(["sample", "run", "--context", "40"]) == 0
    with np.load("run/pictures.npz") as arrays:
        assert (int(arrays["rollout_context"]), arrays["rollout_samples"].shape[2]) == (14, 15)


def test_covariates_and_models_that_do_not_fit(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(MODELS / "copy_last_frame.py")
    error = refused(capsys, "train", recipe, *DATA, *FAST, "--out", "run")
    assert "takes 0 covariates of each frame, the data have 1: leave --data.context out" in error
    assert not Path("run").exists()
    text = (MODELS / "vector_af1.py").read_text()
    Path("two.py").write_text(text.replace("def build(", "def build(**_):\n    return model((2,), context_features=2)\n\n\ndef model("))  # noqa: E501  # fmt: skip
    error = refused(capsys, "train", "two.py", *DATA, *FAST, "--out", "run")
    assert "two.py takes 2 covariates of each frame, the data have 1: choose them by" in error
    assert train("vector_af1") == 0
    without = ("--data", "Arrays", "--data.path", "x.npz", "--data.variable", "x")
    error = refused(capsys, "evaluate", "run", *without)
    assert "run was trained with 1 covariates of each frame, these data have 0" in error


def test_a_training_that_diverges_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = train("vector_af1", "--learning_rate", "1e30", "--steps", "50")
    error = capsys.readouterr().err
    assert code == 2
    assert "training stopped at step" in error
    assert "site 'x'" in error


def test_actions_of_bair(here: Path) -> None:
    for split, numbers in (("train", range(6)), ("test", range(6, 8))):
        path = here / "softmotion30_44k" / split / "traj_0_to_255.tfrecords"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(framed(trajectory(i)) for i in numbers))
    data = ("--data", "BAIR", "--data.path", str(here), "--data.size", "8")
    options = (*data, "--data.validation_size", "2", "--data.context", "[action]")
    recipe = str(MODELS / "af1.py")
    assert main(["train", recipe, *options, *FAST, "--out", "run"]) == 0
    assert main(["evaluate", "run"]) == 0
    assert main(["sample", "run", "--horizon", "3"]) == 0
    source = Run(Path("run")).source
    assert isinstance(source, BAIR)
    assert build_pair(load_recipe(recipe), (3, 8, 8), 4).model.context_features == 4
