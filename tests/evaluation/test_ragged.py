"""Sequences of different lengths, frame by frame that exists."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_afslvm import (
    SLVM,
    FilteringGuide,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    TemporalAffine,
)
from pyro_afslvm.cli.main import main
from pyro_afslvm.data import Arrays, MovingDigits
from pyro_afslvm.evaluation.metrics import evaluate
from pyro_afslvm.metrics import temporal_correlation
from pyro_afslvm.metrics.uncertainty import difference, estimate
from pyro_afslvm.networks import MLPDecoder, MLPEncoder
from pyro_afslvm.objectives import bound_terms
from tests.support.pairs import drawn_at_means

LENGTHS = np.array([20, 4, 13, 7, 3, 12, 2, 18, 9, 5, 16, 11] * 3)


def ragged() -> Arrays:
    values = np.random.default_rng(0).normal(size=(len(LENGTHS), 20, 2)).cumsum(1)
    for row, length in zip(values, LENGTHS, strict=True):
        row[length:] = np.nan  # what pads is never seen
    return Arrays.from_array(values.astype(np.float32), lengths=LENGTHS, standardize=False)


def flow_model() -> Pair:
    flow = TemporalAffine(MLPConditioner(2, window=2, hidden=(4,)))
    return Pair(FlowModel(flow, (2,), context_length=2), None)


def slvm() -> Pair:
    flow = TemporalAffine(MLPConditioner(2, window=2, hidden=(4,)))
    prior = TemporalAffine(LSTMConditioner(3, hidden=4))
    model = SLVM((2,), 3, prior=prior, decoder=MLPDecoder(3, 2), flow=flow)
    return Pair(model, FilteringGuide(model, MLPEncoder(2, features=4), hidden=4))


@pytest.mark.parametrize("build", [flow_model, slvm])
def test_whole_sequences_are_scored_as_one_by_one(build, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_at_means(monkeypatch)
    pair, source = build().eval(), ragged()
    found = evaluate(pair, source, windows="whole")
    data = source.dataset("test", num_frames=3)
    alone = [x[None] for x, _ in data.whole() if len(x) > 2]
    with torch.no_grad():
        bounds = [bound_terms(*pair, x).bound.double() for x in alone]
    counts = torch.tensor([x.shape[1] - 2 for x in alone])
    sums = torch.stack([bound.sum() for bound in bounds]) / 2  # features
    assert found["nats_per_dim"] == pytest.approx(float(sums.sum() / counts.sum()), abs=1e-5)
    assert found["per_sequence"]["nats_per_dim"] == pytest.approx(
        (sums / counts).tolist(), abs=1e-5
    )
    assert found["per_sequence"]["frames"] == counts.tolist()
    assert len({*counts.tolist()}) > 2
    assert found["num_left_out"] == int((data.lengths < 3).sum())
    assert found["protocol"]["windows"] == "whole"
    assert found["protocol"]["scored_frames"] == int(counts.max())
    assert found["protocol"]["bound"] == ("exact" if pair.guide is None else "ELBO")
    padded = torch.zeros(len(alone), int(counts.max()), 2)
    for row, x in zip(padded, alone, strict=True):
        row[: x.shape[1] - 2] = x[0, 2:]
    expected = temporal_correlation(padded, lengths=counts)
    assert found["correlation_x"] == pytest.approx(expected, abs=1e-6)


def test_pixels_and_limits() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 9, 1, 4, 4), dtype=np.uint8)
    source = Arrays.from_array(pixels, lengths=np.arange(40) % 7 + 3)
    pair = Pair(FlowModel(TemporalAffine(_pixels()), (1, 4, 4), context_length=3), None)
    found = evaluate(pair, source, windows="whole", limit=4)
    assert found["num_sequences"] == len(found["per_sequence"]["frames"]) == 4
    assert found["bits_per_dim"] is not None
    assert found["bits_per_dim_floor"] > 1.0


def _pixels() -> object:
    from pyro_afslvm.transforms import LastFrame

    return LastFrame(3, learned_scale=True)


def test_sequences_that_are_made_have_no_whole() -> None:
    pair = Pair(FlowModel(TemporalAffine(_pixels()), (1, 16, 16), context_length=3), None)
    with pytest.raises(ValueError, match="makes sequences of any length"):
        evaluate(pair, MovingDigits(size=16, test_size=2), windows="whole")


def test_weights_of_means() -> None:
    values, weights = np.array([1.0, 4.0, 2.0, 7.0, 3.0]), np.array([2, 1, 3, 1, 2])
    repeated, units = np.repeat(values, weights), np.repeat(np.arange(5), weights)
    weighted, plain = estimate(values, weights=weights), estimate(repeated, [*units])
    assert weighted == pytest.approx(plain)
    apart = difference(values, 2 * values, weights=(weights, weights))
    assert apart == pytest.approx(difference(repeated, 2 * repeated, units=([*units], [*units])))
    with pytest.raises(ValueError, match="a weight for each of 5"):
        estimate(values, weights=weights[:4])


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    values = np.random.default_rng(0).normal(size=(len(LENGTHS), 20, 2)).cumsum(1)
    np.savez("v.npz", values=values.astype(np.float32), lengths=LENGTHS)
    Path("af.py").write_text(
        "from pyro_afslvm import FlowModel, MLPConditioner, Pair, TemporalAffine\n"
        "def build(frame_shape):\n"
        "    flow = TemporalAffine(MLPConditioner(2, window=2, hidden=(4,)))\n"
        "    return Pair(FlowModel(flow, frame_shape, context_length=2), None)\n"
    )
    there = [
        "--data",
        "Arrays",
        "--data.path",
        "v.npz",
        "--data.standardize",
        "false",
        "--scored_frames",
        "5",
    ]
    quick = ["--steps", "2", "--batch_size", "2", "--out", "run"]
    assert main(["train", "af.py", *there, *quick]) == 0
    test = Arrays(path="v.npz", standardize=False).dataset("test", num_frames=1)
    assert main(["evaluate", "run"]) == 0
    short = int((test.lengths < 8).sum())
    assert f"{short} sequences of less than 8 frames are not scored; --windows whole scores" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", "run", "--windows", "whole"]) == 0
    printed = capsys.readouterr()
    assert "whole sequence" in " ".join(printed.out.split())
    found = json.loads(Path("run/results.json").read_text())
    pair = Pair.load("run", trust=True)
    with torch.no_grad():
        logs = [float(pair.model.log_prob(x[None]).sum()) for x, _ in test.whole() if len(x) > 2]
    frames = sum(max(int(n) - 2, 0) for n in test.lengths)
    assert found["nats_per_dim"] == pytest.approx(sum(logs) / frames / 2, abs=1e-5)
