"""TFRecords and BAIR: files written byte by byte as TensorFlow does, read and damaged."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyro_afslvm.cli.main import main
from pyro_afslvm.data import BAIR, EmptySplitError, fetch, source_from_config
from pyro_afslvm.data.datasets.tfrecord import index_records, read_features, read_record
from tests.support.archives import sha256, tar_of
from tests.support.server import Server
from tests.support.tfrecords import example, framed, picture, trajectory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Trajectories 0-4 for training, in files that sort otherwise as text, and 5-6 for test."""
    parts = {
        "train/traj_0_to_1": (0, 1),
        "train/traj_2_to_3": (2, 3),
        "train/traj_10_to_10": (4,),
        "test/traj_0_to_255": (5, 6),
    }
    for name, numbers in parts.items():
        path = tmp_path / "softmotion30_44k" / f"{name}.tfrecords"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(framed(trajectory(i)) for i in numbers))
    return tmp_path


def seen(x: torch.Tensor) -> tuple[int, list[int]]:
    """Number of the trajectory, and times of its frames."""
    (number,) = set(x[:, 0, 0, 0].tolist())
    return number, x[:, 1, 0, 0].tolist()


# ---- what is known in advance ----


def test_the_command_that_leads_to_a_frame_and_where_the_arm_is(folder: Path) -> None:
    source = BAIR(path=str(folder), validation_size=2, context=["action", "endeffector_pos"])
    assert source.context_features == 7
    assert source_from_config(source.config()).describe() == source.describe()
    assert source.describe()["context"] == ["action", "endeffector_pos"]
    assert "context" not in BAIR(path=str(folder)).describe()
    for split in ("train", "test"):
        data = source.dataset(split, num_frames=10)  # type: ignore[arg-type]
        for k in range(7):
            number, times = seen(data[k])
            found = data.context(k)
            assert found.shape == (10, 7)
            first = times[0] == 0
            # a command is stored with the frame before the one that shows what it did
            assert found[first:, 0] == pytest.approx(0.1 * np.array(times[first:]))
            assert (found[first:, 3] == number).all()
            assert not first or (found[0, :4] == 0).all()
            assert found[:, 4] == pytest.approx(0.1 * np.array(times))
            assert (found[:, 6] == number).all()
    with pytest.raises(ValueError, match="these sequences have no covariates"):
        BAIR(path=str(folder)).dataset("test", num_frames=10).context(0)


def test_a_context_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ValueError, match="context must be of action, endeffector_pos, got speed"):
        BAIR(path=str(folder), context=["speed"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="context names one twice: action, action"):
        BAIR(path=str(folder), context=["action", "action"])
    path = folder / "softmotion30_44k/test/traj_0_to_255.tfrecords"
    path.write_bytes(framed(example({"0/action": [1.0, 2.0]})))
    data = BAIR(path=str(folder), context=["action"]).dataset("test", num_frames=2)
    with pytest.raises(ValueError, match="record 0: feature '0/action' has 2 numbers, expected 4"):
        data.context(0)


# ---- reading ----


def test_pixels_come_out_upright_and_in_order(folder: Path) -> None:
    x = BAIR(path=str(folder)).dataset("test", num_frames=30)[1].numpy()
    expected = np.stack([picture(6, i) for i in range(30)])
    assert np.array_equal(np.moveaxis(x, 1, -1), expected)


def test_splits(folder: Path) -> None:
    source = BAIR(path=str(folder), validation_size=2)
    found = {
        split: [seen(x)[0] for x in source.dataset(split, num_frames=30)]  # type: ignore[arg-type]
        for split in ("train", "validation", "test")
    }
    assert found == {"train": [0, 1, 2], "validation": [3, 4], "test": [5, 6]}


def test_crops_in_time(folder: Path) -> None:
    source = BAIR(path=str(folder), validation_size=2)
    windows = [seen(x) for x in source.dataset("test", num_frames=13)]
    assert windows == [(n, list(range(t, t + 13))) for n in (5, 6) for t in (0, 13)]
    train = source.dataset("train", num_frames=13)
    starts = {seen(train[k])[1][0] for k in range(400)}
    assert starts == set(range(18))


def test_lower_resolution_is_the_mean_of_blocks(folder: Path) -> None:
    full, half = (
        BAIR(path=str(folder), size=size).dataset("test", num_frames=3)[0] for size in (64, 32)
    )
    blocks = full.reshape(3, 3, 32, 2, 32, 2).float().mean((3, 5))
    assert half.dtype == torch.uint8
    assert (half - blocks).abs().max() <= 0.5


def test_the_folder_itself_may_be_named(folder: Path) -> None:
    outer, inner = (BAIR(path=str(p)) for p in (folder, folder / "softmotion30_44k"))
    x, y = (source.dataset("test", num_frames=4)[0] for source in (outer, inner))
    assert torch.equal(x, y)


def test_workers_and_pickles_give_the_same(folder: Path) -> None:
    dataset = BAIR(path=str(folder), size=16, validation_size=1).dataset("train", num_frames=5)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[7], dataset[7])
    loaded = torch.cat(list(DataLoader(dataset, batch_size=3, num_workers=2, timeout=60)))
    assert torch.equal(loaded, torch.stack(list(dataset)))


def test_reading_is_lazy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a data set reads headers and checksums, not pixels."""
    path = folder / "softmotion30_44k/train/traj_0_to_1.tfrecords"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1  # not seen until the record is read
    path.write_bytes(content)
    dataset = BAIR(path=str(folder), validation_size=1).dataset("train", num_frames=30)
    assert seen(dataset[2])[0] == 2
    with pytest.raises(ValueError, match="record 0"):
        dataset[0]


def test_description_is_of_the_content(folder: Path, tmp_path_factory: Any) -> None:
    source = BAIR(path=str(folder), validation_size=2)
    described = source.describe()
    assert described["train_size"] == 3
    assert described["test_size"] == 2
    moved = folder.rename(tmp_path_factory.mktemp("other") / "place")
    again = BAIR(path=str(moved), validation_size=2)
    assert again.describe() == described
    assert source_from_config(again.config()).describe() == described
    path = moved / "softmotion30_44k/test/traj_0_to_255.tfrecords"
    path.write_bytes(framed(trajectory(5)) + framed(trajectory(7)))
    assert BAIR(path=str(moved), validation_size=2).describe() != described


# ---- damage ----


def damaged(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two.tfrecords"
    path.write_bytes(b"".join(framed(example({"a": bytes([i]) * 100})) for i in range(2)))
    return path


def read_all(path: Path) -> list[bytes]:
    records = enumerate(index_records(path))
    return [read_features(path, record, ["a"], number=i)[0] for i, record in records]


def test_records_of_a_whole_file(two: Path) -> None:
    assert read_all(two) == [bytes(100), b"\1" * 100]
    two.write_bytes(b"")
    assert read_all(two) == []


def test_every_flipped_bit_is_found(two: Path) -> None:
    whole = two.read_bytes()
    size = len(whole) // 2
    for position in range(size, len(whole)):
        two.write_bytes(whole)
        damaged(two, position)
        with pytest.raises(ValueError, match=r"two\.tfrecords: record 1: .*checksum") as caught:
            read_all(two)
        assert "\n" not in str(caught.value)


def test_every_cut_is_found(two: Path) -> None:
    whole = two.read_bytes()
    size = len(whole) // 2
    for length in range(size + 1, len(whole)):
        two.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"two\.tfrecords: record 1: cut short"):
            index_records(two)


def test_a_file_that_changed_after_it_was_indexed(two: Path) -> None:
    record = index_records(two)[1]
    two.write_bytes(two.read_bytes()[:-50])
    with pytest.raises(ValueError, match="record 1: its data have another checksum"):
        read_record(two, record, number=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff" * 20, "record 0: no tf.train.Example"),
        (example({"b": b"x"}), "record 0: feature 'a' is not there"),
        (example({"a": [1.0]}), "record 0: feature 'a' is not there"),
        (b"", "record 0: feature 'a' is not there"),
    ],
)
def test_records_of_something_else(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "odd.tfrecords"
    path.write_bytes(framed(data))
    with pytest.raises(ValueError, match=message):
        read_all(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (trajectory(0, frames=20), r"record 0: feature '20/image_aux1/encoded' is not there"),
        (trajectory(0, size=32), r"record 0: feature '0/image_aux1/encoded' has 6144 bytes"),
    ],
)
def test_trajectories_that_are_too_short(folder: Path, record: bytes, message: str) -> None:
    path = folder / "softmotion30_44k/test/traj_0_to_255.tfrecords"
    path.write_bytes(framed(record))
    dataset = BAIR(path=str(folder)).dataset("test", num_frames=30)
    with pytest.raises(ValueError, match=message) as caught:
        dataset[0]
    assert str(path) in str(caught.value)


def test_few_trajectories_need_no_setting(folder: Path, tmp_path: Path) -> None:
    source = BAIR(path=str(folder))  # a tenth of five is none
    assert len(source.dataset("train", num_frames=30)) == 5
    with pytest.raises(EmptySplitError, match="the validation split is empty"):
        source.dataset("validation", num_frames=30)
    frames = framed(trajectory(0))
    for i in range(100, 130):
        (folder / f"softmotion30_44k/train/traj_{i}_to_{i}.tfrecords").write_bytes(frames)
    source = BAIR(path=str(folder))
    assert len(source.dataset("validation", num_frames=30)) == 3
    assert (source.describe()["train_size"], source.describe()["validation_size"]) == (32, 3)


def test_inspect_takes_the_bare_folder(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["data", "inspect", "softmotion30_44k"]) == 0
    assert "BAIR: size 64, train_size 5, validation_size 0" in capsys.readouterr().out


def test_requests_that_cannot_be_met(folder: Path, tmp_path: Path) -> None:
    source = BAIR(path=str(folder), validation_size=6)
    with pytest.raises(ValueError, match=r"validation_size is 6, but .*train holds 5 trajectories"):
        source.dataset("train", num_frames=5)
    with pytest.raises(ValueError, match=r"softmotion30_44k: num_frames is 31, but .* 30 frames"):
        source.dataset("test", num_frames=31)
    with pytest.raises(FileNotFoundError, match="looked for softmotion30_44k/train and test"):
        BAIR(path=str(tmp_path / "nowhere")).dataset("test", num_frames=5)
    with pytest.raises(ValueError, match="size must be at most 64, got 128"):
        BAIR(size=128)
    (tmp_path / "empty" / "test").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="test: holds no files traj_"):
        BAIR(path=str(tmp_path / "empty")).dataset("test", num_frames=5)


def test_the_command_line_names_the_damaged_record(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    damaged(folder / "softmotion30_44k/train/traj_0_to_1.tfrecords", 300_000)
    recipe = Path(__file__).parents[3] / "models/small/copy_last_frame.py"
    options = ["--data.path", ".", "--data.validation_size", "4", "--data.size", "16"]
    code = main(["train", str(recipe), "--data", "BAIR", *options, "--steps", "1"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert "traj_0_to_1.tfrecords: record 0: its data have another checksum" in error


# ---- download ----


def test_download(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = framed(trajectory(3))
    members = [(f"softmotion30_44k/{s}/traj_0_to_0.tfrecords", records) for s in ("train", "test")]
    archive = tar_of(tmp_path / "bair_v0.tar", *members)
    server.files["/bair_v0.tar"] = archive.read_bytes()
    monkeypatch.setattr(fetch, "BAIR", server.address("bair_v0.tar"))
    monkeypatch.setattr(fetch, "BAIR_HASH", sha256(archive.read_bytes()))
    source = BAIR(path=str(tmp_path / "data"), validation_size=0, download=True)
    assert server.asked == []
    for split in ("train", "test"):
        assert seen(source.dataset(split, num_frames=30)[0])[0] == 3  # type: ignore[arg-type]
    assert len(server.asked) == 1
    found = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert found == [".lock", "softmotion30_44k"]
