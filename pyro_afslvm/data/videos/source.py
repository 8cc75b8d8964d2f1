"""Source of your own videos: a file, a folder or a pattern."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pyro_afslvm.data.splits import SPLITS, Split
from pyro_afslvm.data.videos.decoding import Color, Framing, read_header
from pyro_afslvm.data.videos.notes import notes_on_pixels, notes_on_rates
from pyro_afslvm.data.videos.pictures import PICTURES, pictures_in
from pyro_afslvm.data.videos.prepared import Part, PreparedFile, PreparedSource
from pyro_afslvm.data.videos.tiles import share, tiles
from pyro_afslvm.utils.checks import check_minimum

SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)


class Videos(PreparedSource):
    """Sequences of your own videos, decoded once into a store.

    A folder of pictures is a video too, in the order of their names and the numbers in these;
    pictures beside video files are left out.

    From three files on each file is in one split, drawn by ``seed``. One or two files are
    split by time: the first frames of each for training, then a gap, validation, another
    gap, test. No frame is in two splits, whatever ``stride`` and ``crop`` are, and a file
    that is there twice is used once.

    Args:
        path: A file, a folder, of which every video in it or below is used, or a pattern
            such as ``"films/*.mp4"``.
        size: Height and width of a frame in pixels.
        color: ``"grey"`` or ``"rgb"``.
        shrink: Divide height and width by this number before the crop; ``None`` scales the
            shorter side to ``size``.
        squeeze: Scale to ``size`` by ``size`` instead, whatever the shape was.
        stride: Use every so many-th frame.
        fps: Frames a second, by time stamps; ``None`` takes frames as they are stored, whatever
            their rate.
        reduce_bits: Bring pixels of more than 8 bits to 8, which is refused otherwise.
        crop: Where the square lies: ``"random"`` draws a place for each training sequence;
            validation and test always take the centre. ``"tiles"`` cuts frames into squares
            that do not overlap, each a sequence and a unit of its own.
        split_by: ``"file"`` or ``"time"``; ``None`` for files from three files on. ``"place"``
            draws tiles of films that are split by time as well: no two splits share a tile, nor
            a time of one film.
        validation_part: Share of the files, or of the time, for validation.
        test_part: Share for test.
        gap: Frames left out between splits by time, counted after ``stride``.
        seed: Seed of the splits by file, and of the crops.
        skip_bad: Go on without files that are damaged, and say which.
        cache: Folder of the store; ``None`` for this package's cache.

    Raises:
        ValueError: A setting is out of range; or, on first use, a file is no video,
            damaged or too small.
        FileNotFoundError: There are no videos, on first use.

    Example:
        >>> Videos(path="films", size=32, color="rgb").frame_shape
        (3, 32, 32)
    """

    name = "videos"

    def __init__(
        self,
        *,
        path: str,
        size: int = 64,
        color: Color = "grey",
        shrink: int | None = None,
        squeeze: bool = False,
        stride: int = 1,
        fps: float | None = None,
        reduce_bits: bool = False,
        crop: Literal["centre", "random", "tiles"] = "centre",
        split_by: Literal["file", "time", "place"] | None = None,
        validation_part: float = 0.1,
        test_part: float = 0.2,
        gap: int = 16,
        seed: int = 0,
        skip_bad: bool = False,
        cache: str | None = None,
    ) -> None:
        check_minimum(gap=(gap, 0), seed=(seed, 0))
        if crop not in ("centre", "random", "tiles"):
            raise ValueError(f"crop must be 'centre', 'random' or 'tiles', got {crop!r}")
        if split_by not in (None, "file", "time", "place"):
            raise ValueError(f"split_by must be 'file', 'time', 'place' or None, got {split_by!r}")
        if crop == "tiles" and split_by is None:
            raise ValueError("crop 'tiles' needs split_by: 'file', 'time' or 'place'")
        if crop == "tiles" and shrink is None:
            raise ValueError("crop 'tiles' needs shrink, 1 for frames as large as they are")
        if split_by == "place" and crop != "tiles":
            raise ValueError("split_by 'place' needs crop 'tiles'")
        if min(validation_part, test_part) < 0 or not validation_part + test_part < 1:
            raise ValueError(
                "validation_part and test_part must not be negative and leave something for "
                f"training, got {validation_part} and {test_part}"
            )
        self.framing = Framing(
            size=size,
            color=color,
            shrink=shrink,
            squeeze=squeeze,
            stride=stride,
            fps=fps,
            reduce_bits=reduce_bits,
        )
        self.path, self.crop, self.random_crops = path, crop, crop == "random"
        self.split_by, self.validation_part, self.test_part = split_by, validation_part, test_part
        self.gap, self.seed, self.skip_bad, self.cache = gap, seed, skip_bad, cache

    @property
    def unit(self) -> str:
        """A video, or a tile of films that are split by time or place."""
        return "tile" if self.crop == "tiles" and self.split_by != "file" else "video"

    @property
    def where(self) -> str:
        """Name of the data in messages."""
        return self.path

    def files(self) -> list[Path]:
        """List the videos, sorted.

        Raises:
            FileNotFoundError: There are none.
        """
        place = Path(self.path).expanduser()
        if place.is_file():
            return [place]
        if place.is_dir():
            below = [*_below(place)]
            found = [file for file in below if file.suffix.lower() in SUFFIXES]
            found += _folders_of_pictures(below, {file.parent for file in found})
        else:
            found = [Path(name) for name in glob.glob(str(place), recursive=True)]
            found = [f for f in found if f.is_file() or not f.exists() or pictures_in(f)]
        files = sorted(f for f in found if not f.name.startswith("."))
        if not files:
            looked = f"looked for {', '.join((*SUFFIXES, *PICTURES))}"
            looked = looked if place.is_dir() else "no such file"
            raise FileNotFoundError(f"{self.path}: no videos: {looked}")
        return files

    def notes(self, files: list[PreparedFile]) -> list[str]:
        """What of the files is not as it may seem: rates, proportions, bits, channels, pictures."""
        headers = {file.path: read_header(file.path) for file in files}
        found = [] if self.framing.fps is not None else notes_on_rates(headers)
        found += notes_on_pixels(headers, self.framing.color)
        place = Path(self.path).expanduser()
        return found + (_loose_pictures(place) if place.is_dir() else [])

    def parts(self, split: Split) -> list[Part]:
        """The sequences of a split."""
        files = self.prepared().files
        if self._by_file(len(files)):
            parts = [Part(f.frames, 0, f.frames.shape[0]) for f in self._drawn(files, split)]
        else:
            parts = [part for file in files if (part := self._period(file, split))]
        if self.crop != "tiles":
            return parts
        found = tiles(parts, self.framing.size, are_units=self.split_by != "file")
        if self.split_by != "place":
            return found
        mine = self._share(len(found), split)
        return [part for i, part in enumerate(found) if i in mine]

    def describe(self) -> dict[str, object]:
        """Settings as JSON values; the files by their content, not by where they lie."""
        count = len(self.prepared().files)
        return {
            "name": self.name,
            **self.framing.describe(),
            "crop": self.crop,
            "split_by": self._split_by(count),
            "validation_part": self.validation_part,
            "test_part": self.test_part,
            "gap": self.gap,
            "seed": self.seed,
            "files": count,
            "content": self.content(),
        }

    def _split_by(self, count: int) -> str:
        return self.split_by or ("file" if count >= 3 else "time")

    def _by_file(self, count: int) -> bool:
        return self._split_by(count) == "file"

    def _drawn(self, files: tuple[PreparedFile, ...], split: Split) -> list[PreparedFile]:
        """Draw the files of a split: the same whatever the files are called."""
        mine = self._share(len(files), split)
        ranked = {file.content: rank for rank, file in enumerate(sorted(files, key=_content))}
        return [file for file in files if ranked[file.content] in mine]

    def _share(self, count: int, split: Split) -> set[int]:
        return share(count, split, (self.validation_part, self.test_part), self.seed)

    def _period(self, file: PreparedFile, split: Split) -> Part | None:
        """Find the time of a file that belongs to a split, if there is any."""
        shares = {"validation": self.validation_part, "test": self.test_part}
        gaps = self.gap * sum(share > 0 for share in shares.values())
        count = file.frames.shape[0] - gaps
        if count < 1:
            raise ValueError(
                f"{file.path}: {file.frames.shape[0]} frames are too few for splits by time with "
                f"gaps of {self.gap}"
            )
        sizes = {name: round(share * count) for name, share in shares.items()}
        first, last = 0, count - sum(sizes.values())
        for later in SPLITS[1 : SPLITS.index(split) + 1]:
            first = last + (self.gap if shares[later] else 0)
            last = first + sizes[later]
        return Part(file.frames, first, last) if last > first else None


def _loose_pictures(place: Path) -> list[str]:
    """Name folders whose pictures lie beside films, and are no film."""
    below = [*_below(place)]
    films = {file.parent for file in below if file.suffix.lower() in SUFFIXES}
    counts = {folder: len(pictures_in(folder)) for folder in sorted(films)}
    return [
        f"{folder}: {count} pictures beside films are left out; alone they would be a film"
        for folder, count in counts.items()
        if count
    ]


def _folders_of_pictures(files: list[Path], with_films: set[Path]) -> list[Path]:
    """Folders of these files that hold pictures, and no films beside them."""
    folders = {file.parent for file in files if file.suffix.lower() in PICTURES}
    return [folder for folder in folders - with_films if pictures_in(folder)]


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder, behind links too; a folder that is there twice counts once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it would have no end
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place) / name for name in files)


def _content(file: PreparedFile) -> str:
    return file.content
