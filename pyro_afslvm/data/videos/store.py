"""A store of frames on disk: written once, whole or not at all, read lazily."""

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.videos.pictures import hash_of_all, pictures_in
from pyro_afslvm.data.videos.prefetch import ahead
from pyro_afslvm.utils.files import locked, write_atomically

if TYPE_CHECKING:
    import h5py

Pixels = NDArray[np.uint8]

FORMAT = 3  # of the store; another one is never read as this one
CHUNK = 8  # frames that are compressed together: a crop of 13 touches three chunks at most
_LEVEL = 1  # of zlib: more takes much longer and saves little


def default_store() -> Path:
    """Name the folder for prepared data where the user names none."""
    import pooch

    return Path(pooch.os_cache("pyro_afslvm")) / "prepared"


def store_key(content: str, settings: Mapping[str, object]) -> str:
    """Name what is made from this content with these settings.

    Args:
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

    Args:
        path: The HDF5 file, with ``frames`` (T, C, H, W) of uint8.
    """

    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all frames, (T, C, H, W); see :meth:`read` for errors."""
        return tuple(self._frames.shape)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    def read(self, first: int, last: int) -> Pixels:  # -> (last - first, C, H, W)
        """Read frames first..last-1 and nothing else.

        Raises:
            ValueError: The file is missing or damaged.
        """
        frames = self._frames
        try:
            return np.asarray(frames[first:last], dtype=np.uint8)
        except (OSError, RuntimeError) as error:
            raise _damaged(self.path, error) from None

    @property
    def _frames(self) -> "h5py.Dataset":
        try:
            now = self.path.stat()
        except OSError as error:
            raise _damaged(self.path, error) from None
        return _opened(str(self.path), now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=128)  # files that are open at once
def _opened(path: str, *state: int) -> "h5py.Dataset":
    """Open a file; another one that takes its place has another state, and is opened anew."""
    import h5py

    try:
        # Crops lie anywhere: a cache of chunks would cost memory for nothing.
        return h5py.File(path, "r", locking=False, rdcc_nbytes=0)["frames"]
    except (OSError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: damaged, delete this file: {' '.join(str(error).split())}")


def stored(folder: Path, key: str) -> StoredFrames | None:
    """Find what was prepared under this key, if anything was."""
    path = folder / f"{key}.h5"
    return StoredFrames(path) if path.is_file() else None


def store_frames(
    folder: Path,
    key: str,
    frames: Callable[[], Iterable[Pixels]],
    *,
    about: Mapping[str, Any],
    expected: int = 0,
) -> StoredFrames:
    """Write frames under a key unless they are there; a killed process leaves nothing usable.

    Args:
        folder: The store; made if need be.
        key: From :func:`store_key`.
        frames: Gives the frames, (C, H, W) of uint8 each and at least one; called only if
            they are not there.
        about: JSON values to keep with them.
        expected: Number of frames if known, for the message when the disk is full.

    Raises:
        OSError: They cannot be written; nothing of them is left.
    """
    found = stored(folder, key)
    if found:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as alone:
        found = stored(folder, key)  # by the process that held the lock
        if found:
            return found
        for left_behind in folder.glob("*.partial") if alone else ():  # by a killed process
            left_behind.unlink(missing_ok=True)
        return _write(folder, key, iter(frames()), about, expected)


def _write(
    folder: Path, key: str, frames: Iterator[Pixels], about: Mapping[str, Any], expected: int
) -> StoredFrames:
    partial, final = folder / f"{key}.{os.getpid()}.partial", folder / f"{key}.h5"
    head = next(frames)
    try:
        _fill(partial, head, frames, about)
        os.replace(partial, final)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(folder).free
        raise OSError(
            f"{folder}: the disk is full: {about.get('name', key)} needs up to "
            f"{head.nbytes * max(expected, CHUNK)} bytes, {free} are free"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return StoredFrames(final)


def _fill(path: Path, head: Pixels, frames: Iterator[Pixels], about: Mapping[str, Any]) -> None:
    import h5py

    # The latest format has checksums of all but the chunks, and zlib has one in each of them.
    with h5py.File(path, "w", libver="latest", locking=False) as file:
        file.attrs["about"] = json.dumps(about)
        data = file.create_dataset(
            "frames",
            shape=(0, *head.shape),
            maxshape=(None, *head.shape),
            chunks=(CHUNK, *head.shape),
            dtype=np.uint8,
            compression="gzip",
            compression_opts=_LEVEL,
        )
        with closing(ahead(_chunks(chain([head], frames)))) as chunks:
            for chunk in chunks:
                _append(data, chunk)


def _chunks(frames: Iterator[Pixels]) -> Generator[list[Pixels], None, None]:
    while chunk := list(islice(frames, CHUNK)):
        yield chunk


def _append(data: "h5py.Dataset", frames: list[Pixels]) -> None:
    """Add a chunk, of which only the last one may lack frames."""
    first = len(data)
    full = np.zeros(data.chunks, np.uint8)
    np.stack(frames, out=full[: len(frames)])
    data.resize(first + len(frames), axis=0)
    # HDF5 would compress it too, but would hold up the thread that makes the next one.
    packed = zlib.compress(full.tobytes(), _LEVEL)
    data.id.write_direct_chunk((first, *(0 for _ in full.shape[1:])), packed)


def content_hash(path: Path, *, folder: Path) -> str:
    """Hash a file by SHA-256, remembered in the store as long as its size and time stay.

    That of a folder of pictures is of all of them, in order, whatever their names.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if path.is_dir():
        return hash_of_all(content_hash(file, folder=folder) for file in pictures_in(path))
    state = path.stat()
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    memory, now = folder / "hashes" / name, f"{state.st_size} {state.st_mtime_ns}"
    with suppress(OSError, ValueError):
        known, digest = memory.read_text().rsplit(" ", 1)
        if known == now and len(digest) == 64:
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(OSError):  # a memory that cannot be kept only costs time
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, f"{now} {digest}".encode())
    return digest
