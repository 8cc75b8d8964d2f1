"""The benchmark of accelerators at smoke size: its measurements are there, and its checks bite."""

import json
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import gpu, gpu_checks
from benchmarks.gpu_checks import ON_PROCESSOR, errors, failures, outcome, problem
from benchmarks.gpu_steps import WAYS, measured
from benchmarks.gpu_table import table
from benchmarks.graphs import CapturedStep, TrainingStep

CPU = torch.device("cpu")
SMALL = {"batch_sizes": "[2]", "size": 16, "frames": 2, "repeats": 1, "check_batch": 2}
OPTIONS = ["--device=cpu", *(f"--{name}={value}" for name, value in SMALL.items()), "--product=32"]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def run(folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    code = gpu.main(["--out", str(folder), *OPTIONS, *more])
    return code, json.loads((folder / "gpu.json").read_text())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One burst is one run, and little is settled."""
    monkeypatch.setattr("benchmarks.gpu_steps.BURST", 0.0)
    monkeypatch.setattr(gpu_checks, "SETTLING", 2)


def test_program(tmp_path: Path, capsys: Any, quick: None) -> None:
    code, found = run(tmp_path, "--recipes=[models/af1.py,models/slvm_af1.py]")
    assert code == 0
    ways = found["steps"]["slvm_af1"]["2"]["ways"]
    assert set(ways) == {way.name for way in WAYS}
    assert {"CUDA" in one["reason"] for way, one in ways.items() if "reason" in one} == {True}
    assert [way for way in ways if "seconds" in ways[way]] == [
        "sequential, float32",
        "library, float32",
        "library, bf16",
    ]
    assert found["rollouts"]["af1"]["2"]["library, bf16"]["frames_per_second"] > 0
    assert found["checks"]["af1"]["float32"]["loss"] < 1e-4
    assert "graph" not in found["checks"]["af1"]
    convolutions = 2 * 9 * 64 * 16**2 * (4 * 64 * 3 + 2 * (3 + 3) * 64 + 4 + 2 * 2)
    flops = found["steps"]["af1"]["2"]["flops"] / 2
    assert flops == pytest.approx(3 * convolutions, rel=0.02)  # the first has no gradient of x
    page = capsys.readouterr().out
    assert "1-AF, 2: library, bf16" in page
    assert "of conv" in page


def test_parts_can_be_chosen(tmp_path: Path, capsys: Any, quick: None) -> None:
    code, found = run(tmp_path, "--only=[ceilings]")
    assert code == 0
    assert not {"checks", "steps", "rollouts"} & set(found)
    assert found["ceilings"]["bf16"]["product"] > 0
    assert "not checked" in capsys.readouterr().out


def test_a_device_that_is_wrong_is_not_timed(
    tmp_path: Path, monkeypatch: Any, capsys: Any, quick: None
) -> None:
    right = gpu_checks.outcome

    def wrong(asked: Any, precision: Any) -> Any:
        found = right(asked, precision)
        off = 2e-4 * (asked.x.dtype == torch.float32)
        return found._replace(loss=found.loss + off)

    monkeypatch.setattr(gpu_checks, "outcome", wrong)
    code, found = run(tmp_path, "--recipes=[models/af1.py]")
    assert code == 2
    assert "steps" not in found
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gpu: error: cpu is not correct, nothing is timed: af1, float32: loss")


def test_limits() -> None:
    good = {"loss": 5e-5, "gradient": 1e-4, "frames": 1e-5}
    found = {"float32": good, "bf16": {"loss": 1e-3, "gradient": 0.3, "frames": 0.01}}
    found[ON_PROCESSOR] = {"loss": 1e-3, "gradient": 0.2, "frames": 0.01}
    assert failures("af1", found) == []
    found[ON_PROCESSOR]["gradient"] = 0.1
    assert failures("af1", found) == ["af1, bf16: gradient is off by 0.3, more than 0.2"]
    for what in good:
        assert len(failures("af1", {**found, "float32": {**good, what: float("nan")}})) == 2
    graph = {"loss": 0.01, "fresh": False}
    assert len(failures("af1", {**found, "graph": graph})) == 3
    assert len(failures("af1", {**found, "graph": {"reason": "it waits"}})) == 1


@pytest.mark.parametrize("part", ["model.flow", "model.prior", "model.decoder", "guide.posterior"])
def test_a_part_that_differs_is_seen(part: str) -> None:
    asked = problem("models/slvm_af1.py", batch=2, size=16, scored=2)
    truth = outcome(asked.on(CPU, torch.float64), "float32")
    right, wrong = asked.on(CPU, torch.float32), asked.on(CPU, torch.float32)
    spoiled: nn.Module = attrgetter(part)(wrong.pair)
    list(spoiled.parameters())[-1].data += 0.01
    assert max(errors(outcome(right, "float32"), truth).values()) < 1e-3
    assert min(errors(outcome(wrong, "float32"), truth).values()) > 1e-5


def test_what_fails_has_a_reason_and_the_rest_go_on() -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nand more")

    turns = iter(range(2))
    actions = {
        "good": lambda: lambda: None,
        "bad": lambda: fail,
        "unmade": fail,
        "later": lambda: lambda: None if next(turns, None) is not None else fail(),
    }
    found = measured(actions, 3, CPU)
    assert found["good"]["seconds"] > 0
    reason = {"reason": "CUDA out of memory. Tried"}
    assert [found[name] for name in ("bad", "unmade", "later")] == [reason] * 3


def test_table_compares_with_the_targets() -> None:
    ways = {
        "sequential, float32": {"seconds": 0.05, "bytes": 4e9},
        "library, bf16": {"seconds": 0.01, "bytes": 1e9},
        "library, bf16, graph": {"seconds": 0.0049, "bytes": 1e9},
        "library, bf16, compiled": {"reason": "no compiler"},
    }
    rates = {"product": 1e15, "convolution": 5e14}
    found = {
        "device": {"name": "a device"},
        "versions": {"torch": "2"},
        "ceilings": {"float32": rates, "tf32": rates, "bf16": rates},
        "steps": {"af1": {"16": {"flops": 1e12, "ways": ways}}},
    }
    page = table(found).splitlines()
    assert re.search(r"10\.2 x sequential +>= 10: yes$", page[-2])
    assert re.search(r"8\.2 minutes for 100,000 iterations +<= 10: yes$", page[-1])
    assert next(line for line in page if "compiled" in line).endswith("no compiler")
    graph = next(line for line in page if "graph" in line)
    assert graph.split()[-6:] == ["4.90", "10.2x", "204", "41%", "20%", "1.00"]
    ways["library, bf16, graph"]["seconds"] = 0.009
    assert [line.endswith("NO") for line in table(found).splitlines()[-2:]] == [True, True]


def test_without_a_device(tmp_path: Path, capsys: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert gpu.main(["--out", str(tmp_path), "--batch_sizes=[1]"]) == 2
    assert "batch_sizes" in capsys.readouterr().err


@CUDA
def test_a_captured_step_trains() -> None:
    network = nn.Linear(3, 1).cuda()
    x = torch.ones(5, 3, device="cuda")
    step = TrainingStep(network, lambda: network(x).square().mean(), "float32")
    captured = CapturedStep(step)
    first = float(captured())
    for _ in range(100):
        captured()
    assert float(captured()) < first
