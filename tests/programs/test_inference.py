"""Other inference of Pyro's, likelihoods per step, and the programs that swap and roll out."""

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
import xarray as xr
from PIL import Image
from pyro.infer import JitTrace_ELBO, Trace_ELBO

from inference import bounds, swap_guides, table1
from inference import rollout as rollout_program
from inference.fixed_model import fixed_model
from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine
from pyro_afslvm.data import dequantization
from pyro_afslvm.metrics import crps
from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.objectives import iwae, smc
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.utils.seeding import Stream, seed_step
from tests.support.guides import GIVEN, sequences, system

ROOT = Path(__file__).parents[2]
FRAME = (1, 16, 16)
Capture = pytest.CaptureFixture[str]


def test_log_prob_per_step_of_the_frames():
    model, guide = system("plain", "filtering")
    x = sequences()
    batch = model.batch(x)
    z = guide(x)
    steps = model.log_prob(x, z)
    assert steps.shape == (3, 8 - GIVEN)
    emission = model.emission_distribution(z, batch)
    torch.testing.assert_close(steps.sum(-1), emission.log_prob(batch.targets))
    lengths = torch.tensor([5, 8, 6])
    ragged = model.log_prob(x, z, lengths=lengths)
    assert (ragged[0, 3:] == 0).all()
    torch.testing.assert_close(ragged[1], steps[1])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # Pyro's, not ours
def test_the_tracer_sees_the_networks():
    """A remembered inverse would be a constant in the traced program."""
    torch.manual_seed(0)
    flow = TemporalAffine(ConvConditioner(1, hidden=4, depth=1))
    model = FlowModel(flow, FRAME)
    x, other = torch.rand(2, 2, 6, *FRAME)
    expected = [Trace_ELBO().loss(model, no_guide, batch) for batch in (x, other)]
    with pyro.validation_enabled(False):
        traced = JitTrace_ELBO(ignore_jit_warnings=True)
        for batch, loss in zip((x, other), expected, strict=True):
            found = traced.loss_and_grads(model, no_guide, batch)
            torch.testing.assert_close(found, loss, rtol=1e-5, atol=0)
    assert all(p.grad is not None for p in model.parameters())


# ---- programs: swap_guides and rollout ----

RECIPE = """
from pyro_afslvm import *
from pyro_afslvm.networks import MLPDecoder, MLPEncoder

NAME, BATCH_SIZE, LEARNING_RATE = "{name}", 4, 1e-2


def build(frame_shape=(2,)):
    flow = TemporalAffine(MLPConditioner(2, window=3, hidden=(8,), residual={residual}))
    prior = TemporalAffine(LSTMConditioner(3, hidden=4))
    model = SLVM(frame_shape, 3, prior=prior, decoder=MLPDecoder(3, 2), flow=flow)
    guide = {guide}
    return Pair(model, guide)
"""
FILTERING = "FilteringGuide(model, MLPEncoder(2, features=5), hidden=4)"
SMOOTHING = "SmoothingGuide(model, MLPEncoder(2, features=5), summary=4, hidden=4)"
QUICK = ["--steps", "3", "--validate_every", "1", "--sequences", "6", "--particles", "3"]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Vectors of two features, and two recipes that differ in their guide."""
    series = np.random.default_rng(0).standard_normal((40, 20, 2)).cumsum(1).astype(np.float32)
    np.save(tmp_path / "series.npy", series)
    for name, guide in (("filtering", FILTERING), ("smoothing", SMOOTHING)):
        text = RECIPE.format(name=name, guide=guide, residual=True)
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def swap(folder: Path, *more: str, recipes: Sequence[str] = ("filtering", "smoothing")) -> int:
    paths = [str(folder / f"{name}.py") for name in recipes]
    data = ["--data", "Arrays", "--data.path", str(folder / "series.npy")]
    out = ["--out", str(folder / "out"), "--json", str(folder / "figures.json")]
    return swap_guides.main(["--recipes", *paths, *QUICK, *data, *out, *more])


def test_swap_guides_compares_on_the_same_frames(workplace: Path, capsys: Capture) -> None:
    assert swap(workplace, "--seeds", "0", "1") == 0
    printed = capsys.readouterr().out
    found = json.loads((workplace / "figures.json").read_text())
    assert found["protocol"]["sequences"] == 6
    assert "the range over 2 seeds" in printed
    assert [guide["name"] for guide in found["guides"]] == ["filtering", "smoothing"]
    first, second = found["guides"]
    assert [seed["train_seed"] for seed in second["seeds"]] == [0, 1]
    assert first["parameters"]["model"] == second["parameters"]["model"]
    assert first["parameters"]["guide"] < second["parameters"]["guide"]
    for guide in found["guides"]:
        for kind, name in (("nats_per_dim", "elbo"), ("nats_per_sequence", "gap")):
            values = [seed[kind][name]["mean"] for seed in guide["seeds"]]
            assert guide[kind][name]["mean"] == pytest.approx(sum(values) / 2)
            assert guide[kind][name]["low"] == min(values)
            assert guide[kind][name]["high"] == max(values)
            assert guide[kind][name]["error_seeds"] is None  # two are too few
            errors = [seed[kind][name]["error"] for seed in guide["seeds"]]
            error = math.sqrt((errors[0] ** 2 + errors[1] ** 2) / 2)
            assert guide[kind][name]["error"] == pytest.approx(error)  # over sequences
        assert guide["nats_per_sequence"]["gap"]["mean"] > 0
        assert f"{guide['nats_per_dim']['iwae']['mean']:.4f}".replace("-", "−") in printed
    scored = second["seeds"][0]["nats_per_dim"]["elbo"]["mean"] * 10 * 2
    other = first["seeds"][0]["nats_per_dim"]["elbo"]["mean"] * 10 * 2
    assert second["seeds"][0]["difference"]["elbo"]["mean"] == pytest.approx(scored - other)
    nothing = dict.fromkeys(("mean", "error", "low", "high"), 0.0)
    assert first["difference"]["elbo"] == nothing | {"error_seeds": None}


def test_swap_guides_goes_on(workplace: Path, capsys: Capture) -> None:
    assert swap(workplace) == 0
    files = [*(workplace / "out").rglob("last.ckpt"), *(workplace / "out").rglob("bounds.json")]
    assert len(files) == 4
    written = [path.stat().st_mtime_ns for path in files]
    printed = capsys.readouterr().out
    assert swap(workplace) == 0
    assert [path.stat().st_mtime_ns for path in files] == written
    assert _tables(capsys.readouterr().out) == _tables(printed)
    assert swap(workplace, "--steps", "5") == 0
    assert all(path.stat().st_mtime_ns > old for path, old in zip(files, written, strict=True))
    assert _tables(capsys.readouterr().out) != _tables(printed)


def _tables(printed: str) -> str:
    return printed[printed.index("nats/dim  ") :]


@pytest.mark.parametrize("kind", ["filtering-iaf", "smoothing"])
def test_measured_bounds_are_the_library_s(kind: str) -> None:
    model, guide = system("plain", kind)
    x = sequences()
    found = bounds.measure(Pair(model, guide), x, particles=5, batch_size=len(x))
    seed_step(0, 0, Stream.PARTICLES)
    expected = iwae(model, guide, x, num_particles=5)
    filtered = smc(model, guide, x, num_particles=5)
    torch.testing.assert_close(found.iwae, expected.log_evidence, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.smc, filtered.log_evidence.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(found.log_likelihood - found.kl, found.elbo)
    assert (found.elbo < found.iwae).all()


def test_metrics_by_hand() -> None:
    first = bounds.Bounds(*(torch.zeros(6).double() for _ in range(5)))
    found = bounds.Bounds(
        elbo=torch.tensor([10.0, 30.0] * 3).double(),
        iwae=torch.tensor([14.0, 32.0] * 3).double(),
        smc=torch.tensor([15.0, 35.0] * 3).double(),
        log_likelihood=torch.tensor([20.0, 42.0] * 3).double(),
        kl=torch.tensor([10.0, 12.0] * 3).double(),
    )
    gaussian = dequantization("gaussian")
    metrics = bounds.metrics(found, first, dequantization=gaussian, dims=10)
    per_dim, error = metrics["nats_per_dim"]["elbo"], 1 / math.sqrt(5)
    assert per_dim == pytest.approx({"mean": 2.0 - math.log(256), "error": error})
    assert metrics["nats_per_sequence"]["kl"] == pytest.approx({"mean": 11.0, "error": error})
    assert metrics["nats_per_sequence"]["gap"] == pytest.approx({"mean": 3.0, "error": error})
    assert metrics["difference"]["smc"] == pytest.approx({"mean": 25.0, "error": 10 * error})
    few = [0, 0, 1, 1, 2, 2]  # windows of three videos
    metrics = bounds.metrics(found, first, dequantization=gaussian, dims=10, units=few)
    assert metrics["difference"]["smc"] == {"mean": 25.0, "error": None}


def test_a_model_that_is_held_fixed(workplace: Path, capsys: Capture) -> None:
    assert swap(workplace, recipes=["filtering"]) == 0
    kept = workplace / "out" / "seed0" / "filtering"
    wanted = load_checkpoint(kept / "best.ckpt")
    new = ["--model", str(kept), "--out", str(workplace / "again")]
    assert swap(workplace, *new) == 0
    for name in ("filtering", "smoothing"):
        trained = load_checkpoint(workplace / "again" / "seed0" / name / "last.ckpt")
        assert trained["step"] == 3
        assert trained["model"].keys() == wanted["model"].keys()
        assert all(torch.equal(v, wanted["model"][k]) for k, v in trained["model"].items())
    guide = load_checkpoint(workplace / "again" / "seed0" / "filtering" / "last.ckpt")["guide"]
    assert all(not torch.equal(v, wanted["guide"][k]) for k, v in guide.items())
    capsys.readouterr()

    assert swap(workplace, "--steps", "6", recipes=["filtering"]) == 0  # now it is another model
    capsys.readouterr()
    assert swap(workplace, *new) == 2
    message = capsys.readouterr().err
    assert message.endswith("filtering was trained on another model than that of --model\n")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "change", [("hidden=(8,)", "hidden=(9,)"), ("residual=True", "residual=False")]
)
def test_guides_of_another_model_are_refused(
    workplace: Path, capsys: Capture, change: tuple[str, str]
) -> None:
    """Of other sizes, or with the same parameters and another meaning."""
    assert swap(workplace, recipes=["filtering"]) == 0
    text = (workplace / "smoothing.py").read_text()
    assert change[0] in text
    (workplace / "smoothing.py").write_text(text.replace(*change))
    capsys.readouterr()
    kept = workplace / "out" / "seed0" / "filtering"
    assert swap(workplace, "--model", str(kept), "--out", str(workplace / "again")) == 2
    message = capsys.readouterr().err
    assert "smoothing.py is another one than that of --model" in message
    assert message.count("\n") == 1
    assert not (workplace / "again").exists()


def test_statistics_of_a_fixed_model_stay(tmp_path: Path) -> None:
    text = """
from pyro_afslvm import *
from pyro_afslvm.networks import ConvDecoder, ConvEncoder


def build(frame_shape):
    flow = TemporalAffine(ConvConditioner(1, hidden=4, depth=1, norm="batch"))
    prior = TemporalAffine(LSTMConditioner(3, hidden=4))
    decoder = ConvDecoder(3, frame_shape, width=4)
    model = SLVM(frame_shape, 3, prior=prior, decoder=decoder, flow=flow)
    encoder = ConvEncoder(frame_shape, features=4, width=4)
    return Pair(model, FilteringGuide(model, encoder, hidden=4))
"""
    (tmp_path / "batch.py").write_text(text)
    recipe = load_recipe(tmp_path / "batch.py")
    fixed = build_pair(recipe, (1, 16, 16))
    for part in fixed:
        part.eval()
    before = {k: v.clone() for k, v in fixed.model.state_dict().items()}
    assert any("running_mean" in name for name in before)
    pair = build_pair(fixed_model(recipe, fixed, (1, 16, 16)), (1, 16, 16))
    loss = BoundLoss(pair).train()
    x = torch.rand(4, 6, 1, 16, 16)
    loss(x).backward()
    assert all(p.grad is None for p in pair.model.parameters())
    assert all(p.grad is not None for p in pair.guide.parameters())
    after = pair.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--recipes", "nothing.py"], "cannot read recipe nothing.py: No such file or directory"),
        (["--recipes", "models/small/af1.py"], "1-AF has no guide to compare"),
        (["--recipes", "models/small/slvm.py"], "SLVM is given 0 frames where the others are"),
        (["--recipes", *2 * ["models/small/slvm_af1.py"]], "expected recipes of different file"),
        (["--sequences", "501"], "the test set holds 500 sequences, fewer than 501"),
        (["--particles", "0"], "particles must be an integer of at least 1, got 0"),
        (["--steps", "0"], "steps must be positive, got 0"),
        (["--model", "nowhere"], "nowhere holds no run: settings.json is missing"),
    ],
)
def test_swap_guides_refuses_in_one_line(
    tmp_path: Path, capsys: Capture, options: list[str], reason: str
) -> None:
    assert swap_guides.main([*options, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("swap_guides: error: ")
    assert reason in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def trained(workplace: Path, capsys: Capture) -> Path:
    assert swap(workplace, recipes=["filtering"]) == 0
    capsys.readouterr()
    return workplace / "out" / "seed0" / "filtering"


def test_rollout_of_vectors(trained: Path, capsys: Capture) -> None:
    options = ["--sequences", "3", "--samples", "4", "--horizon", "5", "--given", "6"]
    assert rollout_program.main([str(trained), *options]) == 0
    rows = capsys.readouterr().out.splitlines()
    with xr.open_dataset(trained / "forecast.nc", engine="h5netcdf") as found:
        assert dict(found.x_future.sizes) == {
            "temperature": 2,
            "sample": 4,
            "sequence": 3,
            "time_future": 5,
            "feature": 2,
        }
        samples = found.x_future.sel(temperature=1.0).to_numpy()
        truth, last = found.x_true.to_numpy(), found.x_given.to_numpy()[:, -1:]
        scores = found.crps.sel(forecast="T = 1").to_numpy()
        np.testing.assert_allclose(scores, crps(samples, truth).numpy(), rtol=1e-6)
        copied = found.crps.sel(forecast="copy").to_numpy()
        np.testing.assert_allclose(copied, np.abs(last - truth).mean(-1), rtol=1e-6)
    (row,) = (row for row in rows if row.startswith("    3 "))
    assert f"{1000 * copied[:, 2].mean():.2f}" in row.split()
    assert f"{1000 * scores[:, 2].mean():.2f}" in row.split()
    for name in ("forecast.png", "forecast_scores.png"):
        with Image.open(trained / name) as image:
            assert image.width > 500


def test_rollout_goes_further_than_the_truth(trained: Path, capsys: Capture) -> None:
    short = ["--sequences", "2", "--samples", "3", "--given", "17", "--horizon", "5"]
    assert rollout_program.main([str(trained), *short]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows if row[:5].strip().isdigit()] == ["1", "2", "3"]
    with xr.open_dataset(trained / "forecast.nc", engine="h5netcdf") as found:
        assert np.isfinite(found.x_future.to_numpy()).all()
        assert found.x_future.sizes["time_future"] == 5
        known = np.isfinite(found.x_true.to_numpy()).all((0, 2))
        assert known.tolist() == [True] * 3 + [False] * 2
        assert np.isfinite(found.crps.sel(forecast="T = 1")).all(
            "sequence"
        ).to_numpy().tolist() == [*known]


def test_rollout_executes_no_unknown_recipe(trained: Path, capsys: Capture) -> None:
    shutil.rmtree(os.environ["XDG_STATE_HOME"])
    assert rollout_program.main([str(trained)]) == 2
    message = capsys.readouterr().err
    assert "is code that was not run here before" in message
    assert message.count("\n") == 1
    options = ["--sequences", "2", "--samples", "2", "--horizon", "2", "--trust"]
    assert rollout_program.main([str(trained), *options]) == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--samples", "1"], "samples must be an integer of at least 2, got 1"),
        (["--given", "20"], "the stored sequences of the test split have 20 frames at most"),
        (["--temperatures", "-1"], "expected a temperature of at least 0, got -1"),
        (["--temperatures", "1", "1"], "expected different temperatures"),
        (["--split", "best"], "unknown split 'best'"),
    ],
)
def test_rollout_refuses_in_one_line(
    trained: Path, capsys: Capture, options: list[str], reason: str
) -> None:
    assert rollout_program.main([str(trained), "--sequences", "2", *options]) == 2
    message = capsys.readouterr().err
    assert message.startswith("rollout: error: ")
    assert reason in message
    assert message.count("\n") == 1
    assert not (trained / "forecast.nc").exists()


def test_rollout_of_video(capsys: Capture) -> None:
    """Copying the last frame is scored as what it is."""
    pair = build_pair(load_recipe("models/small/slvm_af1.py"), (1, 16, 16))
    x = torch.rand(2, 9, 1, 16, 16)
    found = rollout_program.forecasts(
        pair, x, given=6, temperatures=(1.0, 0.0), num_samples=3, seed=0
    )
    scores = rollout_program.scored(found)
    copied = x[:, 5:6].expand(2, 3, 1, 16, 16)
    errors = (copied - x[:, 6:]).square().flatten(2).mean(-1)
    by_hand = -10 * errors.log10()
    np.testing.assert_allclose(scores.psnr.sel(forecast="copy"), by_hand, rtol=1e-5)
    summed = scores.squared_error.sel(forecast="copy")
    np.testing.assert_allclose(summed, 16**2 * errors, rtol=1e-5)
    table = rollout_program.table(scores)
    titles, names, _, *rows, _, mean = table.splitlines()
    assert titles.split("  ")[-1].strip() == "coverage 90 %"
    assert names.split()[:8] == ["ahead", "T", "=", "1", "T", "=", "0", "copy"]
    assert [row.split()[0] for row in [*rows, mean]] == ["1", "2", "3", "mean"]
    assert {len(row.split()) for row in [*rows, mean]} == {1 + 3 * 5 + 2}
    assert all(picture[:4] == b"\x89PNG" for picture in rollout_program.pictures(found, scores))


# ---- table1 over seeds, under uniform noise ----


def test_table1_gives_errors_over_sequences_and_the_range_over_seeds(
    tmp_path: Path, capsys: Capture
) -> None:
    recipes = [str(ROOT / f"models/small/{name}.py") for name in ("copy_last_frame", "slvm")]
    data = ["--data", "MovingDigits", "--data.size", "16", "--data.train_size", "8"]
    data += ["--data.validation_size", "2", "--data.test_size", "6"]
    file = tmp_path / "table.json"
    out = ["--out", str(tmp_path / "out"), "--json", str(file)]
    options = ["--steps", "2", "--dequantization", "uniform", "--seeds", "[0,1]"]
    assert table1.main([f"--recipes=[{','.join(recipes)}]", *data, *options, *out]) == 0
    printed = capsys.readouterr().out
    assert "± standard error over sequences, in brackets the range over 2 seeds" in printed
    words = " ".join(printed.split())
    assert "† nats/dim of models trained on uniform noise are under Gaussian noise" in words
    assert "of models trained on Gaussian noise" not in words
    copied, slvm = json.loads(file.read_text())["models"]
    values = [seed["nats_per_dim"] for seed in slvm["seeds"]]
    assert (slvm["nats_per_dim"]["low"], slvm["nats_per_dim"]["high"]) == (min(values), max(values))
    errors = [seed["nats_per_dim_error"] for seed in slvm["seeds"]]
    assert slvm["nats_per_dim"]["error"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert slvm["nats_per_dim"]["error_seeds"] is None
    assert slvm["whole_nats_per_dim"]["mean"] is not None
    assert copied["whole_nats_per_dim"]["mean"] is None
    assert copied["train_steps"]["mean"] == 1
    assert copied["seeds"][0]["num_units"] == 6
