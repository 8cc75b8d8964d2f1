"""KTH Actions, as distributed: six actions by 25 persons."""

import re
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pyro_afslvm.data.fetch import cache as download_cache
from pyro_afslvm.data.fetch import fetch_kth
from pyro_afslvm.data.splits import Split
from pyro_afslvm.data.videos.decoding import Framing
from pyro_afslvm.data.videos.prepared import Part, PreparedFile, PreparedSource
from pyro_afslvm.utils.checks import check_minimum

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
SUBJECTS: dict[Split, tuple[int, ...]] = {
    "train": (11, 12, 13, 14, 15, 16, 17, 18),
    "validation": (19, 20, 21, 23, 24, 25, 1, 4),
    "test": (22, 2, 3, 5, 6, 7, 8, 9, 10),
}
SEQUENCES = "00sequences.txt"
MISSING = "person13_handclapping_d3"  # there is no such video in the release
TRUNCATED = "person01_boxing_d4"  # of 370 frames 304 can be decoded

_LINE = re.compile(r"\s*(person(\d\d)_([a-z]+)_d\d)\s+(?:frames\s+)?(.*?)\s*")
_RANGE = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")


class Recording(NamedTuple):
    """A line of ``00sequences.txt``: a video and its sequences.

    Attributes:
        name: Such as ``person01_boxing_d1``.
        subject: Number of the person.
        action: One of :data:`ACTIONS`.
        ranges: First and last frame of each sequence, counted from 0, without the last.
    """

    name: str
    subject: int
    action: str
    ranges: tuple[tuple[int, int], ...]


class KTH(PreparedSource):
    """Grey videos of 25 persons who do six actions, as KTH Actions is distributed.

    Reads ``<action>/personNN_<action>_dK_uncomp.avi`` and ``00sequences.txt``.

    Each range of frames in ``00sequences.txt`` is a sequence. Subjects 11 to 18 are for
    training; 19, 20, 21, 23, 24, 25, 1 and 4 for validation; 22, 2, 3 and 5 to 10 for test.
    Of the release, one video is missing and another one breaks off; both are known, and
    reported.

    Args:
        path: The folder with ``00sequences.txt`` and a folder for each action; ``None`` for
            this package's download cache.
        size: Height and width of a frame in pixels.
        squeeze: Scale 160x120 pixels to a square, as the paper does; ``False`` keeps the
            aspect and crops the centre.
        actions: Use these only; ``None`` for all six.
        seed: Seed of random crops in time.
        skip_bad: Go on without files that are damaged or missing, and say which.
        cache: Folder of the store; ``None`` for this package's cache.
        download: Fetch what is not there, 1 GB.

    Raises:
        ValueError: A setting is out of range; or, on first use, a file is damaged.
        FileNotFoundError: A file is missing, on first use.

    Source: Schuldt, Laptev, Caputo, *Recognizing Human Actions: A Local SVM Approach*,
    ICPR 2004.

    Example:
        >>> KTH(path="data/kth").frame_shape
        (1, 64, 64)
    """

    name = "kth"
    unit = "person"

    def __init__(
        self,
        *,
        path: str | None = None,
        size: int = 64,
        squeeze: bool = True,
        actions: list[str] | None = None,
        seed: int = 0,
        skip_bad: bool = False,
        cache: str | None = None,
        download: bool = False,
    ) -> None:
        check_minimum(seed=(seed, 0))
        for action in actions or ():
            if action not in ACTIONS:
                raise ValueError(f"unknown action {action!r}: expected {', '.join(ACTIONS)}")
        self.framing = Framing(size=size, squeeze=squeeze)
        self.path, self.seed, self.skip_bad, self.cache = path, seed, skip_bad, cache
        self.download = download
        self.actions = ACTIONS if actions is None else tuple(sorted(set(actions)))

    @cached_property
    def root(self) -> Path:
        """The folder with the files, fetching them if asked to."""
        root = download_cache() / "kth" if self.path is None else Path(self.path).expanduser()
        if self.download:
            fetch_kth(root)
        return root

    @cached_property
    def recordings(self) -> dict[str, Recording]:
        """The videos that ``00sequences.txt`` lists with their ranges, by name."""
        listed = read_sequences(self.root / SEQUENCES)
        return {r.name: r for r in listed if r.action in self.actions and r.ranges}

    @property
    def where(self) -> str:
        """Name of the data in messages."""
        return str(self.root)

    def files(self) -> list[Path]:
        """The videos, in the order of ``00sequences.txt``.

        Raises:
            FileNotFoundError: One is missing, unless ``skip_bad``.
        """
        paths = [self._file(recording) for recording in self.recordings.values()]
        there = [path for path in paths if path.is_file()]
        lost = sorted(set(paths) - set(there))
        if lost and (not self.skip_bad or not there):
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise FileNotFoundError(
                f"{lost[0]}{more}: listed in {SEQUENCES} but not there (set actions, or skip_bad)"
            )
        return there

    def parts(self, split: Split) -> list[Part]:
        """The sequences of a split: ranges of frames, cut where a video ends."""
        recordings, found = self.recordings, []
        for file in self.prepared().files:
            recording = recordings[_name(file.path)]
            if recording.subject in SUBJECTS[split]:
                end = file.frames.shape[0]
                person = recording.subject
                ranges = [(a, min(b, end)) for a, b in recording.ranges if a < end]
                found += [Part(file.frames, a, b, person) for a, b in ranges]
        return found

    def check(self, file: PreparedFile) -> None:
        """Refuse a video that ends long before its last range."""
        end, last = file.frames.shape[0], self._last(file)
        if end < last - max(2, last // 100) and not self.keeps_truncated(file.path):
            raise ValueError(f"{file.path}: {last} frames in {SEQUENCES}, but it has {end}")

    def keeps_truncated(self, path: Path) -> bool:
        """True for the video that the release itself has truncated."""
        return _name(path) == TRUNCATED

    def notes(self, files: list[PreparedFile]) -> list[str]:
        """Videos that are missing, and videos that end before their last range."""
        paths = [self._file(recording) for recording in self.recordings.values()]
        lost = [f"{_name(p)}: not there, left out" for p in paths if not p.is_file()]
        if "handclapping" in self.actions:
            lost.append(f"{MISSING}: missing from the release of KTH Actions")
        return lost + [
            f"{_name(file.path)}: ends after {file.frames.shape[0]} of {self._last(file)} frames"
            for file in files
            if file.frames.shape[0] < self._last(file)
        ]

    def describe(self) -> dict[str, object]:
        """Settings as JSON values; the files by their content, not by where they lie."""
        return {
            "name": self.name,
            **self.framing.describe(),
            "actions": list(self.actions),
            "seed": self.seed,
            "files": len(self.prepared().files),
            "content": self.content(),
            "ranges": sha256(repr(sorted(self.recordings.values())).encode()).hexdigest(),
        }

    def _file(self, recording: Recording) -> Path:
        return self.root / recording.action / f"{recording.name}_uncomp.avi"

    def _last(self, file: PreparedFile) -> int:
        return max(last for _, last in self.recordings[_name(file.path)].ranges)


def read_sequences(path: Path) -> list[Recording]:
    """Read the lines of ``00sequences.txt`` that name a video; a missing one has no ranges.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is damaged, or none names a video.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file, which comes with KTH Actions; give path=FOLDER, or "
            "download=True to fetch it"
        ) from None
    lines = ((n, _LINE.fullmatch(line)) for n, line in enumerate(text.splitlines(), 1))
    found = [_recording(path, number, line) for number, line in lines if line]
    if not found:
        raise ValueError(f"{path}: expected lines such as 'person01_boxing_d1 frames 1-95, 96-185'")
    return found


def _recording(path: Path, number: int, line: re.Match[str]) -> Recording:
    name, subject, action, listed = line.groups()
    if "missing" in listed:
        return Recording(name, int(subject), action, ())
    ranges = []
    for text in listed.rstrip(",").split(","):
        pair = _RANGE.fullmatch(text)
        first, last = (int(n) for n in pair.groups()) if pair else (1, 0)
        if not 1 <= first <= last:
            raise ValueError(f"{path}: line {number}: expected ranges of frames, got {text!r}")
        ranges.append((first - 1, last))
    return Recording(name, int(subject), action, tuple(ranges))


def _name(path: Path) -> str:
    return path.name.removesuffix("_uncomp.avi")
