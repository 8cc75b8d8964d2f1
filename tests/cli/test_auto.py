"""``afslvm train auto``: the best of some recipes for series, beside classical models."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_afslvm.cli.auto import series_recipes
from pyro_afslvm.cli.main import main
from pyro_afslvm.evaluation.baselines import baselines
from pyro_afslvm.runs.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]


def series(steps: int = 240) -> np.ndarray:
    """A stable autoregression of two entries; (T, 2)."""
    rng = np.random.default_rng(0)
    x = np.zeros((steps, 2))
    for t in range(1, steps):
        x[t] = [[0.8, 0.1], [-0.2, 0.6]] @ x[t - 1] + rng.normal(size=2)
    return x


def test_the_best_becomes_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", series())
    recipes = [str(ROOT / "models/series" / name) for name in ("series_linear.py", "series_af.py")]
    out = tmp_path / "run"
    data = ["--data", "Arrays", "--data.path", str(tmp_path / "x.npy")]
    given = ["train", "auto", *data, "--recipes", *recipes, "--seconds", "1", "--out", str(out)]
    assert main(given) == 0
    said = capsys.readouterr().out
    for name in ("AF", "linear, t", "random walk, full", "multivariate t"):
        assert name in said
    assert "best: " in said or "the baseline wins: " in said
    best, last = load_checkpoint(out / "best.ckpt"), load_checkpoint(out / "last.ckpt")
    assert best["step"] <= last["step"]
    assert main(["evaluate", str(out)]) == 0
    assert "nats/dim" in capsys.readouterr().out


def test_recipes_are_found_by_name_from_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", series())
    monkeypatch.chdir(tmp_path)
    chosen = ["--recipes", "series_linear", "--seconds", "1"]
    assert main(["train", "auto", "--data", "x.npy", *chosen]) == 0
    assert len(series_recipes([])) == len([*(ROOT / "models/series").glob("*.py")])
    assert main(["train", "auto", "--data", "x.npy", "--recipes", "series_liner"]) == 2
    assert "did you mean series_linear?" in capsys.readouterr().err


def test_baselines_know_an_autoregression_from_a_walk() -> None:
    x = torch.as_tensor(series(2000), dtype=torch.float32)
    steady = baselines([(x[:1500], None)], [(x[1500:], None)], skip=10)
    assert steady.best.startswith("VAR")
    # errors N(0, 1) in each entry
    assert steady.by_name[steady.best] == pytest.approx(-1.419, abs=0.05)
    w = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).cumsum(0)
    walked = baselines([(w[:1500], None)], [(w[1500:], None)], skip=10)
    walk = max(v for name, v in walked.by_name.items() if name.startswith("random walk"))
    assert walk == pytest.approx(max(walked.by_name.values()), abs=0.01)
