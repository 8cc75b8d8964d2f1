"""A store of frames on disk: written once, whole or not at all, read lazily."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_afslvm.data.videos.shards import Pixels, ShardWriter

if TYPE_CHECKING:
    import zarr

FORMAT = 2  # of the store; another one is never read as this one
CHUNK = 16  # frames that are decompressed together: a crop of 13 touches two chunks at most
_SHARD_BYTES, _SHARD_CHUNKS = 1 << 24, 8  # in one file at most, before compression


def default_store() -> Path:
    """Folder for prepared data where the user names none."""
    import pooch

    return Path(pooch.os_cache("pyro_afslvm")) / "prepared"


def store_key(content: str, settings: Mapping[str, object]) -> str:
    """Name of what is made from this content with these settings.

    Arguments:
        content: Hash of the source file.
        settings: JSON values.

    Example:
        >>> store_key("a", {"size": 32}) == store_key("a", {"size": 64})
        False
    """
    text = json.dumps([FORMAT, content, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class StoredFrames:
    """Prepared frames of one source file; holds a path only, so that it pickles.

    Arguments:
        path: The zarr array, (T, C, H, W) of uint8.
    """

    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, C, H, W); see :meth:`read` for errors."""
        return tuple(_opened(str(self.path)).shape)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return _content_bytes(self.path)

    def read(self, first: int, last: int) -> Pixels:  # -> (last - first, C, H, W)
        """Frames first..last-1; nothing else is read.

        Raises:
            ValueError: Files of the store are missing or damaged.
        """
        array = _opened(str(self.path))
        try:
            frames: Any = array[first:last]
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self.path}: damaged, delete this folder: {error}") from None
        return np.asarray(frames, dtype=np.uint8)


@lru_cache(maxsize=2048)
def _opened(path: str) -> "zarr.Array[Any]":
    import zarr

    array = zarr.open_array(path, mode="r")
    there, written = _content_bytes(Path(path)), array.attrs.get("bytes")
    if there != written:  # zarr would read what is missing as black
        raise ValueError(f"{path}: {there} bytes of frames, not {written}: delete this folder")
    return array


def _content_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path / "c").rglob("*") if file.is_file())


def stored(folder: Path, key: str) -> StoredFrames | None:
    """What was prepared under this key, if anything was."""
    path = folder / f"{key}.zarr"
    return StoredFrames(path) if path.is_dir() else None


def store_frames(
    folder: Path,
    key: str,
    frames: Callable[[], Iterable[Pixels]],
    *,
    about: Mapping[str, Any],
    expected: int = 0,
) -> StoredFrames:
    """Write frames under a key unless they are there; a killed process leaves nothing usable.

    Arguments:
        folder: The store; made if need be.
        key: From :func:`store_key`.
        frames: Gives the frames, (C, H, W) of uint8 each and at least one; called only if
            they are not there.
        about: JSON values to keep with them.
        expected: Number of frames if known, for the message when the disk is full.

    Raises:
        OSError: They cannot be written; nothing of them is left.
        RuntimeError: zarr is not installed.
    """
    found = stored(folder, key)
    if found:
        return found
    if find_spec("zarr") is None:
        raise RuntimeError("a store needs zarr: pip install 'pyro-afslvm[zarr]'")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as alone:
        found = stored(folder, key)  # by the process that held the lock
        if found:
            return found
        for left_behind in folder.glob("*.partial") if alone else ():  # by a killed process
            shutil.rmtree(left_behind, ignore_errors=True)
        return _write(folder, key, iter(frames()), about, expected)


def _write(
    folder: Path, key: str, frames: Iterator[Pixels], about: Mapping[str, Any], expected: int
) -> StoredFrames:
    partial, final = folder / f"{key}.{os.getpid()}.partial", folder / f"{key}.zarr"
    head = next(frames)
    try:
        _fill(partial, head, frames, about)
        os.rename(partial, final)
    except OSError as error:
        if stored(folder, key):  # where locks do not work, another process was faster
            return StoredFrames(final)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(folder).free
        raise OSError(
            f"{folder}: the disk is full: {about.get('name', key)} needs up to "
            f"{head.nbytes * max(expected, CHUNK)} bytes, {free} are free"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return StoredFrames(final)


def _fill(path: Path, head: Pixels, frames: Iterator[Pixels], about: Mapping[str, Any]) -> None:
    chunks = max(1, min(_SHARD_BYTES // (CHUNK * head.nbytes), _SHARD_CHUNKS))
    writer = ShardWriter(path, head.shape, chunk=CHUNK, chunks=chunks)
    try:
        # A chunk is compressed and written while the frames of the next one are made.
        with ThreadPoolExecutor(1) as pool:
            block, written = [head, *islice(frames, CHUNK - 1)], None
            while block:
                if written:
                    written.result()
                written = pool.submit(writer.add, block)
                block = list(islice(frames, CHUNK))
            if written:
                written.result()
        writer.close(about)
    finally:
        writer.abandon()


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether no other process writes here now; the system lets go when a process dies."""
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):  # no such locks here: renaming decides who was first
            yield False
        else:
            yield True


def content_hash(path: Path, *, folder: Path) -> str:
    """SHA-256 of a file, remembered in the store as long as its size and time stay.

    Raises:
        FileNotFoundError: There is no such file.
    """
    state = path.stat()
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    memory, now = folder / "hashes" / name, f"{state.st_size} {state.st_mtime_ns}"
    with suppress(OSError, ValueError):
        known, digest = memory.read_text().rsplit(" ", 1)
        if known == now and len(digest) == 64:
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    partial = memory.with_name(f"{name}.{os.getpid()}.partial")
    with suppress(OSError):  # a memory that cannot be kept only costs time
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(f"{now} {digest}")
        os.replace(partial, memory)
    return digest
