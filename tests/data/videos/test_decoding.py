"""Videos: what is decoded of them, and what is said of broken ones."""

import struct
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pyro_afslvm.data import Videos
from pyro_afslvm.data.videos.decoding import Framing, read_frames, read_header
from tests.support.videos import bad_file, scene, times, write_clock, write_video


def decode(path: Path, *, first: int = 0, last: int | None = None, **framing: Any) -> np.ndarray:
    return np.stack(list(read_frames(path, Framing(**framing), first=first, last=last)))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_video(tmp_path / "film.avi", scene(60))


# ---- decoding ----


def test_fixture_is_what_it_says(film: Path) -> None:
    assert film.read_bytes()[:4] == b"RIFF"
    with av.open(str(film)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert read_header(film)[:3] == (60, 120, 160)


def test_grey_frames(film: Path) -> None:
    frames = decode(film, size=120)
    assert frames.shape == (60, 1, 120, 160)
    assert frames.dtype == np.uint8
    assert np.abs(frames[:, 0].astype(float) - scene(60)).mean() < 1.5


def test_grey_spans_black_to_white(tmp_path: Path) -> None:
    frames = np.zeros((4, 64, 64), np.uint8)
    frames[:, :, 32:] = 255
    seen = decode(write_video(tmp_path / "a.avi", frames), size=64)
    assert seen[..., :16].max() <= 2  # video levels 16 to 235 are stretched
    assert seen[..., 48:].min() >= 253


def test_colours(tmp_path: Path) -> None:
    frames = np.empty((4, 64, 64, 3), np.uint8)
    frames[:] = (200, 60, 30)
    path = write_video(tmp_path / "a.avi", frames)
    rgb = decode(path, size=64, color="rgb")
    assert rgb.shape == (4, 3, 64, 64)
    assert np.abs(rgb.mean(axis=(0, 2, 3)) - (200, 60, 30)).max() < 4
    luma = float(decode(path, size=64).mean())
    assert abs(luma - np.dot([0.299, 0.587, 0.114], (200, 60, 30))) < 3


@pytest.mark.parametrize(
    ("framing", "shape"),
    [
        ({"size": 30}, (30, 40)),
        ({"size": 30, "shrink": 2}, (60, 80)),
        ({"size": 40, "squeeze": True}, (40, 40)),
        ({"size": 120, "shrink": 1}, (120, 160)),
    ],
)
def test_new_pixels_are_means(
    tmp_path: Path, framing: dict[str, Any], shape: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 120, 160), dtype=np.uint8)
    path = write_video(tmp_path / "a.avi", noise, codec="ffv1")  # without loss
    blocks = noise.reshape(4, shape[0], 120 // shape[0], shape[1], 160 // shape[1])
    means = blocks.mean(axis=(2, 4))
    assert np.abs(decode(path, **framing)[:, 0] - means).max() < 0.51  # rounded, no more


def test_scale_that_is_no_whole_number(film: Path) -> None:
    frames = decode(film, size=64)
    assert frames.shape == (60, 1, 64, 85)
    assert abs(frames.mean() - scene(60).mean()) < 0.5


def test_stride_and_range(tmp_path: Path) -> None:
    path = write_clock(tmp_path / "a.avi", 40)
    assert times(decode(path, size=16, stride=3)) == list(range(0, 40, 3))
    assert times(decode(path, size=16, first=5, last=21)) == list(range(5, 21))
    assert times(decode(path, size=16, first=5, last=21, stride=4)) == [5, 9, 13, 17]


def turned(path: Path, turns: int) -> Path:
    """The same mp4 with a flag to show it after so many quarter turns to the right."""
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44  # version, dates, track, duration, layer, volume: the matrix
    assert content[at : at + 36] == struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    new = path.with_name(f"turned{turns}.mp4")
    new.write_bytes(content[:at] + struct.pack(">9i", *matrix) + content[at + 36 :])
    return new


@pytest.mark.parametrize(("turns", "color"), [(0, "grey"), (1, "rgb"), (2, "rgb"), (3, "grey")])
def test_films_of_phones_are_set_upright(tmp_path: Path, turns: int, color: str) -> None:
    plain = write_video(tmp_path / "a.mp4", scene(5)[..., ::-1] // 2 + scene(5) // 4)
    stored = decode(plain, size=60, color=color)
    frames = decode(turned(plain, turns), size=60, color=color)
    assert frames.shape[-2:] == ((60, 80), (80, 60))[turns % 2]
    assert np.array_equal(frames, np.rot90(stored, -turns, axes=(-2, -1)))
    squeezed = decode(turned(plain, turns), size=40, squeeze=True)
    assert squeezed.shape == (5, 1, 40, 40)


def test_frames_come_one_at_a_time(film: Path) -> None:
    film.write_bytes(film.read_bytes()[:-9000])
    before = threading.active_count()
    frames = read_frames(film, Framing(size=32))
    assert len(list(islice(frames, 10))) == 10  # whatever comes later
    frames.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(list(read_frames(film, Framing(size=32), last=10))) == 10
    with pytest.raises(ValueError, match="truncated"):
        list(read_frames(film, Framing(size=32)))


# ---- files that are no good ----


BAD = {
    "text": "not a video: Invalid data",
    "empty": "not a video: Invalid data",
    "zero": "holds no frames",
    "sound": "not a video: it has no picture stream",
    "truncated": r"truncated or damaged: .* after \d+ of 60 frames",
    "flipped": r"truncated or damaged: a damaged frame after \d+ of 60 frames",
    "mp4": "not a video: Invalid data",
    "sizes": "mixed frame sizes: frame 10 is 80x60 after 160x120",
    "small": "frames are 24x16 pixels: too small for size 32; --data.size 16 would do",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(tmp_path: Path, kind: str) -> None:
    path = bad_file(kind, tmp_path)
    with pytest.raises(ValueError, match=BAD[kind]) as error:
        decode(path, size=32)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lost.avi: no such file"):
        decode(tmp_path / "lost.avi", size=32)


def test_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_clock(tmp_path / "plain.avi", 4).rename(tmp_path / "http:film.avi")
    assert times(decode(path.relative_to(tmp_path), size=48)) == [0, 1, 2, 3]


def test_what_a_truncated_file_holds_can_be_kept(tmp_path: Path) -> None:
    path = bad_file("truncated", tmp_path)
    frames = list(read_frames(path, Framing(size=120), allow_truncated=True))
    assert 10 < len(frames) < 50
    whole = scene(60)[: len(frames)]
    assert np.abs(np.stack(frames)[:, 0].astype(float) - whole).mean() < 1.5  # no damaged frame


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size must be an integer of at least 4"),
        ({"color": "blue"}, "color must be 'grey' or 'rgb', got 'blue'"),
        ({"shrink": 0}, "shrink must be an integer of at least 1"),
        ({"shrink": 2, "squeeze": True}, "give shrink or squeeze, not both"),
        ({"stride": 0}, "stride must be an integer of at least 1"),
        ({"crop": "left"}, "crop must be 'centre', 'random' or 'tiles', got 'left'"),
        ({"split_by": "hand"}, "split_by must be 'file', 'time', 'place' or None"),
        ({"gap": -1}, "gap must be an integer of at least 0"),
        ({"test_part": 1.0}, "leave something for training"),
        ({"validation_part": -0.1}, "must not be negative"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Videos(path="films", **settings)
