"""The benchmark of the data path at smoke size: its measurements are there and its checks bite."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import data as program
from benchmarks import streaming
from benchmarks.data import Sizes, decode, preparing, table, write_film
from pyro_afslvm.data.videos import prepared
from pyro_afslvm.data.videos.store import StoredFrames

RECIPE = "models/small/slvm_af1.py"
SMALL = {"repeats": 1, "batch_size": 2, "batches": 2, "film": 90, "files": 2, "shuffled": 3}


def test_program(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    options = [f"--sizes.{name}={value}" for name, value in SMALL.items()]
    options += ["--sizes.gigabytes=0.02", f"--sizes.recipe={RECIPE}", "--folder", str(tmp_path)]
    out = tmp_path / "data.json"
    monkeypatch.setattr("sys.argv", ["data", *options, "--json", str(out)])
    assert program.main() == 0
    page = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["sizes"]["film"] == 90
    assert found["loading"]["loader_random"] > 3 * found["loading"]["training"] > 0
    assert set(found["preparing"]) == {"generated.avi"}
    assert found["streaming"]["frames"] == 2 * (203 // 13) * 13
    assert 50e6 < found["streaming"]["memory_before"] <= found["streaming"]["memory_peak"] < 1e9
    assert page.count(": yes") + page.count(": NO") == 4
    assert str(tmp_path) not in out.read_text()
    assert list(tmp_path.iterdir()) == [out]  # what it wrote is gone


def test_table_says_no() -> None:
    load = {"training": 100.0, "loader_centre": 299.0, "loader_random": 301.0}
    prepare = {"a.avi": {"decode": 100.0, "prepare": 79.0, "decode_cpu": 10.0, "prepare_cpu": 25.0}}
    stream = dict.fromkeys(("bytes", "shuffled", "sequential", "memory_before"), 1.0)
    found = {"loading": load, "preparing": prepare, "streaming": {**stream, "memory_peak": 2e9}}
    assert "(2.5 x its work)" in table(found)[3].value
    assert [row.met for row in table(found)] == [None, False, True, False, None, None, False]


def test_preparing_decodes_each_time(tmp_path: Path, monkeypatch: Any) -> None:
    film, decoded = write_film(tmp_path / "a.avi", 70), []
    assert decode(film) == 70

    def counted(*args: Any, **options: Any) -> Any:
        decoded.append(args)
        return read(*args, **options)

    read = prepared.read_frames
    monkeypatch.setattr(prepared, "read_frames", counted)
    preparing(film, tmp_path, Sizes(repeats=3))
    assert len(decoded) == 4  # once before it counts


def test_store_is_read_in_order_and_checked(tmp_path: Path) -> None:
    paths = streaming.write_store(tmp_path, gigabytes=0.03, files=2)
    frames = StoredFrames(paths[0]).read(250, 260)
    np.testing.assert_array_equal(frames, streaming.patterns()[np.arange(250, 260) % 256])
    found = streaming.read_store(paths, batch_size=4, shuffled=2)
    assert found["bytes"] == found["frames"] * 3 * 128**2
    good = torch.arange(250, 263).remainder(256).byte().reshape(1, 13, 1, 1, 1)
    streaming.check_batch(good)
    with pytest.raises(ValueError, match="another order"):
        streaming.check_batch(good.flip(1))


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="repeats"):
        Sizes(repeats=0)
