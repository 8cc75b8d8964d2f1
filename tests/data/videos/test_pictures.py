"""Folders of pictures as films, names in any encoding, and what is said of frame rates."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_afslvm.cli.main import main
from pyro_afslvm.data import Videos
from pyro_afslvm.data.videos.pictures import pictures_in
from tests.support.videos import scene, write_video


def write_pictures(
    folder: Path, count: int, *, size: int = 40, suffix: str = ".png", bright: int = 0
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.full((size, size), 3 * i + bright, np.uint8)
        Image.fromarray(pixels).save(folder / f"frame{i}{suffix}")
    return folder


def source(path: Path, tmp_path: Path, **settings: object) -> Videos:
    return Videos(path=str(path), size=32, cache=str(tmp_path / "store"), **settings)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_folder_of_pictures_is_a_film_in_the_order_of_numbers(
    tmp_path: Path, suffix: str
) -> None:
    folder = write_pictures(tmp_path / "clip", 60, suffix=suffix)
    films = source(folder, tmp_path, gap=2)
    x = films.dataset("train", num_frames=20)[0][:, 0, 0, 0].tolist()
    assert np.diff(x).tolist() == [3] * 19  # ten comes after nine
    assert pictures_in(folder)[10].name == f"frame10{suffix}"


def test_each_folder_is_a_film_and_pictures_beside_films_are_left_out(tmp_path: Path) -> None:
    place = tmp_path / "all"
    for name in "abc":
        write_pictures(place / name, 12)
    write_pictures(place / "films", 3)
    write_video(place / "films" / "d.avi", scene(20))
    films = source(place, tmp_path)
    assert [file.name for file in films.files()] == ["a", "b", "c", "d.avi"]
    assert len(films.prepared().files) == 2  # a, b and c are the same, used once
    assert any("the same as" in note for note in films.prepared().notes)


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", 30)
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(folder / "frame12.png")
    with pytest.raises(ValueError, match=r"frame12\.png: mixed frame sizes: it is 48x40"):
        source(folder, tmp_path).prepare()
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(folder / "frame12.png")
    with pytest.raises(ValueError, match=r"frame12\.png: its pixels have 16 bits"):
        source(folder, tmp_path).prepare()
    (folder / "frame12.png").write_bytes((folder / "frame11.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"frame12\.png: "):
        source(folder, tmp_path).prepare()


def test_pictures_have_no_time_stamps(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", 30)
    with pytest.raises(ValueError, match="no time stamps for fps: choose by stride"):
        source(folder, tmp_path, fps=5.0).prepare()


def test_names_in_another_encoding(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "films")
    os.mkdir(folder)
    made = write_video(tmp_path / "a.avi", scene(100))
    try:
        os.rename(made, os.path.join(folder, "caf\u00e9.avi".encode("latin-1")))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    films = source(tmp_path / "films", tmp_path)
    assert films.dataset("train", num_frames=5)[0].shape == (5, 1, 32, 32)
    assert films.describe()["files"] == 1


@pytest.mark.parametrize("kind", ["folder", "picture", "pattern"])
def test_names_in_another_encoding_within_folders(
    kind: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    place = tmp_path / "clips"
    for name in ("a", "b", "c"):
        write_pictures(place / name, 20, size=64, bright={"a": 0, "b": 20, "c": 40}[name])
    odd = "caf\u00e9".encode("latin-1")
    old, new = os.fsencode(place / "b"), os.path.join(os.fsencode(place), odd)
    if kind == "picture":
        old, new = os.fsencode(place / "b" / "frame3.png"), os.fsencode(place / "b") + b"/3" + odd
        new += b".png"
    try:
        os.rename(old, new)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    path = str(place / "*") if kind == "pattern" else str(place)
    printed = main(["data", "inspect", path, "--out", str(tmp_path / "sheet.png")])
    assert printed == 0, capfdbinary.readouterr().err
    assert b"3 files" in capfdbinary.readouterr().out
    films = Videos(path=path, size=32, cache=str(tmp_path / "cache"))
    assert films.describe()["files"] == 3
    (place / "c" / "frame4.png").write_bytes(b"no picture")
    if kind == "folder":
        os.rename(os.fsencode(place / "c" / "frame4.png"), new + b"/frame4.png")
    assert main(["data", "prepare", "--data", "Videos", "--data.path", path]) == 2
    (line,) = [text for text in capfdbinary.readouterr().err.splitlines() if b"error: " in text]
    assert b"frame4.png" in line
    if kind == "folder":
        assert odd in line


def test_loose_pictures_beside_films_are_noted(tmp_path: Path) -> None:
    place = tmp_path / "films"
    write_pictures(place, 3)
    write_pictures(place / "clip", 20)
    write_video(place / "a.avi", scene(40))
    films = source(place, tmp_path)
    assert [file.name for file in films.files()] == ["a.avi", "clip"]
    (note,) = [note for note in films.prepare().notes if "beside films" in note]
    assert note.startswith(f"{place}: 3 pictures beside films are left out")


def test_frame_rates_are_noted(tmp_path: Path) -> None:
    place = tmp_path / "films"
    place.mkdir()
    write_video(place / "a.avi", scene(40))
    rate, _ = source(place, tmp_path).prepare().notes
    assert rate.endswith(" frames a second")
    write_video(place / "b.avi", scene(40, height=96), fps=10)
    notes = source(place, tmp_path).prepare().notes
    assert any("frame rates of 10 to " in note and "fps=" in note for note in notes)
    resampled = source(place, tmp_path, fps=10.0).prepare().notes
    assert not any("frame rates" in note or "frames a second" in note for note in resampled)
