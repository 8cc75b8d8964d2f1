"""Moving MNIST: its digits, its public file, damaged files and downloads."""

import gzip
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch

from pyro_afslvm.data import MovingMNIST, SequenceDataset, StoredSequences
from pyro_afslvm.data.datasets.mnist_files import open_sequences, read_idx_images
from pyro_afslvm.data.datasets.moving_mnist import mnist_digits
from pyro_afslvm.data.fetch import IDX_TEST, IDX_TRAIN, PUBLIC

SPLITS = ("train", "validation", "test")


# ---- files to read ----


def idx_bytes(images: np.ndarray, *, kind: int = 8, dims: int | None = None) -> bytes:
    header = bytes([0, 0, kind, images.ndim if dims is None else dims])
    return header + struct.pack(f">{images.ndim}I", *images.shape) + images.tobytes()


def numbered_digits(count: int, first: int = 0) -> np.ndarray:
    """Images that tell which one they are: two constant halves."""
    images = np.zeros((count, 28, 28), dtype=np.uint8)
    number = first + np.arange(count)
    images[:, :14] = (number // 100 + 1)[:, None, None]
    images[:, 14:] = (number % 100 + 1)[:, None, None]
    return images


def identities(digits: np.ndarray) -> set[bytes]:
    return {digit.tobytes() for digit in digits}


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    (tmp_path / IDX_TRAIN).write_bytes(idx_bytes(numbered_digits(300)))
    test = idx_bytes(numbered_digits(100, first=300))
    (tmp_path / f"{IDX_TEST}.gz").write_bytes(gzip.compress(test))
    return tmp_path


@pytest.fixture
def public_folder(tmp_path: Path) -> Path:
    frames = np.zeros((20, 50, 64, 64), dtype=np.uint8)
    frames[..., 0] = np.arange(20)[:, None, None]
    frames[..., 1] = np.arange(50)[None, :, None]
    np.save(tmp_path / PUBLIC, frames)
    return tmp_path


@pytest.fixture(scope="module")
def real_mnist() -> Path:
    default = Path(__file__).parents[4] / "shared/data/mnist"
    folder = Path(os.environ.get("AFSLVM_TEST_DATA", default))
    if not list(folder.glob(f"{IDX_TEST}*")):
        pytest.skip(f"no MNIST at {folder}: set AFSLVM_TEST_DATA to a folder with {IDX_TEST}.gz")
    return folder


# ---- Moving MNIST, generated ----


def test_idx_images_are_read_plain_and_compressed(idx_folder: Path) -> None:
    assert np.array_equal(read_idx_images(idx_folder / IDX_TRAIN), numbered_digits(300))
    compressed = read_idx_images(idx_folder / f"{IDX_TEST}.gz")
    assert np.array_equal(compressed, numbered_digits(100, first=300))


def split_sets(files: dict[str, Path]) -> dict[str, set[bytes]]:
    return {split: identities(mnist_digits(files, split, 28)) for split in SPLITS}  # type: ignore[arg-type]


def test_two_files_give_training_and_test_digits(idx_folder: Path) -> None:
    files = {IDX_TRAIN: idx_folder / IDX_TRAIN, IDX_TEST: idx_folder / f"{IDX_TEST}.gz"}
    own = split_sets(files)
    assert own["train"] == identities(numbered_digits(270))
    assert own["validation"] == identities(numbered_digits(30, first=270))
    assert own["test"] == identities(numbered_digits(100, first=300))


def test_one_file_is_split_three_ways(idx_folder: Path) -> None:
    own = split_sets({IDX_TRAIN: idx_folder / IDX_TRAIN})
    assert own["train"] == identities(numbered_digits(243))
    assert own["validation"] == identities(numbered_digits(27, first=243))
    assert own["test"] == identities(numbered_digits(30, first=270))


def shown(frame: torch.Tensor) -> int:
    """Number of the one digit of :func:`numbered_digits` in a frame."""
    column = frame[0].amax(1)
    upper, lower = column[column > 0][[0, -1]].tolist()
    return int((upper - 1) * 100 + lower - 1)


def test_generated_frames_show_only_the_splits_digits(idx_folder: Path) -> None:
    source = MovingMNIST(path=str(idx_folder), num_digits=1)
    ranges = {"train": range(270), "validation": range(270, 300), "test": range(300, 400)}
    for split in SPLITS:
        dataset = source.dataset(split, num_frames=2)  # type: ignore[arg-type]
        numbers = [shown(frame) for k in range(150) for frame in dataset[k]]
        assert set(numbers) <= set(ranges[split])
        assert len(set(numbers)) > 20
        assert numbers[::2] == numbers[1::2]  # one digit throughout a sequence


def test_a_file_may_be_named_itself(idx_folder: Path) -> None:
    source = MovingMNIST(path=str(idx_folder / f"{IDX_TEST}.gz"))
    assert source.describe()["files"] == [IDX_TEST]
    assert source.dataset("train", num_frames=20)[0].shape == (20, 1, 64, 64)


def test_lower_resolution_shows_the_same_digits(real_mnist: Path) -> None:
    full = mnist_digits({IDX_TEST: real_mnist / f"{IDX_TEST}.gz"}, "test", 28)
    half = mnist_digits({IDX_TEST: real_mnist / f"{IDX_TEST}.gz"}, "test", 14)
    blocks = full.reshape(-1, 14, 2, 14, 2).astype(float).mean(axis=(2, 4))
    assert np.abs(half - blocks).max() <= 0.5


def test_real_mnist(real_mnist: Path) -> None:
    source = MovingMNIST(path=str(real_mnist), test_size=64)
    dataset = source.dataset("test", num_frames=20)
    x = torch.stack(list(dataset))
    assert x.shape == (64, 20, 1, 64, 64)
    # Two MNIST digits (mean ink 33.3 of 255 on 28x28 pixels), overlapping at times.
    ink = 2 * 33.3 * 28**2 / 64**2
    assert 0.85 * ink < x.float().mean() < 1.02 * ink
    assert x.max() == 255
    small = MovingMNIST(path=str(real_mnist), size=32, test_size=64)
    y = torch.stack(list(small.dataset("test", num_frames=20)))
    assert abs(y.float().mean() / x.float().mean() - 1) < 0.03


# ---- Moving MNIST, the public file ----


def where(x: torch.Tensor) -> tuple[list[int], set[int]]:
    return x[:, 0, 5, 0].tolist(), set(x[:, 0, 5, 1].tolist())


def test_public_splits(public_folder: Path) -> None:
    source = MovingMNIST(path=str(public_folder), validation_size=5)
    lengths = {"train": 40, "validation": 5, "test": 5}
    firsts = {"train": 0, "validation": 40, "test": 45}
    for split in SPLITS:
        dataset = source.dataset(split, num_frames=20)  # type: ignore[arg-type]
        assert len(dataset) == lengths[split]
        assert [where(x)[1] for x in dataset] == [
            {firsts[split] + i} for i in range(lengths[split])
        ]
    with pytest.raises(ValueError, match="the validation split is empty"):
        MovingMNIST(path=str(public_folder)).dataset("validation", num_frames=20)


def test_public_crops(public_folder: Path) -> None:
    source = MovingMNIST(path=str(public_folder / PUBLIC))
    train, test = (source.dataset(split, num_frames=13) for split in ("train", "test"))  # type: ignore[arg-type]
    assert [where(test[k]) for k in (1, 6)] == [(list(range(13)), {46})] * 2
    starts = set()
    for k in range(1, 45 * 60, 45):
        frames, stored = where(train[k])
        assert stored == {1}
        assert frames == list(range(frames[0], frames[0] + 13))
        starts.add(frames[0])
    assert starts == set(range(8))


def test_public_sizes(public_folder: Path) -> None:
    source = MovingMNIST(path=str(public_folder), size=32, train_size=7, test_size=2)
    assert len(source.dataset("train", num_frames=3)) == 7
    assert len(source.dataset("test", num_frames=3)) == 2
    assert source.dataset("test", num_frames=3)[0].shape == (3, 1, 32, 32)
    too_many = MovingMNIST(path=str(public_folder), test_size=6)
    with pytest.raises(ValueError, match=r"test_size is 6 .* 45 for training .* 5 for test"):
        too_many.dataset("test", num_frames=3)
    with pytest.raises(ValueError, match=r"seq.npy: num_frames is 21, but .* 20 frames"):
        source.dataset("test", num_frames=21)


def test_public_file_in_workers(public_folder: Path) -> None:
    dataset = MovingMNIST(path=str(public_folder)).dataset("test", num_frames=20)
    assert isinstance(dataset, StoredSequences)
    assert isinstance(dataset, SequenceDataset)
    assert len(pickle.dumps(dataset)) < 10_000  # the path travels, not the pixels
    again: Any = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3], dataset[3])


# ---- damaged and missing files ----


GOOD = idx_bytes(numbered_digits(30))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an idx file"),
        (b"GIF89a", "expected an idx file, got first bytes '47 49 46 38'"),
        (GOOD[:-1], r"expected 23536 bytes for images of shape \(30, 28, 28\), got 23535"),
        (GOOD + b"x", "expected 23536 bytes"),
        (GOOD[:10], "truncated or damaged"),
        (idx_bytes(numbered_digits(30), kind=13), "got type 0x0d in 3 dimensions"),
        (idx_bytes(np.arange(9, dtype=np.uint8)), "got type 0x08 in 1 dimensions"),
        (idx_bytes(np.zeros((30, 8, 8), np.uint8)), "images of 28x28"),
        (idx_bytes(numbered_digits(5)), "at least 20 images"),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, message: str) -> None:
    for name, data in ((IDX_TEST, content), (f"{IDX_TEST}.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        source = MovingMNIST(path=str(tmp_path / name))
        with pytest.raises(ValueError, match=message) as caught:
            source.dataset("train", num_frames=3)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["plain", "cut", "flipped"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(GOOD)
    flipped = packed[:40] + bytes([packed[40] ^ 255]) + packed[41:]
    content = {"plain": GOOD, "cut": packed[:-20], "flipped": flipped}[damage]
    path = tmp_path / f"{IDX_TRAIN}.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected a complete gzip file"):
        MovingMNIST(path=str(tmp_path)).dataset("train", num_frames=3)


class Trap:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a data file was unpickled",)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((20, 5, 64, 64), np.float32), "expected uint8 .* got float32"),
        (np.zeros((20, 64, 64), np.uint8), r"expected uint8 of shape \(T, N, 64, 64\)"),
        (np.zeros((20, 5, 32, 32), np.uint8), r"got uint8 of shape \(20, 5, 32, 32\)"),
        (np.zeros((20, 0, 64, 64), np.uint8), "expected"),
        (np.array([Trap()], dtype=object), "Python objects, .* never loaded"),
    ],
)
def test_wrong_npy(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / PUBLIC, array, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as caught:
        MovingMNIST(path=str(tmp_path)).dataset("train", num_frames=3)
    assert str(tmp_path / PUBLIC) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 5, 40, 100, 5000])
def test_truncated_npy(public_folder: Path, length: int) -> None:
    path = public_folder / PUBLIC
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=f"{PUBLIC}: expected a complete npy file"):
        open_sequences(path)


def test_missing_files(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"looked for train-images.*download=True"):
            MovingMNIST(path=str(place)).dataset("train", num_frames=3)
    with pytest.raises(FileNotFoundError, match=f"looked for {PUBLIC}; give path=FOLDER"):
        MovingMNIST(path=str(tmp_path), kind="public").describe()


def test_the_kind_must_be_clear(idx_folder: Path, public_folder: Path) -> None:
    assert idx_folder == public_folder
    with pytest.raises(ValueError, match="holds both kinds, set kind"):
        MovingMNIST(path=str(idx_folder)).describe()
    assert MovingMNIST(path=str(idx_folder), kind="public").describe()["kind"] == "public"
    assert MovingMNIST(path=str(idx_folder), kind="generated").describe()["kind"] == "generated"
    with pytest.raises(ValueError, match="expected an npy file for kind='public'"):
        MovingMNIST(path=str(idx_folder / IDX_TRAIN), kind="public").describe()
    with pytest.raises(ValueError, match="kind must be 'public', 'generated' or None"):
        MovingMNIST(kind="video")  # type: ignore[arg-type]


def test_results_do_not_name_the_machine(idx_folder: Path) -> None:
    assert str(idx_folder) not in str(MovingMNIST(path=str(idx_folder)).describe())


# ---- download, without a network ----


def test_download_fetches_what_is_missing(
    idx_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def retrieve(url: str, known_hash: str, *, fname: str, path: Path, **_: Any) -> str:
        asked.append((url.rsplit("/", 1)[-1], known_hash.split(":")[0], fname))
        Path(path).mkdir(exist_ok=True)
        content = gzip.compress((idx_folder / IDX_TRAIN).read_bytes())
        (Path(path) / fname).write_bytes(content)
        return str(Path(path) / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    MovingMNIST(path=str(idx_folder), download=True).dataset("test", num_frames=2)
    assert asked == []  # both are there
    folder = tmp_path_factory.mktemp("new") / "mnist"
    source = MovingMNIST(path=str(folder), download=True)
    assert source.dataset("test", num_frames=2)[0].shape == (2, 1, 64, 64)
    assert asked == [(f"{n}.gz", "sha256", f"{n}.gz") for n in (IDX_TRAIN, IDX_TEST)]


def test_download_of_the_public_file_and_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retrieve(url: str, known_hash: str, *, fname: str, path: Path, **_: Any) -> str:
        assert known_hash == "md5:be083ec986bfe91a449d63653c411eb2"
        np.save(Path(path) / fname, np.zeros((20, 10, 64, 64), np.uint8))
        return fname

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    source = MovingMNIST(kind="public", download=True)
    assert len(source.dataset("train", num_frames=20)) == 9
    assert len(MovingMNIST().dataset("test", num_frames=20)) == 1  # found in the cache now


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(*_: Any, **__: Any) -> str:
        raise ConnectionError("name resolution failed\nand more")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(FileNotFoundError, match=r"without a network, copy .* by hand") as caught:
        MovingMNIST(path=str(tmp_path), download=True).dataset("train", num_frames=3)
    assert "\n" not in str(caught.value)
    assert f"{IDX_TRAIN}.gz" in str(caught.value)
