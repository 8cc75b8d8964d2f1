"""Data that are named by their path, and data that changed after a training."""

from pathlib import Path

import numpy as np
import pytest

from pyro_afslvm.cli.main import main
from pyro_afslvm.runs.run import Run

Capture = pytest.CaptureFixture[str]
FEW = ("--steps", "1", "--validation_sequences", "1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    store(seed=0)


def store(*, seed: int) -> None:
    np.save("walks.npy", np.random.default_rng(seed).normal(size=(12, 20, 3)).cumsum(1))


@pytest.mark.parametrize("given", [["--data", "walks.npy"], ["--data=walks.npy"]])
def test_a_path_is_enough(given: list[str]) -> None:
    assert main(["train", "vector_af1", *given, *FEW, "--out", "run"]) == 0
    assert Run.open("run").read_settings()["source"]["arguments"]["path"] == "walks.npy"


def test_replaced_data_are_not_scored_in_silence(capsys: Capture) -> None:
    assert main(["train", "vector_af1", "--data", "walks.npy", *FEW, "--out", "run"]) == 0
    store(seed=1)
    for command in ("evaluate", "sample", "report"):
        assert main([command, "run"]) == 2
        assert "not those it was trained on: give --data" in capsys.readouterr().err
    assert main(["evaluate", "run", "--data", "walks.npy"]) == 0
