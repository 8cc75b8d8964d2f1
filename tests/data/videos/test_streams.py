"""Odd but sound films: which stream, which proportions, which bits, which time."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from pyro_afslvm.data import Videos
from pyro_afslvm.data.videos.decoding import Framing, read_frames, read_header


def decode(path: Path, **framing: Any) -> np.ndarray:
    return np.stack(list(read_frames(path, Framing(**{"size": 32, **framing}))))


def film(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "mpeg4",
    format: str = "yuv420p",
    pts: list[int] | None = None,
    rate: int = 10,
    aspect: Fraction | None = None,
    cover: bool = False,
) -> Path:
    """Write grey frames ``(T, H, W)``, with time stamps in frames, after a cover if asked."""
    with av.open(str(path), "w") as container:
        if cover:
            picture = container.add_stream("mjpeg", rate=rate)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuvj420p"
            picture.disposition = Disposition.attached_pic
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = format
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        stream.codec_context.time_base = Fraction(1, rate)
        if cover:
            white = av.VideoFrame.from_ndarray(np.full((64, 64), 255, np.uint8), format="gray")
            container.mux(picture.encode(white))
            container.mux(picture.encode())
        for i, frame in enumerate(frames):
            shown = av.VideoFrame.from_ndarray(
                frame, format="gray16le" if frame.dtype == np.uint16 else "gray"
            )
            shown.pts, shown.time_base = (pts[i] if pts else i), Fraction(1, rate)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def levels(*values: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.stack([np.full((height, width), value, np.uint8) for value in values])


def seen(frames: np.ndarray) -> list[int]:
    """Grey level of each frame, to the nearest ten."""
    return [round(float(frame.mean()) / 10) * 10 for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_is_no_film(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"a.{suffix}", levels(10, 60, 110), cover=True)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    if suffix == "mp4":  # Matroska keeps covers as attachments, which PyAV cannot write
        assert seen(decode(path)) == [10, 60, 110]
        assert read_header(path).width == 32


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :96]
    disc = np.where((y - 48) ** 2 / 40**2 + (x - 48) ** 2 / 30**2 < 1, 255, 0).astype(np.uint8)
    stored = np.stack([disc] * 3)  # shown at 4:3 it is round
    frames = decode(film(tmp_path / "a.mp4", stored, aspect=Fraction(4, 3)), size=48)
    assert frames.shape == (3, 1, 48, 64)
    bright = frames[0, 0] > 127
    height, width = bright.any(1).sum(), bright.any(0).sum()
    assert abs(int(height) - int(width)) <= 2
    tall = decode(film(tmp_path / "b.mp4", stored, aspect=Fraction(1, 2)), size=48)
    assert tall.shape == (3, 1, 96, 48)


def test_more_than_eight_bits_are_not_left_out_in_silence(tmp_path: Path) -> None:
    deep = np.linspace(0, 1000, 32 * 32).reshape(1, 32, 32).astype(np.uint16)
    path = film(tmp_path / "a.mkv", deep, codec="ffv1", format="gray16le")
    with pytest.raises(ValueError, match=r"a\.mkv: its pixels have 16 bits.*reduce_bits true"):
        decode(path)
    assert decode(path, reduce_bits=True).max() == 4  # of 65,535 levels 1000 are 4 of 255
    ten = film(tmp_path / "b.mkv", levels(100), codec="ffv1", format="yuv420p10le")
    with pytest.raises(ValueError, match="10 bits"):
        decode(ten)


def test_a_picture_is_shown_until_the_next_one_comes(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", levels(10, 60, 110, 160), pts=[0, 1, 4, 9])
    assert seen(decode(path)) == [10, 60, 60, 60, 110, 110, 110, 110, 110, 160]
    assert seen(decode(path, stride=3)) == [10, 60, 110, 160]


def test_frames_a_second(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", levels(10, 60, 110, 160), pts=[0, 1, 4, 9])
    assert seen(decode(path)) == [10, 60, 110, 160]  # as stored, whatever the rate
    assert seen(decode(path, fps=10))[:10] == [10, 60, 60, 60, 110, 110, 110, 110, 110, 160]
    assert seen(decode(path, fps=5))[:5] == [10, 60, 110, 110, 110]
    twice = decode(film(tmp_path / "b.mp4", levels(10, 60, 110)), fps=20)
    assert seen(twice) == [10, 10, 60, 60, 110, 110]


@pytest.mark.parametrize("fps", [0, -1.0, float("inf")])
def test_rates_that_are_none(fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be above 0"):
        Framing(size=32, fps=fps)


def test_settings_that_are_not_used_are_not_part_of_the_protocol() -> None:
    assert not {"fps", "reduce_bits"} & Framing(size=32).describe().keys()
    assert Framing(size=32, fps=10).describe()["fps"] == 10


def noted(path: Path, **settings: object) -> list[str]:
    """What is noted of the films in a folder, each line without the folder."""
    settings = {"size": 32, "cache": str(path / "cache"), **settings}
    notes = Videos(path=str(path), **settings).prepare().notes
    return [note.replace(f"{path}{os.sep}", "") for note in notes]


def test_what_a_page_notes_of_films(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", levels(*range(10, 250, 10)), aspect=Fraction(4, 3))
    film(tmp_path / "b.mp4", levels(*range(20, 250, 10)), aspect=Fraction(4, 3))
    assert "a.mp4 and 1 more: pixels are 4:3, frames are brought to the proportions shown" in (
        noted(tmp_path)
    )
    deep = np.linspace(0, 1000, 20 * 32 * 32).reshape(20, 32, 32).astype(np.uint16)
    film(tmp_path / "c.mkv", deep, codec="ffv1", format="gray16le")
    found = noted(tmp_path, reduce_bits=True)
    assert "c.mkv: of 16 bits of each pixel 8 are kept" in found
    assert "a.mp4 and 1 more: stored in colours, read as grey; color=rgb keeps them" in found
    assert not any("colours" in note for note in noted(tmp_path, color="rgb", reduce_bits=True))
    assert not any("transparency" in note for note in found)
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.full((40, 40, 4), 20 * i, np.uint8)).save(folder / f"{i}.png")
    found = noted(tmp_path, reduce_bits=True)
    assert "clip: transparency is left out" in found
    assert "a.mp4 and 2 more: stored in colours, read as grey; color=rgb keeps them" in found


def test_films_of_grey_and_square_pixels_have_a_rate_alone(tmp_path: Path) -> None:
    film(tmp_path / "a.mkv", levels(*range(10, 250, 10)), codec="ffv1", format="gray")
    assert noted(tmp_path) == ["10 frames a second"]


UNEVEN = [0, 1, 2, 9, 10, 13, 14, 30, 31, 32, 40, 41, 42, 43, 44, 60, 61, 62, 63, 64]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm"])
def test_times_are_those_of_the_time_stamps_whatever_a_header_says(
    suffix: str, tmp_path: Path
) -> None:
    codec = "libvpx" if suffix == "webm" else "mpeg4"
    shown = levels(*range(10, 210, 10))
    film(tmp_path / f"a.{suffix}", shown, pts=UNEVEN, codec=codec, rate=30)
    header = read_header(tmp_path / f"a.{suffix}")
    assert header.varies
    assert header.fps == pytest.approx(30 * 19 / 64, rel=0.01)
    even = film(tmp_path / f"b.{suffix}", shown, codec=codec, rate=30)  # 33 and 34 ms in Matroska
    assert read_header(even).fps == pytest.approx(30, rel=0.01)
    assert not read_header(even).varies
    slow = film(tmp_path / f"c.{suffix}", shown, codec=codec, rate=30, pts=[*range(0, 40, 2)])
    assert read_header(slow).fps == pytest.approx(15, rel=0.01)
    assert not read_header(slow).varies


def test_pictures_that_an_avi_leaves_out_are_counted(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", levels(*range(10, 210, 10)), pts=UNEVEN)
    header = read_header(path)
    assert (header.fps, header.varies, header.repeated) == (pytest.approx(10), False, 65 - 20)
    notes = noted(tmp_path)
    assert any("a.avi: 45 pictures are left out of the file" in note for note in notes)
    assert decode(path).shape[0] == 65


def test_a_link_to_nothing_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", levels(*range(10, 250, 5)))
    (tmp_path / "b.avi").symlink_to(tmp_path / "moved.avi")
    with pytest.raises(ValueError, match=r"b\.avi: a link to .*moved\.avi, which is not there"):
        noted(tmp_path)
    films = Videos(path=str(tmp_path), size=32, cache=str(tmp_path / "cache"), skip_bad=True)
    (left_out,) = films.prepare().left_out
    assert "b.avi" in left_out
    for pattern in ("b.avi", "*.avi"):  # a name, and a pattern
        with pytest.raises(ValueError, match="a link to"):
            Videos(path=str(tmp_path / pattern), size=32, cache=str(tmp_path / "cache")).prepare()
