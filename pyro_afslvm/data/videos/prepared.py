"""Sources whose files are decoded once, into a store."""

import abc
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import Split, check_request
from pyro_afslvm.data.videos.decoding import DECODING, Framing, read_frames, read_header
from pyro_afslvm.data.videos.pictures import pictures_in
from pyro_afslvm.data.videos.store import (
    Pixels,
    StoredFrames,
    content_hash,
    default_store,
    store_frames,
    store_key,
    stored,
)

if TYPE_CHECKING:
    from pyro_afslvm.data.sequences import SequenceDataset, Values

Progress = Callable[[int, int], None]


class PreparedFile(NamedTuple):
    """A source file and its frames.

    Attributes:
        path: The source file.
        content: Hash of the source file.
        frames: What was made of it.
    """

    path: Path
    content: str
    frames: StoredFrames


class Prepared(NamedTuple):
    """Result of preparing a source.

    Attributes:
        folder: The store.
        files: The files that are used, in order.
        left_out: One line for each file that is not, with the reason.
        notes: One line for each thing a user should know.
    """

    folder: Path
    files: tuple[PreparedFile, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Part(NamedTuple):
    """A sequence: frames first..last-1 of a prepared file, or of a square window in them."""

    frames: StoredFrames
    first: int
    last: int
    unit: int | None = None  # number of what it is not independent of, beside itself
    corner: tuple[int, int] | None = None  # row and column where the window begins


class PreparedSource(SequenceSource):
    """Sequences from files that are decoded into a store before their first use.

    A file is found again by its content and the settings it was decoded with: what was
    once prepared stays prepared, wherever the file moves and whatever joins it.
    """

    framing: Framing
    skip_bad: bool
    cache: str | None
    seed: int
    random_crops: bool = False
    _prepared: Prepared | None = None

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W)."""
        return (self.framing.channels, self.framing.size, self.framing.size)

    @property
    def where(self) -> str:
        """Name of the data in messages."""
        return self.name

    @abc.abstractmethod
    def files(self) -> list[Path]:
        """The files to prepare, in order.

        Raises:
            FileNotFoundError: There are none.
        """

    @abc.abstractmethod
    def parts(self, split: Split) -> list[Part]:
        """The sequences of a split."""

    def notes(self, files: list[PreparedFile]) -> list[str]:
        """Remarks on these files that a user should read, a line each."""
        return []

    def check(self, file: PreparedFile) -> None:
        """Refuse what this source cannot use, by a ``ValueError``."""

    def keeps_truncated(self, path: Path) -> bool:
        """True to use what a damaged file holds before it breaks off."""
        return False

    def prepare(self, progress: Progress | None = None) -> Prepared:
        """Decode what is not in the store yet, going on from where another try stopped.

        Args:
            progress: Called with the bytes of source files that are done, and with all.

        Raises:
            FileNotFoundError: There are no files.
            ValueError: One is no video or damaged, unless ``skip_bad``; or none is left.
            OSError: The store cannot be written.
        """
        found = self._decode(progress)
        notes = (*found.notes, *self.notes([*found.files]))
        self._prepared = found._replace(notes=notes)
        return self._prepared

    def _decode(self, progress: Progress | None = None) -> Prepared:
        """Decode what is not in the store yet; the source's own notes are not looked for."""
        paths, folder = self.files(), self._folder()
        steps = _Steps(paths, progress)
        files: dict[str, PreparedFile] = {}
        left_out, notes = [], []
        for path in steps:
            try:
                if path.is_symlink() and not path.exists():
                    raise ValueError(f"{path}: a link to {os.readlink(path)}, which is not there")
                file = self._prepare_file(path, folder, steps)
                self.check(file)
            except ValueError as error:
                if not self.skip_bad:
                    raise ValueError(f"{error} (skip_bad leaves such files out)") from None
                left_out.append(str(error))
                continue
            if file.content in files:  # or it could be in two splits
                notes.append(f"{path}: the same as {files[file.content].path}, used once")
            files.setdefault(file.content, file)
        if not files:
            raise ValueError(f"none of {len(paths)} files can be used: {left_out[0]}")
        self._prepared = Prepared(folder, tuple(files.values()), tuple(left_out), tuple(notes))
        return self._prepared

    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split; see :meth:`SequenceSource.dataset`."""
        from pyro_afslvm.data.sequences import StoredSequences

        check_request(split, num_frames)
        parts = self.parts(split)
        return StoredSequences(
            partial(_load, parts=parts, size=self.framing.size),
            lengths=[part.last - part.first for part in parts],
            num_frames=num_frames,
            seed=self.seed,
            split=split,
            crop=partial(crop, size=self.framing.size, at_random=self.random_crops),
            where=self.where,
            units=[i if part.unit is None else part.unit for i, part in enumerate(parts)],
        )

    def prepared(self) -> Prepared:
        """Return what was prepared, preparing it now if need be.

        Warns:
            UserWarning: Files were left out.
        """
        if self._prepared is None:
            left_out = self._decode().left_out
            text = f"left out {len(left_out)} files: {'; '.join(left_out)}"
            if left_out:
                warnings.warn(text, UserWarning, stacklevel=3)
        assert self._prepared is not None
        return self._prepared

    def content(self) -> str:
        """Hash of all files that are used, whatever their names."""
        hashes = sorted(file.content for file in self.prepared().files)
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    def _folder(self) -> Path:
        return default_store() if self.cache is None else Path(self.cache).expanduser()

    def _prepare_file(self, path: Path, folder: Path, steps: "_Steps") -> PreparedFile:
        content = content_hash(path, folder=folder)
        allow_truncated = self.keeps_truncated(path)
        settings = {
            **self.framing.describe(),
            "allow_truncated": allow_truncated,
            "decoding": DECODING,
        }
        key = store_key(content, settings)
        frames = stored(folder, key)
        if frames is None:
            count = read_header(path).frames // self.framing.stride
            read = partial(read_frames, path, self.framing, allow_truncated=allow_truncated)
            frames = store_frames(
                folder,
                key,
                lambda: steps.count(read(), count),
                about={"name": path.name, "content": content, **settings},
                expected=count,
            )
        return PreparedFile(path, content, frames)


def _size(path: Path) -> int:
    files = pictures_in(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.exists())  # not of a dead link


class _Steps:
    """Progress over files of different sizes, frame by frame."""

    def __init__(self, paths: list[Path], progress: Progress | None) -> None:
        self._paths, self._progress = paths, progress
        self._sizes = [_size(path) for path in paths]
        self._now = 0

    def __iter__(self) -> Iterator[Path]:
        for i, path in enumerate(self._paths):
            self._now = i
            self._show(0.0)
            yield path
        self._show(1.0)

    def count(self, frames: Iterable[Pixels], expected: int) -> Iterator[Pixels]:
        for i, frame in enumerate(frames):
            if i % 64 == 0 and expected:
                self._show(min(i / expected, 1.0))
            yield frame

    def _show(self, share: float) -> None:
        if self._progress:
            done = sum(self._sizes[: self._now]) + share * self._sizes[self._now]
            self._progress(int(done), sum(self._sizes))


def crop(
    frames: "Values", rng: np.random.Generator | None, *, size: int, at_random: bool = False
) -> "Values":  # (T, C, H, W) -> (T, C, size, size)
    """Cut a square out of the frames: the centre, or one drawn for the whole sequence.

    Example:
        >>> crop(np.arange(16).reshape(1, 1, 4, 4), None, size=2).tolist()
        [[[[5, 6], [9, 10]]]]
    """
    free = [length - size for length in frames.shape[-2:]]
    if at_random and rng is not None:
        row, column = (int(rng.integers(n + 1)) for n in free)
    else:
        row, column = (n // 2 for n in free)
    return frames[..., row : row + size, column : column + size].copy()


def _load(i: int, first: int, last: int, *, parts: list[Part], size: int) -> Pixels:
    part = parts[i]
    frames = part.frames.read(part.first + first, part.first + last)
    if part.corner is None:
        return frames
    row, column = part.corner
    return frames[..., row : row + size, column : column + size]
