"""Vector sequences through the commands: recipes, units of their own, lines for pictures."""

import csv
import json
import math
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.cli.main import main
from pyro_afslvm.data import Arrays, MovingDigits
from pyro_afslvm.evaluation.metrics import evaluate
from pyro_afslvm.evaluation.pictures import pictures
from pyro_afslvm.plots import FlowLevel, flow_lines, forecast_lines
from pyro_afslvm.report import table_text
from pyro_afslvm.transforms import LastFrame

MODELS = Path(__file__).parents[3] / "models" / "small"
FAST = ("--steps", "4", "--validate_every", "2", "--scored_frames", "4", "--batch_size", "4")


def eeg() -> np.ndarray:
    """Four channels of an electroencephalogram, 800 samples, that matplotlib ships."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "eeg.dat"
    return np.fromfile(path, dtype=float).reshape(800, 4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("eeg.npy", eeg())
    return tmp_path


def train(recipe: str, *more: str, out: str = "run") -> int:
    data = ("--data", "Arrays", "--data.path", "eeg.npy")
    return main(["train", str(MODELS / f"{recipe}.py"), *data, *FAST, "--out", out, *more])


# ---- the commands ----


@pytest.mark.parametrize("recipe", ["vector_af1", "vector_slvm_af1", "copy_last_frame"])
def test_train_evaluate_sample_report(
    here: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(recipe) == 0
    settings = json.loads(Path("run/settings.json").read_text())
    assert settings["training"]["dequantization"] == "none"
    assert train(recipe, "--steps", "6", "--resume") == 0
    assert main(["evaluate", "run"]) == 0
    results = json.loads(Path("run/results.json").read_text())
    assert results["protocol"]["noise"] == "none"
    assert results["protocol"]["data"]["frame_shape"] == [4]
    assert results["bits_per_dim"] is results["protocol_bits"] is None
    assert results["nats_per_dim_unit"] is None
    assert math.isfinite(results["nats_per_dim"])
    assert main(["sample", "run", "--horizon", "5", "--num_sequences", "2"]) == 0
    assert "rollout.csv and" in capsys.readouterr().out
    with Image.open("run/rollout.png") as picture:
        assert picture.width > 600
    assert main(["report", "run", "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "nats/dim, data units" in page
    assert "grey levels" not in page
    assert "bits/dim" not in page
    assert "image/gif" not in page
    assert page.count("data:image/png") == 3  # curves, flow, rollout


def test_a_validation_split_shorter_than_the_crop(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("vector_af1", "--data.validation_fraction", "0.005") == 0
    notices = [line for line in capsys.readouterr().err.splitlines() if "validation" in line]
    assert notices == [
        "training without validation: eeg.npy: num_frames is 7, but the stored sequences of the "
        "validation split have 4 frames at most"
    ]
    assert main(["evaluate", "run"]) == 0
    assert train("vector_af1", "--data.gap", "500", out="other") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "eeg.npy: too short, the train split is empty" in error
    assert not Path("other").exists()


def test_sampled_futures_as_a_table(here: Path) -> None:
    train("vector_af1")
    options = ["--horizon", "5", "--num_sequences", "2", "--num_samples", "3", "--context", "6"]
    assert main(["sample", "run", *options]) == 0
    with Path("run/rollout.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (3 + 1) * 2 * 11
    values = {
        (row["sample"], row["sequence"], row["time"]): [row[f"feature_{j}"] for j in (1, 2, 3, 4)]
        for row in rows
    }
    assert values["1", "2", "6"] == values["truth", "2", "6"]
    assert values["1", "2", "7"] != values["truth", "2", "7"] != values["2", "2", "7"]
    test = Arrays(path="eeg.npy").dataset("test", num_frames=11)[1]
    found = np.array([values["truth", "2", str(t)] for t in range(1, 12)], dtype=float)
    np.testing.assert_allclose(found, test, rtol=1e-4)


def test_noise_that_does_not_fit_the_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gaussian", "uniform"):
        assert train("vector_af1", "--dequantization", name) == 2
        error = capsys.readouterr().err.strip()
        assert error.endswith(
            f"error: dequantization '{name}' is for 8-bit pixels, but arrays holds real numbers: "
            "take 'none'"
        )
    digits = ("--data", "MovingDigits", "--data.size", "16", "--noise", "none")
    assert main(["train", str(MODELS / "copy_last_frame.py"), *digits, *FAST]) == 2
    assert "but moving_digits holds 8-bit pixels" in capsys.readouterr().err
    assert not Path("run").exists()


def test_recipes_of_another_kind_of_frame(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("slvm_af1") == 2
    assert "(4,)" in capsys.readouterr().err.strip().splitlines()[-1]
    digits = ("--data", "MovingDigits", "--data.size", "16")
    assert main(["train", str(MODELS / "vector_slvm_af1.py"), *digits, *FAST]) == 2
    assert "(1, 16, 16)" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_data_that_go_bad_while_training(
    here: Path, capsys: pytest.CaptureFixture[str], workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(*_: Any, **__: Any) -> None:
        raise ValueError("eeg.npy: went bad")

    monkeypatch.setattr("pyro_afslvm.data.arrays.source._load", bad)
    assert train("vector_af1", "--workers", workers) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith("error: eeg.npy: went bad")


@pytest.mark.parametrize("recipe", ["vector_af1", "vector_slvm_af1"])
def test_recipes_take_any_number_of_features(recipe: str) -> None:
    for size in (1, 9):
        pair = import_module(f"models.small.{recipe}").build((size,))
        x = torch.randn(3, 8, size)
        z = None if pair.guide is None else pair.guide(x)
        scored = pair.model.log_prob(x) if z is None else pair.model.log_prob(x, z)
        assert scored.shape == (3, 5)


# ---- figures ----


def test_nats_are_of_the_data_themselves() -> None:
    frame = LastFrame(1, learned_scale=True)
    frame.log_scale.data.fill_(-0.7)
    pair = Pair(FlowModel(TemporalAffine(frame), (4,), context_length=3), None)
    source = Arrays.from_array(eeg())
    results = evaluate(pair, source)
    x = torch.stack(list(source.dataset("test", num_frames=13))).double()
    change = x[:, 3:] - x[:, 2:-1]
    by_hand = torch.distributions.Normal(0.0, math.exp(-0.7)).log_prob(change).mean()
    assert results["nats_per_dim"] == pytest.approx(by_hand.item(), abs=1e-5)
    arrays = pictures(pair, source, num_sequences=50, horizon=5)
    assert arrays["rollout_samples"].min() < -1  # real numbers are not clipped to [0, 1]
    assert len(arrays["rollout_truth"]) == len(source.dataset("test", num_frames=11))


def test_float_pictures_go_the_same_way() -> None:
    frames = np.random.default_rng(0).random((12, 20, 1, 16, 16))
    pair = import_module("models.small.copy_last_frame").build((1, 16, 16))
    results = evaluate(pair, Arrays.from_array(frames))
    assert results["protocol"]["noise"] == "none"
    assert results["bits_per_dim"] is None
    assert evaluate(pair, Arrays.from_array(300 + frames))  # kelvins are no pixels
    far = Arrays.from_array(300 + frames, standardize=True)
    assert evaluate(pair, far)
    drawn = pictures(pair, far, horizon=4)
    assert (drawn["rollout_truth"].min(), drawn["rollout_truth"].max()) == (0, 1)
    again = drawn["shift_1"] + drawn["scale_1"] * drawn["noise_1"]
    np.testing.assert_allclose(again, drawn["frames"], atol=1e-5)


def test_real_numbers_share_no_table_with_8_bit_numbers(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("copy_last_frame", out="vectors")
    train("copy_last_frame", "--data.standardize", "true", out="standardized")
    digits = ("--data", "MovingDigits", "--data.size", "16", "--data.test_size", "3")
    recipe = str(MODELS / "copy_last_frame.py")
    assert main(["train", recipe, *digits, *FAST, "--out", "digits"]) == 0
    names = ["vectors", "standardized", "digits"]
    assert main(["report", *names]) == 0
    capsys.readouterr()
    own, other, eight = table_text([Path(name) for name in names]).split("\n\n")
    assert "nats/dim, data units ↑" in own
    assert "nats/dim, data units ↑" in other
    assert "standardized" in other
    assert "standardized" not in own
    assert "data units" not in eight
    assert re.search(r"nats/dim ↑ +bits/dim ↓", eight)
    page = Path("report.html").read_text()
    assert "grey levels" in page
    assert "Nats in data units" in page


def test_table_programs_take_sources_without_bits(here: Path) -> None:
    from inference.table1 import compare, summary
    from pyro_afslvm.runs.settings import TrainSettings

    settings = TrainSettings(steps=2, validate_every=2, scored_frames=4, batch_size=4)
    recipes = [str(MODELS / "vector_af1.py"), str(MODELS / "copy_last_frame.py")]
    runs = compare(recipes, Arrays(path="eeg.npy"), Path("runs"), settings)
    found = summary([runs])
    assert found["protocol_bits"] is None
    assert [model["bits_per_dim"]["mean"] for model in found["models"]] == [None, None]
    assert [model["recipe"] for model in found["models"]] == ["vector_af1.py", "copy_last_frame.py"]
    rates = [model["training"]["learning_rate"] for model in found["models"]]
    assert rates[0] != rates[1]


def test_settings_of_noise() -> None:
    from pyro_afslvm.runs.settings import TrainSettings

    assert TrainSettings().dequantization is None
    assert TrainSettings().resolved({}, dequantization="none").dequantization == "none"
    uniform = TrainSettings(dequantization="uniform").resolved({}, dequantization="gaussian")
    assert uniform.dequantization == "uniform"
    assert MovingDigits().dequantization == "gaussian"


# ---- pictures ----


def level(frames: np.ndarray) -> FlowLevel:
    shift = np.roll(frames, 1, axis=0)
    return FlowLevel(shift, np.full_like(frames, 0.5), (frames - shift) / 0.5)


@pytest.mark.parametrize(("size", "levels"), [(1, 2), (4, 1), (9, 2)])
def test_lines_of_a_flow(size: int, levels: int) -> None:
    frames = np.random.default_rng(0).normal(size=(12, size))
    figure = flow_lines(frames, [level(frames)] * levels)
    assert len(figure.axes) == min(size, 6) * (1 + levels)
    values = figure.axes[0].lines[-1]
    np.testing.assert_array_equal(values.get_ydata(), frames[:, 0])
    assert len(figure.axes[0].collections) == 1  # the band
    assert len(figure.axes[levels].collections) == 0  # the last noise is standard normal


@pytest.mark.parametrize("size", [1, 3, 9])
def test_lines_of_futures(size: int) -> None:
    truth = np.random.default_rng(0).normal(size=(12, size))
    samples = np.random.default_rng(1).normal(size=(5, 12, size))
    figure = forecast_lines(truth, samples, context=4)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == min(size, 6)
    *futures, after, given, _ = shown[0].lines
    assert len(futures) == 5
    assert list(given.get_xdata()) == [1, 2, 3, 4]
    assert list(after.get_xdata()) == list(range(4, 13))
    np.testing.assert_array_equal(futures[2].get_ydata(), samples[2, 3:, 0])


def test_lines_of_bad_arrays() -> None:
    frames = np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"frames: expected vectors \(T, D\), got \(5, 2, 1\)"):
        flow_lines(frames[..., None], [])
    with pytest.raises(ValueError, match=r"shift: expected vectors \(5, 2\), got \(4, 2\)"):
        flow_lines(frames, [level(frames[1:])])
    with pytest.raises(ValueError, match=r"sample 1: expected vectors \(5, 2\)"):
        forecast_lines(frames, np.zeros((1, 4, 2)), context=2)
