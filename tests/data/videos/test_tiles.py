"""Frames cut into tiles: none overlap, no split shares a time or a place, each is a unit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_afslvm.data import Videos
from tests.support.videos import write_video

SPLITS: tuple[Any, ...] = ("train", "validation", "test")
FRAMES, SIDE = 60, 16


def write_places(path: Path, count: int = FRAMES) -> Path:
    """A film without loss, 3 by 4 flat squares in a dark frame that tell place, or time."""
    squares = np.arange(12).reshape(3, 4).repeat(SIDE, 0).repeat(SIDE, 1)
    inside = np.stack(
        [np.where(np.arange(64) % 2, 100 + t, 20 + 5 * squares) for t in range(count)]
    )
    return write_video(
        path, np.pad(inside.astype(np.uint8), ((0, 0), (2, 2), (0, 0))), codec="ffv1"
    )


def films(path: Path, **settings: Any) -> Videos:
    settings = {"size": SIDE, "shrink": 1, "crop": "tiles", "gap": 4, **settings}
    return Videos(path=str(path), cache=str(path.parent / "store"), **settings)


def seen(source: Videos, split: Any) -> set[tuple[int, int]]:
    """Place and time of each frame of a split."""
    data = source.dataset(split, num_frames=4)
    found = set()
    for k in range(len(data) * (10 if split == "train" else 1)):
        x = np.asarray(data[k])[:, 0]
        for column in (0, 1):  # nothing of a tile beside it
            assert (x[:, :, column::2] == x[:, :1, column : column + 1]).all()
        found |= {(int(frame[0, 0]) // 5 - 4, int(frame[0, 1]) - 100) for frame in x}
    return found


def test_by_time_every_tile_is_in_every_split(tmp_path: Path) -> None:
    source = films(write_places(tmp_path / "a.avi"), split_by="time")
    found = [seen(source, split) for split in SPLITS]
    assert [{place for place, _ in split} for split in found] == [{*range(12)}] * 3
    times = [{t for _, t in split} for split in found]
    assert max(times[0]) + 4 < min(times[1])
    assert max(times[1]) + 4 < min(times[2])
    data = source.dataset("test", num_frames=4)
    assert sorted({*data.units}) == [*range(12)]
    assert source.unit == "tile"


def test_by_place_no_split_shares_a_tile_or_a_time(tmp_path: Path) -> None:
    source = films(write_places(tmp_path / "a.avi"), split_by="place", validation_part=0.2)
    found = [seen(source, split) for split in SPLITS]
    places = [{place for place, _ in split} for split in found]
    assert [len(p) for p in places] == [8, 2, 2]
    assert set.union(*places) == {*range(12)}
    times = [{t for _, t in split} for split in found]
    assert max(times[0]) < min(times[1])
    assert max(times[1]) < min(times[2])


def test_by_file_tiles_of_one_film_are_one_unit(tmp_path: Path) -> None:
    for i in range(5):
        write_places(tmp_path / "films" / f"{i}.avi", 20 + i)
    source = films(tmp_path / "films", split_by="file", test_part=0.4)
    data = source.dataset("test", num_frames=4)
    assert len({*data.sequences}) == 24
    assert sorted({*data.units}) == [0, 1]
    assert source.unit == "video"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split_by": "time", "shrink": None}, "needs shrink"),
        ({"split_by": None}, "needs split_by"),
        ({"split_by": "place", "crop": "centre"}, "needs crop 'tiles'"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        films(Path("a.avi"), **settings)
