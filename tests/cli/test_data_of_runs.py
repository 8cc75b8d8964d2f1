"""Runs on other data, on data that moved, and in units, channels and lengths of all kinds."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference import rollout
from pyro_afslvm.cli.main import main
from pyro_afslvm.data import Arrays
from pyro_afslvm.data.standardization import Standardization
from pyro_afslvm.runs.run import Run
from tests.support.sources import RAMP

FLOW = """
from pyro_afslvm import FlowModel, Pair, TemporalAffine, TemporalChain
from pyro_afslvm.transforms import LastFrame

BATCH_SIZE = 2

def build(frame_shape):
    flow = TemporalChain([TemporalAffine(LastFrame(len(frame_shape), learned_scale=True))
                          for _ in range(TRANSFORMS)])
    return Pair(FlowModel(flow, frame_shape, context_length=CONTEXT), None)
"""
QUICK = ("--steps", "2", "--validate_every", "2", "--validation_sequences", "2")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, transforms, context in (("af1", 1, 3), ("af2", 2, 6)):
        head = f"TRANSFORMS, CONTEXT = {transforms}, {context}\n"
        Path(f"{name}.py").write_text(head + FLOW)


def walks(count: int = 12, length: int = 20) -> np.ndarray:
    steps = np.random.default_rng(0).normal(size=(count, length, 3))
    return steps.cumsum(1) * [1, 5, 20] + [0, 50, 1000]


def stored(name: str, values: np.ndarray, **settings: object) -> list[str]:
    """Store values; options that name them as data."""
    np.save(name, values)
    return data(name, **settings)


def data(name: str, **settings: object) -> list[str]:
    more = [text for key, value in settings.items() for text in (f"--data.{key}", str(value))]
    return ["--data", "Arrays", "--data.path", name, *more]


def done(*arguments: str) -> bool:
    return main([*arguments]) == 0


def refused(capsys: Capture, *arguments: str) -> str:
    """Run, expect one line of an error; return it."""
    capsys.readouterr()
    assert main([*arguments]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error: " in x]
    return line


def results(run: str = "run") -> dict:
    return json.loads(Path(run, "results.json").read_text())


# ---- where data are ----


def test_data_that_moved(capsys: Capture) -> None:
    there = stored("v.npy", walks(), standardize=True)
    assert done("train", "af1.py", *there, *QUICK, "--out", "run")
    assert done("evaluate", "run")
    before = results()
    Path("v.npy").rename("w.npy")
    for command in (["evaluate", "run"], ["sample", "run"]):
        assert refused(capsys, *command) == (
            "afslvm: error: v.npy: there is no such file (the data of run): if they have moved, "
            "give --data with their place"
        )
    moved = data("w.npy")
    assert done("report", "run")  # which needs no data
    assert done("evaluate", "run", *moved)
    after = results()
    assert after["nats_per_dim"] == before["nats_per_dim"]
    assert after["protocol"] == before["protocol"]
    assert done("sample", "run", *moved)
    Path("run/results.json").unlink()
    assert done("report", "run", *moved)
    assert results()["nats_per_dim"] == before["nats_per_dim"]
    Path("run/results.json").unlink()
    assert "if they have moved" in refused(capsys, "report", "run")


def test_resuming_notes_where_the_data_are_now(capsys: Capture) -> None:
    there = stored("v.npy", walks(), standardize=True)
    train = ("train", "af1.py", *QUICK, "--out", "run")
    assert done(*train, *there)
    Path("v.npy").rename("w.npy")
    assert "v.npy: there is no such file" in refused(capsys, *train, "--resume")
    assert done(*train, *data("w.npy", standardize=True), "--resume", "--steps", "4")
    assert Run.open("run").load_source().path == "w.npy"
    assert done(*train, "--resume", "--steps", "6")  # now without --data
    assert done("evaluate", "run")
    other = stored("x.npy", walks() + 1, standardize=True)
    assert "was trained on other data" in refused(capsys, *train, *other, "--resume")
    assert Run.open("run").load_source().path == "w.npy"


def test_another_data_set(capsys: Capture) -> None:
    assert done("train", "af1.py", *stored("v.npy", walks()), *QUICK, "--out", "run")
    assert done("evaluate", "run")
    first = results()
    other = stored("other.npy", 3 + walks(15)[::-1])
    assert done("evaluate", "run", *other)
    second = results()
    assert second["nats_per_dim"] != first["nats_per_dim"]
    assert second["protocol"]["data"]["content"] != first["protocol"]["data"]["content"]
    assert done("report", "run", "--data", "Arrays", "--data.path", "v.npy")  # evaluated anew
    assert results()["nats_per_dim"] == first["nats_per_dim"]
    assert done("sample", "run", *other)
    for command in ("evaluate", "sample", "report"):
        line = refused(capsys, command, "run", "--data", "MovingDigits")
        assert line == (
            "afslvm: error: run was trained on frames of (3,), these data have frames of "
            "(1, 64, 64)"
        )


def test_one_run_that_cannot_be_reported_stops_no_other(capsys: Capture) -> None:
    there = stored("v.npy", walks())
    for run in ("a", "b"):
        assert done("train", "af1.py", *there, *QUICK, "--out", run)
    assert done("evaluate", "b")
    Path("v.npy").unlink()
    Path("empty").mkdir()
    capsys.readouterr()
    assert done("report", "a", "b", "empty", "--out", "page.html")
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "left out a: v.npy: there is no such file (the data of a): if they have moved, give --data "
        "with their place",
        "left out empty: empty holds no run: settings.json is missing",
    ]
    assert "af1" in said.out
    assert "v.npy" in refused(capsys, "report", "a")


# ---- sources of one's own ----


def test_a_source_in_a_file_of_the_working_folder(capsys: Capture) -> None:
    Path("mysource.py").write_text(RAMP.replace("class Ramp", "class OwnRamp"))
    own = ("--data", "mysource.OwnRamp")
    assert done("train", "af1.py", *own, *QUICK, "--out", "run")
    for command in ("evaluate", "sample", "report"):
        assert done(command, "run", *own)
    assert done("evaluate", "run", *own, "--data.seed", "3")
    assert results()["protocol"]["data"]["seed"] == 3
    assert "no source mysource.Other: " in said_at_once(
        capsys, "evaluate", "run", "--data", "mysource.Other"
    )


def said_at_once(capsys: Capture, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_recipes_of_ones_own_in_a_report(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    there = stored("v.npy", walks())
    for name in ("af1", "af2"):
        assert done("train", f"{name}.py", *there, *QUICK, "--out", name)
    monkeypatch.setenv("XDG_STATE_HOME", "elsewhere")  # where nobody ran them
    assert "was not run here before" in refused(capsys, "report", "af1")
    for command in ("evaluate", "sample"):
        assert done(command, "af1", "--recipe", "af1.py")
        assert "another recipe" in refused(capsys, command, "af1", "--recipe", "af2.py")
    Path("af1/results.json").unlink()
    assert done("report", "af1", "af2", "--recipe", "af1.py", "af2.py")
    assert [results(name)["recipe"] for name in ("af1", "af2")] == ["af1.py", "af2.py"]


# ---- standardization ----


def test_likelihoods_are_of_the_values_as_stored() -> None:
    """The density of v is that of x = (v - m) / s, divided by the product of s."""
    there = stored("v.npy", walks(), standardize=True)
    assert done("train", "af1.py", *there, *QUICK, "--out", "run")
    assert done("evaluate", "run")
    run = Run.open("run")
    source = Arrays(path="v.npy", standardize=True)
    kept = Standardization.from_json(run.read_settings()["standardization"])
    assert np.array_equal(kept.scale, source.standardization.scale)
    raw = Arrays(path="v.npy").dataset("test", num_frames=13)
    values = np.stack([raw.frames(k) for k in range(len(raw))]).astype(np.float64)
    np.testing.assert_allclose(kept.mean, parts("train").mean(0), rtol=1e-6)
    np.testing.assert_allclose(kept.scale, parts("train").std(0), rtol=1e-6)
    # the flow: x_t ~ N(x_{t-1}, sigma^2), so that v_t ~ N(v_{t-1}, (sigma s)^2)
    from pyro_afslvm.cli.workflow import load_run

    pair, _, _ = load_run(run, source=source)
    (log_scale,) = (p.item() for p in pair.model.parameters())
    sigma = flow_scale(log_scale) * kept.scale
    jumps = np.diff(values, axis=1)[:, 2:]
    log_prob = -0.5 * (jumps / sigma) ** 2 - np.log(sigma) - 0.5 * math.log(2 * math.pi)
    assert results()["nats_per_dim"] == pytest.approx(log_prob.mean(), rel=1e-6)
    curves = run.read_curves()["validation_nats_per_dim"]
    assert abs(curves[-1] - log_prob.mean()) < 1  # the same units: in the model's it is > 3 off


def parts(split: str) -> np.ndarray:
    """All frames of a split, as they are stored."""
    source = Arrays(path="v.npy")
    data = source.dataset(split, num_frames=20)
    return np.concatenate([data.frames(k) for k in range(len(data))]).astype(np.float64)


def flow_scale(parameter: float) -> float:
    """The scale that a learned scale of one transform comes to."""
    import torch

    from pyro_afslvm import TemporalAffine
    from pyro_afslvm.transforms import LastFrame

    flow = TemporalAffine(LastFrame(1, learned_scale=True))
    with torch.no_grad():
        next(iter(flow.parameters())).fill_(parameter)
        history, frame = torch.zeros(1, 3, 1), torch.zeros(1, 1, 1)
        return flow.maps(frame, history=history)[0].log_scale.exp().item()


def test_samples_are_in_the_units_of_the_data() -> None:
    there = stored("v.npy", walks(), standardize=True)
    assert done("train", "af1.py", *there, *QUICK, "--out", "run")
    assert done("sample", "run", "--num_sequences", "2", "--num_samples", "5")
    with Path("run/rollout.csv").open() as file:
        rows = list(csv.DictReader(file))
    test = Arrays(path="v.npy").dataset("test", num_frames=20)
    for row in rows:
        values = [float(row[f"feature_{j + 1}"]) for j in range(3)]
        n, t = int(row["sequence"]) - 1, int(row["time"]) - 1
        if row["sample"] == "truth" or t < 6:  # given
            np.testing.assert_allclose(values, test.frames(n)[t], rtol=1e-6, atol=1e-5)
        else:
            assert 500 < values[2] < 1500
    assert {row["sample"] for row in rows} == {"truth", *"12345"}


def test_forecasts_are_in_the_units_of_the_data() -> None:
    import xarray as xr

    there = stored("v.npy", walks(), standardize=True)
    assert done("train", "af1.py", *there, *QUICK, "--out", "run")
    options = ["--sequences", "2", "--samples", "4", "--horizon", "4"]
    assert rollout.main(["run", *options]) == 0
    test = Arrays(path="v.npy").dataset("test", num_frames=10)
    with xr.open_dataset("run/forecast.nc", engine="h5netcdf") as found:
        whole = np.concatenate([found.x_given, found.x_true], 1)
        np.testing.assert_allclose(whole[1], test.frames(1), rtol=1e-5, atol=1e-4)
        assert 500 < found.x_future.to_numpy()[..., 2].mean() < 1500


def test_a_source_that_cannot_standardize_is_refused(capsys: Capture) -> None:
    text = RAMP.replace("class Ramp", "class RealRamp").replace("rng.integers(256, ", "rng.normal(")
    text = text.replace(", dtype=np.uint8", "").replace("(1, self.size, self.size)", "(3,)")
    text += "\n    dequantization = 'none'\n"
    Path("realsource.py").write_text(text)
    there = stored("v.npy", walks(), standardize=True)
    assert done("train", "af1.py", *there, *QUICK, "--out", "run")
    line = refused(capsys, "evaluate", "run", "--data", "realsource.RealRamp")
    assert line.endswith(
        "the model was trained on standardized values, and RealRamp cannot standardize: give the "
        "data as Arrays"
    )
    assert done("train", "af1.py", *data("v.npy"), *QUICK, "--out", "raw")
    line = refused(capsys, "evaluate", "raw", *there)
    assert line.endswith("the model was trained on values as they are: leave standardize out")


def test_a_run_of_the_release_before_keeps_its_units() -> None:
    there = stored("v.npy", walks(), standardize=True)
    assert done("train", "af1.py", *there, *QUICK, "--out", "run")
    assert done("evaluate", "run")
    now = results()
    path = Path("run/settings.json")
    settings = json.loads(path.read_text())
    for key in ("standardization", "recipe_files", "recipe_path", "frame_shape"):
        del settings[key]
    path.write_text(json.dumps(settings))
    assert done("evaluate", "run")
    shift = np.log(Arrays(path="v.npy", standardize=True).standardization.scale).mean()
    assert results()["nats_per_dim"] == pytest.approx(now["nats_per_dim"] + shift, rel=1e-6)
    assert "likelihood_units" not in results()["protocol"]["data"]
    assert now["protocol"]["data"]["likelihood_units"] == "as stored"
    assert done("sample", "run")
    assert done("train", "af1.py", *there, *QUICK, "--out", "run", "--resume", "--steps", "4")


# ---- channels ----


@pytest.mark.parametrize("channels", [2, 4, 5])
@pytest.mark.parametrize("real", [False, True], ids=["8-bit", "real"])
def test_pictures_of_any_number_of_channels(channels: int, real: bool) -> None:
    rng = np.random.default_rng(1)
    shape = (12, 20, channels, 8, 8)
    pixels = rng.normal(size=shape).cumsum(1) * 40 + 300 if real else rng.integers(256, size=shape)
    values = pixels if real else pixels.astype(np.uint8)
    settings = {"standardize": True} if real else {}
    assert done("train", "af1.py", *stored("c.npy", values, **settings), *QUICK, "--out", "run")
    assert done("evaluate", "run")
    assert done("sample", "run", "--num_sequences", "1")
    with Image.open("run/rollout.gif") as film:
        assert film.n_frames == 20
    assert done("data", "inspect", *data("c.npy", **settings), "--limit", "4")
    assert done("report", "run", "--out", "page.html")
    page = Path("page.html").read_text()
    assert page.count("data:image/gif") == 1
    assert "Not shown" not in page


def test_a_run_that_cannot_be_drawn_is_reported_all_the_same(capsys: Capture) -> None:
    for name in ("a", "b"):
        assert done("train", "af1.py", *stored("v.npy", walks()), *QUICK, "--out", name)
        assert done("evaluate", name)
    np.savez("a/pictures.npz", rollout_truth=np.zeros(3), rollout_context=1, rollout_samples=2)
    Path("b/pictures.npz").write_bytes(b"no archive")
    capsys.readouterr()
    assert done("report", "a", "b", "--out", "page.html")
    problems = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in problems] == [
        ["not shown", "b/pictures.npz"],
        ["not shown", "a/pictures.npz"],
    ]
    page = Path("page.html").read_text()
    assert page.count("Not shown: ") == 2


# ---- horizons ----


@pytest.mark.parametrize(
    ("shape", "scored"),
    [
        ((12, 20, 1, 8, 8), 10),
        ((12, 20, 3), 10),
        ((12, 9, 3), 3),
        ((12, 8, 1, 8, 8), 1),
        ((12, 7, 3), 1),
    ],
    ids=["20 frames", "20 vectors", "9 vectors", "8 frames", "7 vectors"],
)
def test_forecasts_as_long_as_asked(shape: tuple[int, ...], scored: int) -> None:
    """With a model that needs seven frames; by default 14 more are sampled."""
    rng = np.random.default_rng(1)
    values = rng.integers(256, size=shape, dtype=np.uint8)
    if len(shape) == 3:
        values = rng.normal(size=shape)
    options = ("--scored_frames", str(scored))
    assert done("train", "af2.py", *stored("a.npy", values), *QUICK, *options, "--out", "run")
    assert done("report", "run")
    for horizon in ((), ("--horizon", "25"), ("--context", "8", "--horizon", "2")):
        assert done("sample", "run", *horizon)
        arrays = np.load("run/pictures.npz")
        given = min(8 if "--context" in horizon else 7, shape[1])
        asked = int(horizon[-1]) if horizon else 14
        assert arrays["rollout_context"] == given
        assert arrays["rollout_samples"].shape[2] == given + asked
        assert arrays["rollout_truth"].shape[1] == min(shape[1], given + asked)
        assert done("report", "run")


def test_sequences_too_short_to_train_on_name_the_option(capsys: Capture) -> None:
    line = refused(capsys, "train", "af2.py", *stored("a.npy", walks(12, 9)), "--out", "run")
    assert line.endswith(
        "num_frames is 16, but the stored sequences of the train split have 9 frames at most: the "
        "model is given 6 and then scores 10: choose fewer scored_frames"
    )
