"""BAIR robot pushing, in the TFRecords it is distributed in."""

import hashlib
import re
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.datasets.resize import area_weights, resize
from pyro_afslvm.data.datasets.tfrecord import (
    Record,
    index_records,
    read_features,
    read_numbers,
)
from pyro_afslvm.data.fetch import BAIR_FOLDER, cache, fetch_bair
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import Split, check_request
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    from pyro_afslvm.data.sequences import SequenceDataset

Pixels = NDArray[np.uint8]

_FRAMES, _SIDE, _VALIDATION = 30, 64, 256
_NAMES = [f"{i}/image_aux1/encoded" for i in range(_FRAMES)]
_SIZES = {"action": 4, "endeffector_pos": 3}  # of the features of each frame that may be known

Known = Literal["action", "endeffector_pos"]


class Place(NamedTuple):
    """Place of a trajectory: its file, and its record there."""

    path: Path
    number: int
    record: Record


class BAIR(SequenceSource):
    """A robot arm that pushes things about in a bin, in colour, 30 frames a trajectory.

    Reads ``softmotion30_44k/{train,test}/traj_*_to_*.tfrecords`` record by record: each
    holds a ``tf.train.Example`` with raw RGB pixels of 64x64 as ``i/image_aux1/encoded``.
    The last ``validation_size`` trajectories of ``train`` are for validation. Needs the
    extra ``bair``.

    Args:
        path: The folder ``softmotion30_44k`` or the one that holds it; ``None`` for this
            package's download cache.
        size: Height and width of a frame in pixels; below 64 by area averaging.
        validation_size: Trajectories held out of ``train``; ``None`` for 256, or a tenth
            of them where there are fewer than 2,560.
        seed: Seed of random crops in time.
        context: What is known of each frame in advance: ``action``, the four numbers of the
            command that leads to the frame, which is stored with the one before (zero for the
            first of a trajectory); ``endeffector_pos``, where the arm is in the frame itself, three
            numbers, as one who plans its path knows them and a forecast does not.
        download: Fetch the data if they are not there: an archive of 32 GB.

    Raises:
        ValueError: A setting is out of range, or a file is damaged.
        FileNotFoundError: There are no such files, when they are first needed.

    Source: Ebert, Finn, Lee, Levine, *Self-Supervised Visual Planning with Temporal Skip
    Connections*, arXiv:1710.05268.

    Example:
        >>> BAIR(path="data/bair", size=32).frame_shape
        (3, 32, 32)
    """

    name = "bair"
    unit = "trajectory"

    def __init__(
        self,
        *,
        path: str | None = None,
        size: int = _SIDE,
        validation_size: int | None = None,
        seed: int = 0,
        context: list[Known] | None = None,
        download: bool = False,
    ) -> None:
        check_minimum(size=(size, 8), validation_size=(validation_size or 0, 0), seed=(seed, 0))
        if size > _SIDE:
            raise ValueError(f"size must be at most {_SIDE}, got {size}")
        self.path, self.size, self.download = path, size, download
        self.validation_size, self.seed = validation_size, seed
        self.context = [*(context or [])]
        if unknown := [name for name in self.context if name not in _SIZES]:
            raise ValueError(f"context must be of {', '.join(_SIZES)}, got {', '.join(unknown)}")
        if len({*self.context}) < len(self.context):
            raise ValueError(f"context names one twice: {', '.join(self.context)}")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W)."""
        return (3, self.size, self.size)

    @property
    def context_features(self) -> int:
        """Numbers that are known of every frame in advance."""
        return sum(_SIZES[name] for name in self.context)

    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split; see :meth:`SequenceSource.dataset`.

        Raises:
            FileNotFoundError: There are no such files.
            ValueError: A file is damaged, or the split is empty or too short.
        """
        from pyro_afslvm.data.sequences import StoredSequences

        check_request(split, num_frames)
        places = self._test if split == "test" else self._train
        if split != "test":
            border = self._border
            places = places[:border] if split == "train" else places[border:]
        return StoredSequences(
            partial(_load, places=places, size=self.size),
            lengths=[_FRAMES] * len(places),
            num_frames=num_frames,
            seed=self.seed,
            split=split,
            where=str(self._folder),
            context=partial(_known, places=places, names=self.context) if self.context else None,
            context_features=self.context_features,
        )

    def describe(self) -> dict[str, object]:
        """Settings as JSON values; the data by a hash of their records' checksums."""
        records = [place.record for place in [*self._train, *self._test]]
        text = " ".join(f"{record.length}:{record.crc}" for record in records)
        return {
            "name": self.name,
            "content": hashlib.sha256(text.encode()).hexdigest()[:16],
            "size": self.size,
            "train_size": self._border,
            "validation_size": len(self._train) - self._border,
            "test_size": len(self._test),
            "seed": self.seed,
            **({"context": self.context} if self.context else {}),
        }

    @property
    def _border(self) -> int:
        count, held = len(self._train), self.validation_size
        if held is None:
            held = min(_VALIDATION, count // 10)
        if held > count:
            raise ValueError(
                f"validation_size is {held}, but {self._folder / 'train'} holds {count} "
                "trajectories"
            )
        return count - held

    @cached_property
    def _train(self) -> list[Place]:
        return _places(self._folder / "train")

    @cached_property
    def _test(self) -> list[Place]:
        return _places(self._folder / "test")

    @cached_property
    def _folder(self) -> Path:
        given = cache() if self.path is None else Path(self.path).expanduser()
        for folder in (given, given / BAIR_FOLDER):
            if (folder / "train").is_dir() or (folder / "test").is_dir():
                return folder
        if self.download:
            return fetch_bair(given)
        raise FileNotFoundError(
            f"{given}: looked for {BAIR_FOLDER}/train and test; give path=FOLDER, or "
            "download=True to fetch it"
        )


def _places(folder: Path) -> list[Place]:
    """Index all records of a folder, in the order of their trajectories' numbers."""
    numbered = {}
    for path in folder.glob("traj_*.tfrecords"):
        if found := re.fullmatch(r"traj_(\d+)_to_(\d+)", path.stem):
            numbered[int(found[1])] = path
    if not numbered:
        raise FileNotFoundError(f"{folder}: holds no files traj_*_to_*.tfrecords")
    return [
        Place(path, number, record)
        for _, path in sorted(numbered.items())
        for number, record in enumerate(index_records(path))
    ]


def _load(i: int, first: int, last: int, *, places: list[Place], size: int) -> Pixels:
    place = places[i]
    encoded = read_features(place.path, place.record, _NAMES[first:last], number=place.number)
    for name, pixels in zip(_NAMES[first:last], encoded, strict=True):
        if len(pixels) != 3 * _SIDE**2:
            raise ValueError(
                f"{place.path}: record {place.number}: feature {name!r} has {len(pixels)} bytes, "
                f"expected raw RGB of {_SIDE}x{_SIDE}"
            )
    frames = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    frames = np.moveaxis(frames.reshape(-1, _SIDE, _SIDE, 3), -1, 1)  # (T, C, H, W)
    if size == _SIDE:
        return np.array(frames)
    return resize(frames, area_weights(_SIDE, size))


def _known(
    i: int, first: int, last: int, *, places: list[Place], names: list[Known]
) -> NDArray[np.float32]:  # -> (T, context_features)
    place = places[i]
    # a command is stored with the frame at which it is given, and shows in the next
    late = {name: int(name == "action") for name in names}
    times = {name: range(max(first - late[name], 0), last - late[name]) for name in names}
    sizes = {f"{t}/{name}": _SIZES[name] for name in names for t in times[name]}
    stored = read_numbers(place.path, place.record, sizes, number=place.number)
    columns = []
    for name in names:
        values = np.zeros((last - first, _SIZES[name]), np.float32)
        for t in times[name]:
            values[t + late[name] - first] = stored[f"{t}/{name}"]
        columns.append(values)
    return np.concatenate(columns, 1)
