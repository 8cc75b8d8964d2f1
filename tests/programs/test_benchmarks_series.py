"""The program that compares recipes for series, on a protocol of a few frames."""

import json
from pathlib import Path

import pytest

from benchmarks import series

PROTOCOL = """
import numpy as np

def load(name):
    x = np.random.default_rng(0).normal(size=(90, 2)).cumsum(0)
    windows = np.stack([x[s : s + 8] for s in (70, 75, 80)])
    return dict(name=name, C=6, H=2, Hf=2, train=[x[:50]], val=[x[50:70]], W=windows,
                mask=np.ones((3, 2), bool))

def score(data, logp, samples):
    assert logp.shape == (3, 2) and samples.shape[1:] == (3, 2, 2)
    return dict(ll=float(logp.mean() / 2), ll_se=0.0, crps=1.0, cover90=1.0, largest=1.0)
"""


def test_results_are_kept_with_their_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "protocol.py").write_text(PROTOCOL)
    recipes = series.series_recipes(["models/series/series_linear.py"])
    monkeypatch.setattr(series, "series_recipes", lambda paths: recipes)
    out = tmp_path / "series.json"
    given = [str(tmp_path), "--names", "eeg", "--seconds", "0.2", "--seeds", "0", "--samples", "4"]
    series.main([*given, "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["default"]["eeg"] == found["series_linear"]["eeg"]
    assert -5 < found["default"]["eeg"]["ll"] < 0
    assert found["protocol"]["seeds"] == {"eeg": [0]}
    assert "default" in capsys.readouterr().out


def test_a_folder_without_a_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds no protocol\.py"):
        series.main([str(tmp_path)])
