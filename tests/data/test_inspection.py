"""What `afslvm data inspect` finds: figures against oracles, guesses, the page, its refusals."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.cli.inspect import inspection_text, write_sheet
from pyro_afslvm.cli.main import main
from pyro_afslvm.data import BAIR, KTH, Arrays, MovingDigits, dequantization
from pyro_afslvm.data.inspection import Sums, baselines, inspect_source
from pyro_afslvm.data.registry import guess_source
from pyro_afslvm.evaluation.metrics import likelihood
from pyro_afslvm.metrics import temporal_correlation
from pyro_afslvm.plots import to_png
from pyro_afslvm.plots.contact import contact_sheet
from pyro_afslvm.transforms import LastFrame
from tests.cli.test_cli import refused
from tests.support.kth import add_video, write_sequences
from tests.support.tfrecords import framed, trajectory
from tests.support.videos import scene, write_video

GAUSSIAN, NONE = dequantization("gaussian"), dequantization("none")


def sums_of(crops: Any) -> Sums:
    sums = Sums(np.asarray(crops[0][0], dtype=np.float64))
    for crop in crops:
        sums.add(np.asarray(crop, dtype=np.float64))
    return sums


def walk(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


def pixels(count: int, frames: int = 14, side: int = 6, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    steps = rng.integers(-9, 10, size=(count, frames, 1, side, side))
    return (120 + steps.cumsum(1)).clip(0, 255).astype(np.uint8)


def tables(found: Any) -> Any:
    return {stretch.split: stretch for stretch in found.stretches}


# ---- figures ----


def test_correlation_is_that_of_the_metric() -> None:
    crops = 1e6 + np.stack([walk(11, 2, 3, 3, seed=i) for i in range(7)])  # 11: all but one scored
    crops[:, :, 1, 1, 1] = 4.0  # a constant has no correlation and is left out
    expected = temporal_correlation(torch.from_numpy(crops[:, 1:]))
    assert sums_of(crops).correlation(0.0) == pytest.approx(expected, abs=1e-9)
    assert 0.3 < expected < 1


def test_correlation_with_noise_is_that_of_noisy_frames() -> None:
    crops = pixels(40) / 255
    crops[:, :, 0, 0, :3] = 0.5  # constants count: their noise has correlation zero
    noisy = torch.from_numpy(crops[:, 4:]).repeat(60, 1, 1, 1, 1)
    noisy = noisy + torch.randn_like(noisy) / 256
    found = sums_of(crops).correlation(256**-2)
    assert found == pytest.approx(temporal_correlation(noisy), abs=2e-3)
    assert found < sums_of(crops).correlation(0.0)


def test_copy_last_frame_is_what_the_model_reaches() -> None:
    source = Arrays.from_array(pixels(60))
    found = inspect_source(source, num_frames=13)
    data = source.dataset("train", num_frames=13)
    jumps = np.concatenate([np.diff(data.frames(k)[2:].astype(float), axis=0) for k in range(200)])
    scale = np.sqrt(np.mean((jumps / 255) ** 2) + 2 / 256**2)
    conditioner = LastFrame(3, learned_scale=True)
    torch.nn.init.constant_(next(conditioner.parameters()), float(np.log(scale)))
    model = FlowModel(TemporalAffine(conditioner), (1, 6, 6), context_length=3)
    test = source.dataset("test", num_frames=13)
    scored = likelihood(Pair(model, None), test, dequantization=GAUSSIAN, scored_frames=10)
    assert found.scored_on == "test"
    assert found.baselines.copy == pytest.approx(GAUSSIAN.to_nats(scored.mean), abs=5e-3)
    assert found.baselines.copy > found.baselines.static


def test_still_frames_reach_the_ceiling() -> None:
    picture = np.random.default_rng(0).integers(256, size=(1, 1, 1, 6, 6))
    still = np.broadcast_to(picture, (20, 14, 1, 6, 6)).astype(np.uint8)
    found = inspect_source(Arrays.from_array(still))
    assert found.baselines.static == pytest.approx(GAUSSIAN.ceiling, abs=1e-9)
    assert found.baselines.copy == pytest.approx(GAUSSIAN.ceiling - np.log(2) / 2, abs=1e-9)
    assert found.baselines.copy_local == pytest.approx(found.baselines.copy, abs=1e-9)
    assert found.constant == 36
    assert "36 of 36" in inspection_text(found)
    assert "Frames hardly change" in inspection_text(found)


def test_what_never_moved_in_training_is_not_ruled_out() -> None:
    train, held, test = (pixels(9, seed=i) / 255 for i in range(3))
    train[..., :3] = 0.5
    fitted = baselines(
        sums_of(train), held=sums_of(held), scored=sums_of(test), dequantization=GAUSSIAN
    )
    alone = baselines(
        sums_of(train), held=sums_of(train), scored=sums_of(test), dequantization=GAUSSIAN
    )
    assert fitted.static > -8
    assert fitted.copy_local > -6
    assert alone.static < fitted.static - 1
    assert alone.copy_local < fitted.copy_local - 1


def test_vectors_against_normal_densities() -> None:
    series = walk(4000, 2)
    series[:, 1] *= 50
    source = Arrays.from_array(series, standardize=True)
    found = inspect_source(source, limit=2000)
    data = [source.dataset(s, num_frames=13) for s in ("train", "test")]
    train, test = (
        np.stack([d.frames(k)[2:] for k in range(n)]).astype(float)
        for d, n in zip(data, (2000, len(data[1])), strict=True)
    )
    scale = torch.from_numpy(np.diff(train, axis=1).reshape(-1, 2).std(0))
    jumps = torch.from_numpy(np.diff(test, axis=1))
    expected = float(torch.distributions.Normal(0.0, scale).log_prob(jumps).mean())
    expected -= np.log(source.standardization.scale).mean()  # of the values as they are stored
    assert found.low == pytest.approx(series.min(), rel=0.2)
    assert found.baselines.copy == pytest.approx(expected, abs=0.02)
    assert found.baselines.copy_local == pytest.approx(found.baselines.copy)


def test_real_numbers_that_stay_are_left_out() -> None:
    x = np.stack([walk(12, 2, seed=i) for i in range(5)])
    x[:, :, 1] = 3.0
    both = baselines(sums_of(x), held=None, scored=sums_of(x), dequantization=NONE)
    one = baselines(sums_of(x[..., :1]), held=None, scored=sums_of(x[..., :1]), dequantization=NONE)
    assert both == pytest.approx(one)
    with pytest.raises(ValueError, match="constant"):
        baselines(sums_of(x[..., 1:]), held=None, scored=sums_of(x[..., 1:]), dequantization=NONE)


def test_what_moves_before_the_scored_frames_alone() -> None:
    x = np.stack([walk(12, 2, seed=i) for i in range(5)])
    x[:, 2:, 1] = 3.0
    assert sums_of(x).correlation(0.0) == pytest.approx(sums_of(x[..., :1]).correlation(0.0))
    both = baselines(sums_of(x), held=None, scored=sums_of(x), dequantization=NONE)
    one = baselines(sums_of(x[..., :1]), held=None, scored=sums_of(x[..., :1]), dequantization=NONE)
    assert both == pytest.approx(one)


# ---- what is there ----


def test_lengths_and_crops() -> None:
    lengths = np.arange(14, 44)
    found = inspect_source(Arrays.from_array(pixels(30, 44), lengths=lengths), num_frames=20)
    train = tables(found)["train"].lengths
    page = inspection_text(found)
    assert set(train) <= set(lengths)
    assert len(train) == 21
    assert f"{train.min()}, {np.median(train):g}, {train.max()}" in page
    assert "crops of 20" in page
    assert found.dtype == "uint8"
    assert (found.low, found.high) == (found.low // 1, found.high // 1)


def test_short_and_empty_splits_are_named() -> None:
    found = inspect_source(Arrays.from_array(walk(100, 2), test_fraction=0))
    short = tables(found)["validation"]
    assert "too short for 13 frames" in short.problem
    assert tables(found)["test"].problem == "empty"
    assert found.scored_on == "train"
    page = inspection_text(found)
    assert "the test split is empty" in page
    assert "nothing is held out" in page


def test_sequences_shorter_than_asked() -> None:
    found = inspect_source(Arrays.from_array(pixels(20, 8)))
    assert found.num_frames == 8
    with pytest.raises(ValueError, match="one frame"):
        inspect_source(Arrays.from_array(pixels(20, 1)))


def test_advice() -> None:
    noise = np.random.default_rng(0).normal(size=(30, 14, 3))
    pages = [
        inspection_text(inspect_source(Arrays.from_array(x))) for x in (noise, noise.cumsum(1))
    ]
    assert "Not by copying" in pages[0]
    assert "Yes: a flow" in pages[1]
    assert "vector_slvm_af1" in pages[1]
    assert "ceiling" not in pages[1]  # real numbers have none
    assert "-1.419" in inspection_text(inspect_source(MovingDigits(size=16), limit=4))


@pytest.mark.filterwarnings("ignore:.*consider standardize")
def test_outliers_are_named_wherever_they_are() -> None:
    for shape, count in (((12, 20, 1, 8, 8), 200), ((1, 90, 2), 4), ((40, 16, 3), 5)):
        values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        values = values[0] if shape[0] == 1 else values
        clean = inspection_text(inspect_source(Arrays.from_array(values), limit=count))
        assert "standard deviations" not in clean
        where = (7, 1) if shape[0] == 1 else (5, 11, *[0] * (len(shape) - 2))
        values[where] = 1e3
        for settings in ({}, {"standardize": True}):
            source = Arrays.from_array(values, **settings)
            found = inspect_source(source, limit=count)
            page = inspection_text(found)
            place = "frame 7 of sequence 0" if shape[0] == 1 else "frame 11 of sequence 5"
            assert f"Note: a value (1000, in {place}, from 0 on) is" in page
            assert found.farthest.distance > 500


def test_an_outlier_does_not_end_a_training(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    values = np.random.default_rng(0).normal(size=(30, 14, 2)).astype(np.float32).cumsum(1)
    values[:, 5, 1] = 1e3  # so that every crop has one
    np.save("v.npy", values)
    steps = ["--steps", "6", "--validate_every", "3", "--data.standardize", "true"]
    for recipe in ("vector_af1", "vector_slvm_af1"):
        out = ["--out", recipe]
        assert main(["train", recipe, "--data", "v.npy", *steps, *out]) == 0, capsys.readouterr()
        assert main(["evaluate", recipe]) == 0


# ---- pictures ----


@pytest.mark.parametrize("shape", [(20, 1, 8, 8), (20, 2, 8, 8), (20, 3, 8, 8), (50, 9)])
def test_contact_sheets(shape: Any) -> None:
    rows = {f"train {i}": walk(*shape, seed=i) for i in range(3)}
    image = Image.open(io.BytesIO(to_png(contact_sheet(rows, low=-3, high=3))))
    assert np.asarray(image).std() > 5
    if len(shape) == 4:
        assert image.width > 2 * image.height  # sequences below each other, time to the right
    with pytest.raises(ValueError, match="nothing to draw"):
        contact_sheet({}, low=0, high=1)


def test_contact_sheet_shows_frames_as_they_are(tmp_path: Path) -> None:
    x = np.zeros((20, 13, 1, 8, 8), np.uint8)
    x[:, :, :, :4] = 255
    write_sheet(inspect_source(Arrays.from_array(x)), tmp_path / "a.png")
    dark = picture(tmp_path / "a.png").mean(-1) < 20
    column = dark[:, round(dark.shape[1] * (0.98 + 8.52 / 2) / 9.6)]  # through frame 7
    edges = np.flatnonzero(np.diff(column.astype(int)))
    heights = edges[1::2] - edges[::2]
    assert len(heights) == 7  # rows of three, two and two sequences
    frame = 150 * 8.52 / (13 * 9 - 1) * 8  # pixels, with gaps of an eighth between frames
    assert heights == pytest.approx(frame / 2, abs=2)


def picture(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=float)


# ---- the command ----


def test_command_on_a_video(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.avi", scene(130))
    options = ("--data.size", "32", "--data.cache", "store", "--data.gap", "4")
    asked = ("data", "inspect", "--data", "Videos", "--data.path", "a.avi", *options)
    assert main([*asked, "--out", "page.png"]) == 0
    page = capsys.readouterr().out
    for text in ("prepared 1 files, 130 frames", "Videos: size 32", "uint8", "Would a flow help"):
        assert text in page
    assert "wrote page.png" in page
    assert picture(Path("page.png")).std() > 5


def test_command_on_a_bare_path(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("walk.npy", np.random.default_rng(0).normal(size=(500, 3)))
    asked = ("data", "inspect", "walk.npy", "--num_frames", "9")
    assert main([*asked, "--out", "new/folder/page.png"]) == 0
    assert Path("new/folder/page.png").exists()
    assert main([*asked]) == 0
    page = capsys.readouterr().out
    assert "Arrays: sequences 1, frames 500" in page
    assert "crops of 9" in page
    assert Path("contact_sheet.png").exists()


def test_refusals_are_one_line(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("whole.npy", np.zeros((4, 30, 2), np.int64))
    Path("note.avi").write_text("not a film")
    np.save("walk.npy", walk(500, 2))
    assert "give either a path or --data" in refused(capsys, "data", "inspect")
    both = ("data", "inspect", "walk.npy", "--data", "MovingDigits")
    assert "give either a path or --data" in refused(capsys, *both)
    assert "nothing.npy" in refused(capsys, "data", "inspect", "nothing.npy")
    assert "whole.npy: expected uint8" in refused(capsys, "data", "inspect", "whole.npy")
    assert "note.avi: not a video" in refused(capsys, "data", "inspect", "note.avi")
    small = ("--data", "Videos", "--data.path", "note.avi", "--data.size", "2")
    for command in (("data", "inspect"), ("data", "prepare"), ("train", "recipe.py")):
        assert refused(capsys, *command, *small).startswith(
            "afslvm: error: size must be an integer of at least 4, got 2"
        )
    limit = ("data", "inspect", "walk.npy", "--limit", "0")
    assert "limit must be" in refused(capsys, *limit)
    assert not Path("contact_sheet.png").exists()


def test_memory_is_that_of_a_few_crops(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"  # 600 MB of holes: 40 sequences
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(400, 40, 3, 112, 112))
    source = Arrays(path=str(path))
    tracemalloc.start()
    found = inspect_source(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tables(found)["train"].crops > 500
    assert peak < 100e6


def test_public_sets_are_found_by_their_files(tmp_path: Path) -> None:
    person, other = "person11_walking_d1", "person22_walking_d1"
    for name in (person, other):
        add_video(tmp_path / "kth", name)
    write_sequences(tmp_path / "kth", {person: "1-20, 21-60", other: "1-30"})
    walking = KTH(path=str(tmp_path / "kth"), size=16, cache=str(tmp_path / "store"))
    found = tables(inspect_source(walking))
    assert found["train"].lengths.tolist() == [20, 40]
    assert found["test"].lengths.tolist() == [30]
    assert found["validation"].problem == "empty"
    for split, first in (("train", 0), ("test", 200)):
        path = tmp_path / "softmotion30_44k" / split / f"traj_{first}_to_{first}.tfrecords"
        path.parent.mkdir(parents=True)
        path.write_bytes(framed(trajectory(first)))
    robot = guess_source(str(tmp_path / "softmotion30_44k"))
    assert isinstance(robot, BAIR)
    found = tables(inspect_source(robot))
    assert found["train"].lengths.tolist() == [30]
    assert found["test"].crops == 2
