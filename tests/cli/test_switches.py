"""Switches alike, commands misspelt, files where folders are meant, runs beside what is none."""

import errno
from pathlib import Path

import numpy as np
import pytest

from pyro_afslvm.cli.main import main
from pyro_afslvm.cli.parsers import build_parser
from pyro_afslvm.utils.files import write_atomically

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def error(capsys: Capture, *arguments: str) -> str:
    capsys.readouterr()
    try:
        code = main([*arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("given", [[], ["true"], ["false"]])
@pytest.mark.parametrize("name", ["resume", "recompute"])
def test_switches_are_alike(name: str, given: list[str]) -> None:
    for typed in ([f"--{name}", *given], [f"--{name}={given[0]}" if given else f"--{name}"]):
        options = build_parser().parse_args(["train", "af1", *typed, "--steps", "3"])
        assert options.train[name] is (given != ["false"])
        assert options.train.steps == 3


def test_a_misspelt_command(capsys: Capture) -> None:
    assert error(capsys, "trian", "af1").endswith("did you mean train?")


def test_a_file_where_a_run_is_meant(capsys: Capture) -> None:
    Path("run").write_text("")
    np.save("v.npy", np.random.default_rng(0).normal(size=(20, 60, 2)))
    said = error(capsys, "train", "vector_af1", "--data", "v.npy", "--out", "run")
    assert said == "afslvm: error: run is a file, not a folder: choose another --out"
    said = error(capsys, "evaluate", "run")
    assert said == "afslvm: error: run is a file, not the folder of a run"


def test_a_full_disk_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: 'run/last\.ckpt'"):
        write_atomically(Path("run/last.ckpt"), b"")


def test_prepare_takes_a_path(capsys: Capture) -> None:
    np.save("v.npy", np.zeros((9, 20, 2)))
    assert error(capsys, "data", "prepare", "v.npy").endswith("Arrays needs no preparing")
    assert error(capsys, "data", "prepare").endswith("give either a path or --data")


def test_what_is_no_run_or_damaged_blocks_no_report(capsys: Capture) -> None:
    np.save("v.npy", np.random.default_rng(0).normal(size=(20, 60, 2)).cumsum(1))
    train = ("train", "vector_af1", "--data", "v.npy", "--steps", "2", "--batch_size", "2")
    for name in ("whole", "torn", "odd"):
        assert main([*train, "--out", f"runs/{name}"]) == 0
    assert main(["evaluate", "runs/whole"]) == 0
    Path("runs/torn/last.ckpt").write_bytes(b"no")
    Path("runs/torn/best.ckpt").write_bytes(b"no")
    Path("runs/odd/results.json").write_text("{}")
    Path("runs/file").write_text("")
    Path("runs/empty").mkdir()
    capsys.readouterr()
    runs = sorted(map(str, Path("runs").iterdir()))
    assert main(["report", *runs]) == 0
    printed = capsys.readouterr()
    left_out = [line for line in printed.err.splitlines() if "left out" in line]
    assert [line.split(":")[0].split()[-1] for line in left_out] == [
        f"runs/{name}" for name in ("empty", "file", "odd", "torn")
    ]
    assert "copy of the last frame" in printed.out


def test_missing_best_weights_are_said(capsys: Capture) -> None:
    np.save("v.npy", np.random.default_rng(0).normal(size=(20, 60, 2)).cumsum(1))
    train = ("train", "vector_af1", "--data", "v.npy", "--steps", "2", "--batch_size", "2")
    assert main([*train, "--out", "run"]) == 0
    Path("run/best.ckpt").unlink()
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 0
    assert "run/best.ckpt is missing: the newest weights are used" in capsys.readouterr().err
