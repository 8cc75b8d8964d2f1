"""The programs of the extra ``sweep``: searching settings, and queueing commands."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

pytest.importorskip("optuna")
pytest.importorskip("submitit")

from inference import submit, sweep
from pyro_afslvm.data import MovingDigits
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.recipe import load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.run import train
from pyro_afslvm.training.session import Session

RECIPE = """
from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.transforms import LastFrame

BATCH_SIZE = 2


def build(frame_shape):
    frame = LastFrame(len(frame_shape), learned_scale=True)
    return Pair(FlowModel(TemporalAffine(frame), frame_shape, context_length=3), None)
"""
DATA = ["--data", "MovingDigits", "--data.size", "16", "--accelerator", "cpu"]
QUICK = ["--steps", "6", "--validate_every", "2", "--validation_sequences", "2"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # for jobs
    path = tmp_path / "last_frame.py"
    path.write_text(RECIPE)
    return path


def search(recipe: Path, *more: str, trials: int = 2) -> int:
    counts = ["--trials", str(trials), "--startup_trials", "1", "--out", "sweep"]
    return sweep.main([str(recipe), *DATA, *QUICK, *counts, *more])


def found() -> list[dict]:
    return json.loads(Path("sweep/sweep.json").read_text())["trials"]


def test_a_sweep_finds_the_best_and_goes_on(recipe: Path, capsys: Capture) -> None:
    two = ["--ranges.learning_rate", "[1e-3,1e-1]", "--choices.batch_size", "[1,3]"]
    assert search(recipe, *two) == 0
    first = found()
    assert [trial["folder"] for trial in first] == ["trial0", "trial1"]
    assert search(recipe, *two, trials=4) == 0
    trials = found()
    assert trials[:2] == first
    assert len(trials) == 4
    best = max((t for t in trials if t["state"] == "complete"), key=lambda t: t["nats_per_dim"])
    assert f"next: afslvm evaluate sweep/{best['folder']}" in capsys.readouterr().out
    for trial in trials:
        settings = Run(Path("sweep") / trial["folder"]).settings
        assert settings.learning_rate == trial["settings"]["learning_rate"]
        assert settings.batch_size == trial["settings"]["batch_size"]
        assert 1e-3 <= settings.learning_rate <= 1e-1
    assert len({trial["settings"]["learning_rate"] for trial in trials}) == 4


def test_what_lags_behind_is_pruned(recipe: Path) -> None:
    rates = ["--ranges", "{}", "--choices.learning_rate", "[0.1,1e-12]"]
    assert search(recipe, *rates, trials=8) == 0
    states = {(trial["settings"]["learning_rate"], trial["state"]) for trial in found()[1:]}
    assert (1e-12, "pruned") in states
    assert (0.1, "complete") in states
    assert (0.1, "pruned") not in states


def test_an_interrupted_trial_goes_on_in_its_folder(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupting(name: str) -> Iterator:
        def show(training) -> None:
            if training.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

        yield show

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "training_bar", interrupting)
        assert search(recipe, trials=1) == 130
    assert load_checkpoint(Path("sweep/trial0/last.ckpt"))["step"] == 3
    assert search(recipe, trials=1) == 0
    (trial,) = found()
    assert trial["folder"] == "trial0"
    rate = trial["settings"]["learning_rate"]
    settings = TrainSettings(
        steps=6, validate_every=2, validation_sequences=2, learning_rate=rate, accelerator="cpu"
    )
    whole = train(load_recipe(recipe), MovingDigits(size=16), "whole", settings)
    ends = [load_checkpoint(run.last) for run in (whole, Run(Path("sweep/trial0")))]
    assert ends[0]["best"] == ends[1]["best"] == trial["nats_per_dim"]
    for name, value in ends[0]["model"].items():
        assert torch.equal(value, ends[1]["model"][name])


def test_settings_that_diverge_are_pruned(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    after = Session._after_step

    def spoil(session: Session, *arguments) -> None:
        next(session.loss.parameters()).data.fill_(float("nan"))
        after(session, *arguments)

    monkeypatch.setattr(Session, "_after_step", spoil)
    assert search(recipe) == 2
    assert "none of 2 trials came to its end" in capsys.readouterr().err
    assert {trial["state"] for trial in found()} == {"pruned"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--ranges.learning_rat", "[1,2]"], "learning_rat is no setting"),
        (["--choices.devices", "[1,2]"], "devices is no setting that can be searched"),
        (["--ranges.learning_rate", "[2,1]"], "must rise"),
        (["--clip_norm", "3"], "holds another search"),
    ],
)
def test_refusals(recipe: Path, options: list[str], reason: str, capsys: Capture) -> None:
    assert search(recipe, trials=1) == 0
    capsys.readouterr()
    assert search(recipe, *options) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo here")
def test_a_job_of_two_tasks_trains_and_goes_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", str(recipe), *DATA, *QUICK, "--out", "run"]
    assert submit.going_on(command) == command
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    job = ["--cluster", "local", "--devices", "2", "--folder", "jobs", "--timeout_min", "3"]
    assert submit.main([*job, "--", *command]) == 0
    run = Run.open("run")
    assert run.settings.devices == 2
    assert load_checkpoint(run.last)["step"] == 6
    assert submit.going_on(command) == [*command, "--resume"]
    assert submit.going_on(["evaluate", "run"]) == ["evaluate", "run"]


def test_a_job_without_a_command_is_refused(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        submit.main(["--devices", "2"])
    assert "give an afslvm command after --" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        submit.main(["--", "train", "recipe.py", "--batchsize", "3"])
    assert "batchsize" in capsys.readouterr().err
