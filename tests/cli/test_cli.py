"""The command line, as a user types it: what it writes, and how it says no."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from pyro_afslvm.cli.main import build_parser, main
from tests.support.processes import run_python
from tests.training.test_training import TINY

DATA = ("--data", "MovingDigits", "--data.size", "16", "--data.test_size", "4")
FAST = ("--validate_every", "4", "--validation_sequences", "3", "--scored_frames", "3")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


def train(*extra: str) -> int:
    return main(["train", "tiny.py", *DATA, *FAST, "--steps", "4", *extra])


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """Run, expect exit code 2 and one line on stderr; return it."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    line = error.strip().splitlines()[-1]
    assert "error" in error
    return line


def test_train_evaluate_sample_report(here, capsys):
    assert train() == 0
    assert "afslvm evaluate runs/tiny" in capsys.readouterr().out
    assert main(["evaluate", "runs/tiny", "--num_samples", "2"]) == 0
    assert "tiny" in capsys.readouterr().out
    results = json.loads(Path("runs/tiny/results.json").read_text())
    assert results["nats_per_dim"] < -1.419
    assert results["bits_per_dim"] > 0
    assert results["nats_per_dim_unit"] == pytest.approx(results["nats_per_dim"] + np.log(256))
    assert results["protocol"]["scored_frames"] == 3
    assert results["protocol"]["noise"] == "gaussian"
    assert results["protocol_bits"]["noise"] == "uniform"
    assert results["protocol"]["num_samples"] == 2
    assert main(["sample", "runs/tiny", "--horizon", "5", "--num_sequences", "2"]) == 0
    assert Path("runs/tiny/rollout.gif").read_bytes().startswith(b"GIF89a")
    assert Path("runs/tiny/rollout.png").read_bytes().startswith(b"\x89PNG")
    assert main(["report", "runs/tiny", "--out", "page.html"]) == 0
    assert "tiny" in Path("page.html").read_text()


def test_report_evaluates_what_was_not(here):
    train()
    assert main(["report", "runs/tiny"]) == 0
    assert Path("report.html").exists()
    assert Path("runs/tiny/results.json").exists()


def test_resume(here, capsys):
    train()
    assert main(["train", "tiny.py", *DATA, *FAST, "--steps", "8", "--resume"]) == 0
    assert "8," in Path("runs/tiny/metrics.csv").read_text()


def test_config_file_and_print_config(here, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "tiny.py", *DATA, *FAST, "--steps", "4", "--print_config"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "validate_every: 4" in printed
    Path("settings.yaml").write_text(printed)
    assert main(["train", "--config", "settings.yaml", "--out", "runs/again"]) == 0
    assert json.loads(Path("runs/again/settings.json").read_text())["training"]["steps"] == 4


def test_folder_in_the_way(here, capsys):
    train()
    before = Path("runs/tiny/last.ckpt").read_bytes()
    assert "not empty" in refused(capsys, "train", "tiny.py", *DATA, *FAST, "--steps", "9")
    assert Path("runs/tiny/last.ckpt").read_bytes() == before
    assert "another seed" in refused(
        capsys, "train", "tiny.py", *DATA, *FAST, "--steps", "9", "--resume", "--seed", "5"
    )
    Path("tiny.py").write_text(TINY + "\n# changed\n")
    assert "another recipe" in refused(
        capsys, "train", "tiny.py", *DATA, *FAST, "--steps", "9", "--resume"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read recipe"),
        ("x = 1\n", "no build()"),
        ("def build(:\n", "SyntaxError"),
        ("raise RuntimeError('no luck')\n", "no luck"),
        ("def build(frame_shape):\n    raise KeyError('lost')\n", "lost"),
        ("def build(frame_shape):\n    return 1\n", "build()"),
        ("def build(frame_shape):\n    return 1, 2\n", "must return Pair"),
    ],
)
def test_bad_recipes(here, capsys, text, said):
    if text is not None:
        Path("bad.py").write_text(text)
    assert said in refused(capsys, "train", "bad.py", *DATA, *FAST, "--steps", "4")
    assert not Path("runs").exists()


def test_bad_settings_and_data(here, capsys):
    assert "steps" in refused(capsys, "train", "tiny.py", *DATA, "--steps", "-4")
    assert "steps" in refused(capsys, "train", "tiny.py", *DATA, "--steps", "many")
    refused(capsys, "train", "tiny.py", "--data", "NoSuchData")
    missing = ("--data", "MovingMNIST", "--data.path", "nowhere")
    assert "nowhere" in refused(capsys, "train", "tiny.py", *missing, "--steps", "4")
    (here / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03\x00\x00")
    broken = ("--data", "MovingMNIST", "--data.path", ".")
    assert "t10k-images" in refused(capsys, "train", "tiny.py", *broken, "--steps", "4")
    assert not Path("runs").exists()


def test_bad_runs(here, capsys):
    assert "holds no run" in refused(capsys, "evaluate", "nowhere")
    train()
    content = Path("runs/tiny/best.ckpt").read_bytes()
    Path("runs/tiny/best.ckpt").write_bytes(content[:100])
    assert "best.ckpt" in refused(capsys, "evaluate", "runs/tiny")
    assert not Path("runs/tiny/results.json").exists()
    Path("runs/tiny/best.ckpt").write_bytes(content)
    assert "split" in refused(capsys, "evaluate", "runs/tiny", "--split", "exam")
    Path("runs/tiny/settings.json").write_text("{")
    assert "settings.json" in refused(capsys, "evaluate", "runs/tiny")


@pytest.mark.parametrize("command", ["evaluate", "sample", "report"])
def test_foreign_recipes_are_not_executed(here, capsys, command, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "their home"))
    Path("tiny.py").write_text(TINY + "\nopen('executed', 'w').close()\n")
    train()
    Path("executed").unlink()
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "my home"))
    assert "--trust" in refused(capsys, command, "runs/tiny")
    assert not Path("executed").exists()
    Path("mine.py").write_text(TINY)
    assert "another recipe" in refused(capsys, command, "runs/tiny", "--recipe", "mine.py")
    assert not Path("executed").exists()
    assert main([command, "runs/tiny", "--trust"]) == 0
    assert Path("executed").exists()


def test_weights_of_another_recipe_are_refused(here, capsys):
    train()
    Path("runs/tiny/recipe.py").write_text(TINY + "\n# changed\n")
    assert "another recipe" in refused(capsys, "evaluate", "runs/tiny", "--trust")


def test_own_recipe_is_known_by_its_text(here, capsys, monkeypatch):
    train()
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "another home"))
    assert "--trust" in refused(capsys, "evaluate", "runs/tiny")
    monkeypatch.chdir("runs/tiny")  # the run's own copy is not the user's
    assert "--trust" in refused(capsys, "evaluate", ".")
    assert main(["evaluate", ".", "--recipe", "../../tiny.py"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--num_samples", "0"),
        ("evaluate", "--limit", "0"),
        ("evaluate", "--seed", "-1"),
        ("sample", "--horizon", "0"),
        ("sample", "--num_samples", "0"),
        ("sample", "--num_sequences", "0"),
    ],
    ids=" ".join,
)
def test_numbers_out_of_range(here, capsys, arguments):
    train()
    command, option, value = arguments
    assert option.strip("-") in refused(capsys, command, "runs/tiny", option, value)


def test_one_sequence_has_no_standard_error(here):
    train()
    assert main(["evaluate", "runs/tiny", "--limit", "1"]) == 0
    results = json.loads(Path("runs/tiny/results.json").read_text())
    assert results["nats_per_dim_error"] is None
    assert main(["report", "runs/tiny"]) == 0


def test_data_keeps_its_own_defaults(here, capsys):
    with pytest.raises(SystemExit):
        main(["train", "tiny.py", "--data", "MovingMNIST", "--print_config"])
    printed = capsys.readouterr().out
    assert "train_size: null" in printed


def test_recipes_with_dataclasses_and_exits(here, capsys):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    Path("tiny.py").write_text(text + "@dataclass\nclass Width:\n    of: int = 1\n" + TINY)
    assert train() == 0
    Path("bad.py").write_text("import sys\nsys.exit(3)\n")
    assert "SystemExit" in refused(capsys, "train", "bad.py", *DATA, *FAST, "--steps", "4")


def test_help_is_quick_and_light():
    code = (
        "import sys; from pyro_afslvm.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'pyro', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    start = time.perf_counter()
    assert "train" in run_python("-c", code).stdout
    assert time.perf_counter() - start < 5  # it takes 0.3 s; torch alone would take more


def test_the_dequantization_may_be_asked_for_by_its_old_name() -> None:
    for asked in (["--noise", "uniform"], ["--noise=uniform"], ["--dequantization", "uniform"]):
        options = build_parser().parse_args(["train", "recipe.py", *asked])
        assert options.train.dequantization == "uniform"


@pytest.mark.parametrize("value", ["null", "uniform"])
def test_a_config_of_the_release_before(here, capsys, value):
    """As ``--print_config`` wrote it."""
    config = (Path(__file__).parents[1] / "support" / "old_config.yaml").read_text()
    assert "\nnoise: null\n" in config
    Path("old.yaml").write_text(config.replace("noise: null", f"noise: {value}"))
    options = build_parser().parse_args(["train", "--config", "old.yaml"])
    assert options.train.dequantization == (None if value == "null" else value)
    assert options.train.recipe == "models/small/af1.py"
    Path("bad.yaml").write_text("noise: [\n")
    assert "parsing config" in refused(capsys, "train", "tiny.py", "--config", "bad.yaml")
    Path("unknown.yaml").write_text("noises: null\n")
    assert "noises" in refused(capsys, "train", "tiny.py", "--config", "unknown.yaml")
