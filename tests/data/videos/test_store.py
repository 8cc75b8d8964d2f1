"""The store of frames: whole or not there, whatever happens while it is written."""

import errno
import os
import pickle
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyro_afslvm.data import StoredSequences
from pyro_afslvm.data.videos import store
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


@pytest.mark.parametrize("count", [1, 7, 8, 9, 300])
def test_round_trip(tmp_path: Path, count: int) -> None:
    frames = numbered(count)
    made = put(tmp_path, frames)
    assert made.shape == (count, 1, 6, 8)
    assert np.array_equal(made.read(0, count), frames)
    for first in range(0, count, 13):
        assert np.array_equal(made.read(first, first + 13), frames[first : first + 13])
    assert left(tmp_path) == [".lock", "key.h5"]


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    put(tmp_path, numbered(5))
    again = store_frames(tmp_path, "key", lambda: pytest.fail("made again"), about={})
    assert again.shape[0] == 5


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    frames = numbered(64)
    made = put(tmp_path, frames)
    content = bytearray(made.path.read_bytes())
    content[content.index(frames[16].tobytes())] ^= 1  # as it is: it does not compress
    made.path.write_bytes(content)
    assert np.array_equal(made.read(0, 16), frames[:16])
    assert np.array_equal(made.read(24, 64), frames[24:])
    with pytest.raises(ValueError, match="damaged"):
        made.read(15, 17)


def test_no_flipped_bit_is_read_as_something_else(tmp_path: Path) -> None:
    frames = numbered(40)
    made = put(tmp_path, frames)
    whole, said = made.path.read_bytes(), []
    for place in range(0, len(whole), 11):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        copy = StoredFrames(tmp_path / f"{place}.h5")
        copy.path.write_bytes(content)
        try:
            assert np.array_equal(copy.read(0, 40), frames)  # a byte that is of no use
        except ValueError as error:
            said.append(str(error).removeprefix(str(copy.path)))
        copy.path.unlink()
    assert len(said) > frames.nbytes / 11
    assert all(line.startswith(": damaged, delete this file: ") for line in said)
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize("length", [0, 10, 4000, -1])
def test_a_file_that_is_cut_short(tmp_path: Path, length: int) -> None:
    made = put(tmp_path, numbered(40))
    made.path.write_bytes(made.path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"key\.h5: damaged, delete this file"):
        made.shape  # noqa: B018


def test_a_damaged_file_is_prepared_again_in_the_same_process(tmp_path: Path) -> None:
    frames = numbered(40)
    made = put(tmp_path, frames)
    whole = made.path.read_bytes()
    damaged = bytearray(whole)
    damaged[damaged.index(frames[16].tobytes())] ^= 1
    made.path.write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged, delete this file"):
        made.read(0, 40)
    made.path.unlink()
    with pytest.raises(ValueError, match=r"key\.h5: damaged"):
        made.read(0, 8)
    assert np.array_equal(put(tmp_path, frames).read(0, 40), frames)
    assert np.array_equal(made.read(0, 40), frames)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    made = put(tmp_path, numbered(40))
    other = put(tmp_path, numbered(41), key="other")
    assert made.shape[0] == 40
    os.replace(other.path, made.path)
    assert np.array_equal(made.read(0, 41), numbered(41))
    assert made.shape[0] == 41


def test_a_fork_and_threads_read_a_file_that_was_replaced(tmp_path: Path) -> None:
    made = put(tmp_path, numbered(64))
    made.read(0, 8)
    os.replace(put(tmp_path, numbered(65), key="other").path, made.path)
    frames, dataset = (
        numbered(65),
        StoredSequences(Load(made), lengths=[65], num_frames=8, seed=0, split="train"),
    )
    loaded = DataLoader(dataset, num_workers=2, timeout=60, multiprocessing_context="fork")
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda i: made.read(i % 57, i % 57 + 8), range(200))]
    assert all(np.array_equal(x, frames[i % 57 : i % 57 + 8]) for i, x in enumerate(found))
    assert torch.equal(torch.cat(list(loaded)), torch.stack(list(dataset)))


def test_size_on_disk_is_below_the_pixels_where_little_moves(tmp_path: Path) -> None:
    still = np.repeat(numbered(1, (1, 64, 64)), 64, axis=0)
    assert 0 < put(tmp_path, still).nbytes < still.nbytes / 6


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
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "key")


@pytest.mark.parametrize("after", [0, 9, "all"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int | str) -> None:
    real, calls = store._append, []

    def append(data: Any, frames: Any) -> None:
        calls.append(len(frames))
        real(data, frames) if len(calls) != after + 1 else full()

    if after == "all":
        monkeypatch.setattr("os.replace", full)
    else:
        monkeypatch.setattr(store, "_append", append)
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
    assert listing == "['.lock', 'small.h5']"


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from pyro_afslvm.data.videos.store import store_frames
def frames():
    for i in range(400):
        if i == 390:
            while not sum(path.stat().st_size for path in Path(sys.argv[1]).glob("*.partial")):
                pass  # until the first part of it is on disk
            os.kill(os.getpid(), signal.SIGKILL)
        yield np.full((1, 8, 8), i % 256, dtype=np.uint8)
store_frames(Path(sys.argv[1]), "key", frames, about={})
"""


def test_kill_leaves_no_half_store(tmp_path: Path) -> None:
    run_python("-c", KILLED, str(tmp_path), expect=-signal.SIGKILL)
    (partial,) = tmp_path.glob("*.partial")
    assert partial.stat().st_size
    assert stored(tmp_path, "key") is None
    frames = numbered(20)
    assert np.array_equal(put(tmp_path, frames).read(0, 20), frames)
    assert left(tmp_path) == [".lock", "key.h5"]


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
    assert len(list(tmp_path.glob("*.h5"))) == 1
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
    assert np.array_equal(made.read(0, 31), slow)  # whole, whoever was last
    assert left(tmp_path) == [".lock", "key.h5"]
