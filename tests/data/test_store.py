"""The store of frames: whole or not there, whatever happens while it is written."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyro_afslvm.data import EmptySplitError, ShortSplitError, StoredSequences
from pyro_afslvm.data.videos.prefetch import ahead
from pyro_afslvm.data.videos.shards import ShardWriter
from pyro_afslvm.data.videos.store import (
    StoredFrames,
    content_hash,
    default_store,
    store_frames,
    store_key,
    stored,
)
from tests.support.processes import run_python, start_python


def numbered(count: int, shape: tuple[int, ...] = (1, 6, 8)) -> np.ndarray:
    """Frames that are different, and do not compress away."""
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def put(folder: Path, frames: np.ndarray, key: str = "key", **options: Any) -> StoredFrames:
    return store_frames(folder, key, lambda: iter(frames), about={"name": "film.avi"}, **options)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- what goes in comes out ----


@pytest.mark.parametrize("count", [1, 15, 16, 17, 128, 129, 300])
def test_round_trip(tmp_path: Path, count: int) -> None:
    frames = numbered(count)
    made = put(tmp_path, frames)
    assert made.shape == (count, 1, 6, 8)
    assert np.array_equal(made.read(0, count), frames)
    for first in range(0, count, 13):
        assert np.array_equal(made.read(first, first + 13), frames[first : first + 13])
    assert left(tmp_path) == [".lock", "key.zarr"]


def test_big_frames_make_small_files(tmp_path: Path) -> None:
    frames = numbered(40, (3, 700, 800))  # 16 of them are more than a file's worth
    made = put(tmp_path, frames)
    assert np.array_equal(made.read(30, 34), frames[30:34])
    assert len([f for f in made.path.rglob("*") if f.is_file()]) == 4  # and the header


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    put(tmp_path, numbered(5))
    again = store_frames(tmp_path, "key", lambda: pytest.fail("made again"), about={})
    assert again.shape[0] == 5


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    frames = numbered(300)
    made = put(tmp_path, frames)
    assert made.shape[0] == 300
    shutil.rmtree(made.path / "c" / "1")  # frames 128 to 255
    assert np.array_equal(made.read(100, 128), frames[100:128])
    assert np.array_equal(made.read(256, 269), frames[256:269])


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damaged_store_is_not_read_as_black(tmp_path: Path, damage: str) -> None:
    made = put(tmp_path, np.repeat(numbered(1, (1, 64, 64)), 300, axis=0))
    part = made.path / "c" / "1" / "0" / "0" / "0"
    content = bytearray(part.read_bytes())
    content[900] ^= 1
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(content if damage == "flipped" else content[:-50])
    with pytest.raises(ValueError, match=rf"{made.path}: .*delete this folder") as error:
        made.read(128, 256)
    assert "\n" not in str(error.value)


def test_black_frames_are_not_missing(tmp_path: Path) -> None:
    black = np.zeros((300, 1, 6, 8), np.uint8)
    assert not put(tmp_path, black).read(0, 300).any()


def test_size_on_disk_is_below_the_pixels_where_little_moves(tmp_path: Path) -> None:
    still = np.repeat(numbered(1, (1, 64, 64)), 64, axis=0)
    assert 0 < put(tmp_path, still).nbytes < still.nbytes / 8


def test_stored_frames_travel_without_their_pixels(tmp_path: Path) -> None:
    made = put(tmp_path, numbered(200))
    made.read(0, 1)
    copy = pickle.loads(pickle.dumps(made))
    assert len(pickle.dumps(made)) < 500
    assert np.array_equal(copy.read(3, 9), made.read(3, 9))


def test_workers_read_what_the_main_process_reads(tmp_path: Path) -> None:
    made = put(tmp_path, numbered(64))
    dataset = StoredSequences(Load(made), lengths=[64], num_frames=8, seed=0, split="train")
    loaded = torch.cat(list(DataLoader(dataset, batch_size=2, num_workers=2, timeout=60)))
    assert torch.equal(loaded, torch.stack(list(dataset)))
    assert len(loaded) == 8


class Load:
    def __init__(self, frames: StoredFrames) -> None:
        self.frames = frames

    def __call__(self, i: int, first: int, last: int) -> np.ndarray:
        return self.frames.read(first, last)


def test_keys_depend_on_content_and_settings() -> None:
    keys = {store_key(c, {"size": s}) for c in ("a", "b") for s in (32, 64)}
    assert len(keys) == 4
    assert store_key("a", {"x": 1, "y": 2}) == store_key("a", {"y": 2, "x": 1})


def test_default_store_lies_next_to_the_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda project: Path("/caches") / project)
    assert default_store() == Path("/caches/pyro_afslvm/prepared")


# ---- hashes ----


def test_hash_is_of_the_content_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "film.avi", tmp_path / "store"
    file.write_bytes(b"one")
    first = content_hash(file, folder=folder)
    assert first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert content_hash(file, folder=folder) == first
    monkeypatch.undo()
    file.write_bytes(b"more")
    assert content_hash(file, folder=folder) != first


def test_damaged_memory_of_hashes_is_not_believed(tmp_path: Path) -> None:
    file, folder = tmp_path / "film.avi", tmp_path / "store"
    file.write_bytes(b"one")
    right = content_hash(file, folder=folder)
    for content in ("", "x", "\0" * 90, right):
        (memory,) = (folder / "hashes").iterdir()
        memory.write_text(content)
        assert content_hash(file, folder=folder) == right


# ---- what goes wrong while it is written ----


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from numbered(200)
        raise ValueError("the film breaks")

    with pytest.raises(ValueError, match="the film breaks"):
        store_frames(tmp_path, "key", broken, about={})
    assert left(tmp_path) == [".lock"]
    assert put(tmp_path, numbered(3)).shape[0] == 3


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "c/0/0/0/0")


@pytest.mark.parametrize("after", [0, 1, 9, "all"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int | str) -> None:
    real, calls = ShardWriter.add, []

    def add(self: ShardWriter, frames: Any) -> None:
        calls.append(len(frames))
        real(self, frames) if len(calls) != after + 1 else full()

    if after == "all":  # but the header
        monkeypatch.setattr("zarr.storage.LocalStore.set", full)
    else:
        monkeypatch.setattr(ShardWriter, "add", add)
    with pytest.raises(OSError, match=r"the disk is full: film.avi needs up to \d+ bytes") as error:
        put(tmp_path, numbered(300), expected=300)
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert f"up to {300 * 48} bytes, " in str(error.value)
    assert "\n" not in str(error.value)
    assert left(tmp_path) == [".lock"]
    monkeypatch.undo()
    assert put(tmp_path, numbered(300)).shape[0] == 300


FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
from pyro_afslvm.data.videos.store import store_frames
rng = np.random.default_rng(0)
frames = lambda: (rng.integers(0, 256, (1, 64, 64), dtype=np.uint8) for _ in range(300))
folder = Path(sys.argv[1])
store_frames(folder, "small", lambda: iter(rng.integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)),
             about={})
try:
    store_frames(folder, "key", frames, about={"name": "film.avi"}, expected=300)
except OSError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()))
"""


def test_disk_that_is_really_full(tmp_path: Path) -> None:
    inside = f'mount -t tmpfs -o size=400k tmpfs "{tmp_path}" && exec "$@"'
    alone = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh")
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("cannot mount a small disk here")
    with start_python("-c", FULL_DISK, str(tmp_path), before=alone) as program:
        message, listing = program.end().stdout.splitlines()
    assert message.startswith(f"{tmp_path}: the disk is full: film.avi needs up to 1228800 bytes")
    assert listing == "['.lock', 'small.zarr']"


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from pyro_afslvm.data.videos.store import store_frames
def frames():
    for i in range(400):
        if i == 390:
            while not list(Path(sys.argv[1]).glob("*.partial/c/0/*/*/*")):
                pass  # until the first part of it is on disk
            os.kill(os.getpid(), signal.SIGKILL)
        yield np.full((1, 8, 8), i % 256, dtype=np.uint8)
store_frames(Path(sys.argv[1]), "key", frames, about={})
"""


def test_kill_leaves_no_half_store(tmp_path: Path) -> None:
    run_python("-c", KILLED, str(tmp_path), expect=-signal.SIGKILL)
    (partial,) = tmp_path.glob("*.partial")
    assert list(partial.rglob("c/0/*/*/*"))
    assert stored(tmp_path, "key") is None
    frames = numbered(20)
    assert np.array_equal(put(tmp_path, frames).read(0, 20), frames)
    assert left(tmp_path) == [".lock", "key.zarr"]


TWO = """
import os, sys, time
from pathlib import Path
import numpy as np
from pyro_afslvm.data.videos.store import store_frames
folder = Path(sys.argv[1])
def frames():
    (folder / f"made by {os.getpid()}").touch()
    for i in range(200):
        time.sleep(0.001)
        yield np.full((1, 4, 4), i, dtype=np.uint8)
(folder / f"ready {os.getpid()}").touch()
while len(list(folder.glob("ready *"))) < 2:
    time.sleep(0.001)
made = store_frames(folder, "key", frames, about={})
print(made.read(0, 200).sum())
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    command = ["-c", TWO, str(tmp_path)]
    with start_python(*command) as one, start_python(*command) as other:
        for program in (one, other):
            assert program.end().stdout.strip() == str(sum(range(200)) * 16)
    assert len(list(tmp_path.glob("made by *"))) == 1
    assert len(list(tmp_path.glob("*.zarr"))) == 1
    assert not list(tmp_path.glob("*.partial"))


def test_two_processes_where_locks_do_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    slow, fast = numbered(30), numbered(31)

    def overtaken() -> Iterator[np.ndarray]:
        yield from slow
        monkeypatch.setattr("os.getpid", lambda: 1)  # the other process
        put(tmp_path, fast)
        monkeypatch.undo()

    made = store_frames(tmp_path, "key", overtaken, about={})
    assert np.array_equal(made.read(0, 31), fast)
    assert left(tmp_path) == [".lock", "key.zarr"]


# ---- work ahead ----


def test_ahead_keeps_order_and_errors() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    made = ahead(items())  # type: ignore[arg-type]
    assert [next(made) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="no more"):
        next(made)


def test_ahead_stops_when_it_is_left() -> None:
    before, closed = threading.active_count(), []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    made = ahead(items(), depth=3)  # type: ignore[arg-type]
    assert [next(made) for _ in range(4)] == [0, 1, 2, 3]
    made.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert threading.active_count() == before


# ---- sequences of different lengths ----

LENGTHS = [10, 3, 7, 4]


def where(i: int, first: int, last: int) -> np.ndarray:
    """Frames that say which they are: (sequence, frame)."""
    assert 0 <= first < last <= LENGTHS[i]
    return np.array([[i, t] for t in range(first, last)], dtype=np.uint8)


def sequences(split: Any, num_frames: int = 4, **options: Any) -> StoredSequences:
    return StoredSequences(
        where, lengths=LENGTHS, num_frames=num_frames, seed=3, split=split, **options
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_windows_of_validation_and_test(split: Any) -> None:
    data = sequences(split)
    assert [x[0].tolist() for x in data] == [[0, 0], [0, 4], [2, 0], [3, 0]]
    assert torch.equal(data[1], data[1 + 5 * len(data)])
    assert len(sequences(split, num_frames=3)) == 3 + 1 + 2 + 1


def test_training_windows_start_anywhere_in_their_sequence() -> None:
    data = sequences("train")
    assert len(data) == 4
    starts: dict[int, set[int]] = {0: set(), 2: set(), 3: set()}
    for k in range(4 * 60):
        x = data[k]
        i, first = x[0].tolist()
        assert i == [0, 0, 2, 3][k % 4]
        assert x.tolist() == [[i, first + t] for t in range(4)]
        starts[i].add(first)
    assert starts == {0: set(range(7)), 2: set(range(4)), 3: {0}}
    assert torch.equal(sequences("train")[77], data[77])


def test_lengths_are_those_of_the_store() -> None:
    data = sequences("test")
    assert data.lengths.tolist() == [10, 3, 7, 4]
    data.lengths[:] = 0
    assert data.lengths.tolist() == [10, 3, 7, 4]


def test_at_most_so_many_windows() -> None:
    assert [x[0].tolist() for x in sequences("test", max_windows=1)] == [[0, 0], [2, 0], [3, 0]]


def test_sequences_that_are_all_too_short() -> None:
    for split in ("train", "test"):
        with pytest.raises(ShortSplitError, match=r"num_frames is 11, but .* have 10 frames"):
            sequences(split, num_frames=11)
    with pytest.raises(EmptySplitError, match="the test split is empty"):
        StoredSequences(where, lengths=[], num_frames=2, seed=0, split="test")


def test_crop_gets_random_numbers_in_training_only() -> None:
    def crop(frames: Any, rng: Any) -> Any:
        return frames if rng is None else np.full_like(frames, rng.integers(100))

    assert sequences("test", crop=crop)[1][0].tolist() == [0, 4]
    train = sequences("train", crop=crop)
    values = [int(train[k][0, 0]) for k in range(20)]
    assert len(set(values)) > 5
    assert values == [int(train[k][0, 0]) for k in range(20)]


def test_float_vectors() -> None:
    stored = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    data = StoredSequences(
        lambda i, a, b: stored[a:b].copy(), lengths=[9], num_frames=4, seed=0, split="test"
    )
    assert data[1].dtype == torch.float32
    assert torch.equal(data[1], torch.from_numpy(stored[4:8]))
