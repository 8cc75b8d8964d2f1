"""Trained models that come with the package: whole, loaded, and as good as they claim."""

import json
import math
from pathlib import Path

import pytest
import torch

from inference.ship import main as ship_run
from pyro_afslvm import pretrained
from pyro_afslvm.cli.main import main
from pyro_afslvm.data import MovingMNIST
from pyro_afslvm.data.dequantize import dequantization
from pyro_afslvm.evaluation.bounds import likelihood
from pyro_afslvm.runs import shipped
from pyro_afslvm.runs.checkpoint import RunError, load_checkpoint
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.shipped import SHIPPED, shipped_names, unpack

DIGITS = Path(__file__).parents[3] / "shared" / "data" / "mnist"
RECIPE = "models/small/af1.py"
DATA = ["--data", "MovingDigits", "--data.size", "16", "--data.test_size", "6"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place for models of this test, and its working folder."""
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "models")
    recipe = Path(RECIPE).absolute()
    monkeypatch.chdir(tmp_path)
    return recipe


def test_a_run_is_shipped_unpacked_and_evaluated(place, capsys) -> None:
    sizes = ["--steps", "2", "--batch_size", "2", "--validation_sequences", "2"]
    assert main(["train", str(place), "--out", "run", *DATA, *sizes]) == 0
    assert main(["evaluate", "run"]) == 0
    assert ship_run(["run", "mine"]) == 0
    assert shipped.shipped_names() == ["mine"]
    weights = Path("models/mine/weights.safetensors")
    before, after = load_checkpoint(Path("run/best.ckpt")), load_checkpoint(weights)
    assert before["model"].keys() == after["model"].keys()
    assert all(torch.equal(before["model"][k], after["model"][k]) for k in before["model"])
    capsys.readouterr()
    assert main(["evaluate", "--pretrained", "mine", *DATA]) == 0
    printed = capsys.readouterr().out
    first, again = (
        json.loads(Path(f"{run}/results.json").read_text()) for run in ("run", "runs/mine")
    )
    assert again["nats_per_dim"] == first["nats_per_dim"]
    figure = f"{first['nats_per_dim']:.3f} ± {first['nats_per_dim_error']:.3f}"
    assert f"claimed: {figure} nats/dim on 6 test sequences" in printed
    assert main(["sample", "--pretrained", "mine", *DATA, "--horizon", "2"]) == 0
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RunError, match="cannot be read"):
        load_checkpoint(weights)


def test_what_is_no_model_is_said_in_one_line(place, capsys) -> None:
    assert main(["evaluate", "--pretrained", "nothing"]) == 2
    assert "there is no model 'nothing' in this package" in capsys.readouterr().err
    assert main(["evaluate"]) == 2
    assert "name a run folder, or one of this package" in capsys.readouterr().err


def test_another_folder_is_not_written_over(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "claim.json").write_text("{}")
    with pytest.raises(RunError, match="is not the model"):
        unpack(shipped_names()[0], tmp_path / "mine")


@pytest.mark.parametrize("name", shipped_names())
def test_a_model_is_as_good_as_it_claims(name: str) -> None:
    """Within three standard errors on 50 sequences, and 4 MiB."""
    assert (SHIPPED / name / "weights.safetensors").stat().st_size <= shipped.MOST_BYTES
    pair = pretrained(name)
    if not DIGITS.is_dir():
        pytest.skip(f"the digits are not in {DIGITS}")
    stored, claimed = Run(SHIPPED / name).read_settings(), shipped.claim(Run(SHIPPED / name))
    assert claimed is not None
    arguments = stored["source"]["arguments"] | {"path": str(DIGITS), "test_size": 50}
    data = MovingMNIST(**arguments).dataset("test", num_frames=13)
    gaussian = dequantization("gaussian")
    found = likelihood(pair, data, dequantization=gaussian, scored_frames=10)
    error = math.hypot(found.error, claimed["nats_per_dim_error"])
    assert abs(gaussian.to_report(found.mean) - claimed["nats_per_dim"]) < 3 * error
