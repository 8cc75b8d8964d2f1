"""Digits moved on the device are those of the data set; the program keeps what it trained."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu_train
from benchmarks.gpu_train import MovedDigits, bounced, cosine, drawn
from pyro_afslvm.data.datasets.bouncing import bounce, moving_pictures


def test_paths_are_those_of_the_data_set() -> None:
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    expected = bounce(rng, num_steps=30, num_objects=5, limit=36)
    start = torch.from_numpy(again.random((5, 2)))
    angle = torch.from_numpy(again.random(5)) * 2 * math.pi
    velocity = 0.1 * torch.stack([angle.sin(), angle.cos()], -1)
    assert torch.equal(bounced(start, velocity, 30, 36), torch.from_numpy(expected))


def test_frames_are_those_of_the_data_set() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    expected, chosen, corners = [], [], []
    for seed in range(4):
        rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
        expected.append(moving_pictures(rng, pictures, size=64, num_objects=2, num_frames=9))
        chosen.append(pictures[again.integers(7, size=2)])
        corners.append(bounce(again, num_steps=9, num_objects=2, limit=36))
    where = torch.from_numpy(np.stack(corners, 1))
    found = drawn(torch.from_numpy(np.stack(chosen)), where, 64)
    assert torch.equal(found, torch.from_numpy(np.stack(expected)))


def test_sequences_have_the_type_and_the_shape_of_stored_ones() -> None:
    frames = MovedDigits(torch.full((3, 28, 28), 200, dtype=torch.uint8), 13)(5)
    assert frames.shape == (5, 13, 1, 64, 64)
    assert frames.unique().tolist() == [0, 200]


@pytest.mark.parametrize(("done", "rate"), [(0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (1.3, 0.0)])
def test_the_rate_rises_and_falls(done: float, rate: float) -> None:
    assert cosine(done) == pytest.approx(rate)
    assert cosine(0.03) > 0.99


def test_program(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in digits.shape)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header + digits.tobytes())
    sizes = {"batch": 2, "burst": 1, "every": 1, "held_out": 2, "test": 2, "seconds": 1e-3}
    out = tmp_path / "out"
    arguments = [f"--{name}={value}" for name, value in sizes.items()]
    recipes = "--recipes=[models/small/slvm_af1.py,models/small/af1.py]"
    code = gpu_train.main(
        [f"--digits={tmp_path}", f"--out={out}", "--device=cpu", recipes, *arguments]
    )
    assert code == 0
    found = json.loads((out / "gpu_train.json").read_text())
    assert [row["step"] for row in found["curve"]] == [0, 1]
    assert found["settings"]["batch"] == 2
    assert {*found["test"]} == {"af1", "slvm_af1"}
    a, b = (found["test"][name]["mean"] for name in ("slvm_af1", "af1"))
    assert found["paired"]["slvm_af1 - af1"]["mean"] == pytest.approx(a - b)
    weights = torch.load(out / "af1.0.pt")
    assert all(key.startswith("model/") for key in weights)
    parts = {key.split("/")[0] for key in torch.load(out / "slvm_af1.0.pt")}
    assert parts == {"model", "guide"}
