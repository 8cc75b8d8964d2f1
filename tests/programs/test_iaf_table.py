"""Single images through the command line's training, the report, and the IAF program."""

import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import iaf_table, table1
from pyro_afslvm.cli import main
from pyro_afslvm.cli.workflow import evaluate_run, report_runs, sample_run, train_run
from pyro_afslvm.data import BinarizedMNIST, MovingDigits
from pyro_afslvm.data.dequantize import dequantization
from pyro_afslvm.data.fetch import IDX_TEST
from pyro_afslvm.data.source import choose_dequantization
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.runs.recipe import load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings

ROOT = Path(__file__).parents[2]
RECIPE = """
from pyro_afslvm import VAE, InverseAutoregressive, Pair, VAEGuide
from pyro_afslvm.networks import ResidualDecoder, ResidualEncoder
NAME, LEARNING_RATE, BATCH_SIZE, STEPS = "small {depth}", 1e-2, 10, 6
SIZES = dict(features=8, channels=(2, 4))
def build(frame_shape=(1, 28, 28)):
    model = VAE(frame_shape, 3, decoder=ResidualDecoder(3, frame_shape, **SIZES))
    iaf = InverseAutoregressive(3, context_features=4, depth={depth}, hidden=(8,))
    return Pair(model, VAEGuide(model, ResidualEncoder(frame_shape, **SIZES), iaf=iaf))
"""


@pytest.fixture
def digits(tmp_path: Path) -> str:
    folder = tmp_path / "mnist"
    folder.mkdir()
    images = np.random.default_rng(0).integers(256, size=(60, 28, 28), dtype=np.uint8)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
    (folder / IDX_TEST).write_bytes(header + images.tobytes())
    return str(folder)


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"small{depth}.py" for depth in (0, 1)]
    for depth, path in enumerate(paths):
        path.write_text(RECIPE.format(depth=depth))
    return [str(path) for path in paths]


def test_train_evaluate_report_and_sample(
    digits: str, recipes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BinarizedMNIST(path=digits, validation_size=10)
    settings = TrainSettings(validate_every=3, free_bits=0.1, kl_warmup=3)
    run = train_run(load_recipe(recipes[1]), source, tmp_path / "run", settings)
    results = evaluate_run(run, num_samples=3)
    assert results["nats_per_image"] == pytest.approx(784 * results["nats_per_dim"])
    assert -1000 < results["nats_per_image"] < 0
    assert results["protocol"]["noise"] == "binary"
    assert (results["protocol"]["context_frames"], results["protocol"]["scored_frames"]) == (0, 1)
    assert results["bits_per_dim"] is results["correlation_x"] is None
    text = report_runs([run], tmp_path / "report.html")
    assert "nats/image" in text
    assert "nats/dim" not in text
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Images</h2>" in page
    assert "probability of a whole binary image" in page
    for path in sample_run(run):
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_binary_images_and_others_share_no_table(
    digits: str, recipes: list[str], tmp_path: Path
) -> None:
    of_images = train_run(
        load_recipe(recipes[0]), BinarizedMNIST(path=digits), tmp_path / "images", TrainSettings()
    )
    baseline = load_recipe(ROOT / "models/small/copy_last_frame.py")
    source = MovingDigits(size=16, test_size=2, validation_size=0, train_size=4)
    frames = train_run(baseline, source, tmp_path / "frames", TrainSettings(steps=1))
    first, second = report_runs([of_images, frames], tmp_path / "page.html").split("\n\n")
    assert "nats/image" in first
    assert "nats/image" not in second


@pytest.mark.parametrize("seconds", [False, True])
def test_the_program(
    seconds: bool,
    digits: str,
    recipes: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, file = tmp_path / "runs", tmp_path / "figures" / "iaf.json"
    arguments = ["--path", digits, "--recipes", *recipes, "--seeds", "0", "1"]
    arguments += ["--particles", "6", "--samples", "2", "--validate_every", "2"]
    arguments += ["--out", str(out), "--json", str(file)]
    budget = ["--seconds", "0.1", "--free_bits", "0.5"] if seconds else ["--steps", "4"]
    assert iaf_table.main(arguments + budget) == 0
    printed = capsys.readouterr().out
    assert re.search(r"paper: IAF 2 x 320 +-82\.02", printed)
    assert "full\ntraining set of 60,000 digits" in printed
    content = json.loads(file.read_text())
    diagonal, iaf = content["models"]
    assert [model["name"] for model in content["models"]] == ["small 0", "small 1"]
    nothing = dict.fromkeys(("mean", "error_images", "low", "high"), 0.0)
    assert diagonal["vlb_gain"] == nothing | {"error_seeds": None}  # two are too few
    assert iaf["vlb_gain"]["mean"] == pytest.approx(iaf["vlb"]["mean"] - diagonal["vlb"]["mean"])
    assert content["data"]["test_images"] == 6
    objectives = [model["free_bits_objective"] for model in content["models"]]
    assert (None in objectives) == ("free-bits objective" not in printed) == (not seconds)
    for model in content["models"]:
        assert model["log_p"]["mean"] > model["vlb"]["mean"] - 5
        assert len(model["seeds"]) == 2
    if not seconds:
        assert [seed["train_steps"] for seed in iaf["seeds"]] == [4, 4]
    for name in ("small0", "small1"):
        assert (out / "seed1" / name / "samples.png").exists()
        assert (out / "seed1" / name / "reconstructions.png").exists()


def test_the_program_goes_on(digits: str, recipes: list[str], tmp_path: Path) -> None:
    """In one go or in two, the figures are the same; what is there is not made again."""
    found = []
    for name, budgets in (("two", (2, 4)), ("one", (4,))):
        for steps in budgets:
            arguments = ["--path", digits, "--recipes", recipes[1], "--steps", str(steps)]
            arguments += ["--particles", "3", "--samples", "2", "--validate_every", "2"]
            arguments += ["--out", str(tmp_path / name), "--json", str(tmp_path / f"{name}.json")]
            assert iaf_table.main(arguments) == 0
        found.append(json.loads((tmp_path / f"{name}.json").read_text())["models"][0])
    assert found[0]["vlb"] == found[1]["vlb"]
    assert found[0]["log_p"] == found[1]["log_p"]
    kept = tmp_path / "one" / "seed0" / "small1" / "nats.json"
    before = kept.stat().st_mtime_ns
    assert iaf_table.main(arguments) == 0
    assert kept.stat().st_mtime_ns == before
    again = json.loads((tmp_path / "one.json").read_text())["models"][0]
    assert (again["vlb"], again["log_p"]) == (found[1]["vlb"], found[1]["log_p"])


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (["--steps", "2"], "small0 has had 3 steps, more than 2: take a larger budget or another"),
        (["--seconds", "1e-4"], "seconds, more than 0.0001: take a larger budget or another --out"),
    ],
)
def test_a_run_beyond_the_budget_is_refused(
    budget: list[str],
    message: str,
    digits: str,
    recipes: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is trained: the figures would not be of equal budgets."""
    arguments = ["--path", digits, "--particles", "3", "--samples", "2"]
    arguments += ["--out", str(tmp_path / "out")]
    assert iaf_table.main([*arguments, "--recipes", recipes[0], "--steps", "3"]) == 0
    assert iaf_table.main([*arguments, "--recipes", *recipes[::-1], *budget]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out" / "seed0" / "small1").exists()


def test_estimates() -> None:
    values = [torch.tensor([1.0, 3.0] * 3), torch.tensor([3.0, 5.0] * 3)]
    found = iaf_table.estimate(values)
    assert found == {
        "mean": 3.0,
        "error_images": pytest.approx(1 / 5**0.5),
        "error_seeds": None,
        "low": 2.0,
        "high": 4.0,
    }
    five = iaf_table.estimate([torch.full((6,), float(i)) for i in range(5)])
    assert five["error_seeds"] == pytest.approx(0.5**0.5)
    alone = iaf_table.estimate([torch.tensor([1.0])])
    assert (alone["error_images"], alone["error_seeds"]) == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--path", "/nowhere"], "/nowhere: looked for train-images"),
        (["--particles", "0"], "particles must be an integer of at least 1, got 0"),
        (["--images", "0"], "images must be an integer of at least 1, got 0"),
        (["--seeds", "1", "1"], "expected recipes of different file names, and different seeds"),
        (["--validation_size", "54"], "validation_size is 54, but there are 54 images"),
        (["--recipes", "none.py"], "cannot read recipe none.py"),
        (["--free_bits", "-1"], "free_bits must not be negative, got -1"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str],
    message: str,
    digits: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--path", digits, "--out", str(tmp_path / "out"), "--steps", "1", *options]
    with pytest.raises(SystemExit) as end:  # of the parser, or with the program's code
        sys.exit(iaf_table.main(arguments))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert message in line
    assert not Run(tmp_path / "out" / "seed0" / "vae").last.exists()


@pytest.mark.parametrize(
    ("recipe", "binary", "message"),
    [
        ("models/small/slvm.py", True, "the model has a density of real numbers, which grows"),
        ("models/small/slvm_af1.py", True, "given 3 frames and scores those that follow, but the"),
        ("models/small/vector_af1.py", True, "raises ValueError"),
        ("models/vae.py", False, "pixels 0 and 1 such as those of pyro_afslvm.data.BinarizedMNIST"),
        ("models/iaf_resnet_vae.py", None, "images of 30 x 30 cannot be halved 2 times"),
    ],
)
def test_recipes_of_other_data_are_refused_in_one_line(
    recipe: str,
    binary: bool | None,
    message: str,
    digits: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ["MovingDigits", "--data.size", "30" if binary is None else "28"]
    if binary:
        data = ["BinarizedMNIST", "--data.path", digits]
    out = tmp_path / "out"
    arguments = ["train", str(ROOT / recipe), "--out", str(out), "--steps", "1", "--data", *data]
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("afslvm: error: ")
    assert message in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["BinarizedMNIST"], "single images, and this table is of sequences: see python -m inf"),
        (["Nothing"], "Nothing"),
        (["MovingDigits", "--seeds", "[1,1]"], "expected recipes of different file names, and"),
    ],
)
def test_table1_refuses_in_one_line(
    data: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:  # of the parser, or with the program's code
        sys.exit(table1.main(["--out", str(tmp_path / "out"), "--data", *data]))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("table1: error: ")
    assert message in line


# what images need of the rest -----------------------------------------------------------


def test_binary_pixels() -> None:
    binary = dequantization("binary")
    x = torch.tensor([0.0, 1.0])
    assert torch.equal(binary(x), x)
    assert (binary.ceiling, binary.to_report(-0.25)) == (0.0, -0.25)
    with pytest.raises(ValueError, match="is for real numbers, but binarized_mnist holds binary"):
        choose_dequantization("none", BinarizedMNIST())
    with pytest.raises(ValueError, match="is for binary pixels, but moving_digits holds 8-bit"):
        choose_dequantization("binary", MovingDigits())


def test_crops_are_no_longer_than_the_data() -> None:
    model = torch.nn.Linear(1, 1)
    assert crop_length(model, 10) == 13
    assert crop_length(model, 10, most=1) == 1
    assert crop_length(model, 10, most=20) == 13
    model.context_length = 3
    with pytest.raises(ValueError, match=r"is given 3 frames and .* the data have sequences of 1"):
        crop_length(model, 10, most=1)
