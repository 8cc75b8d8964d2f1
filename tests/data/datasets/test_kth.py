"""KTH Actions: small real files with the release's names, sizes and quirks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_afslvm.cli.main import main
from pyro_afslvm.data import KTH, EmptySplitError, source_from_config
from pyro_afslvm.data.datasets.kth import ACTIONS, MISSING, SUBJECTS, TRUNCATED, read_sequences
from pyro_afslvm.data.videos.decoding import read_header
from tests.support.kth import HEADER, add_video, start, write_sequences
from tests.support.videos import scene

SPLITS: tuple[Any, ...] = ("train", "validation", "test")

LINES = {
    "person11_boxing_d1": "1-20, 21-38, 41-60",
    "person13_handclapping_d2": "1-30, 31-60",
    "person20_boxing_d1": "1-25, 30-60",
    "person22_boxing_d1": "5-30, 31-45",
    "person02_handclapping_d4": "1-60",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "kth"
    for name in LINES:
        add_video(root, name)
    write_sequences(root, LINES)
    return root


def kth(root: Path, **settings: Any) -> KTH:
    settings = {"actions": ["boxing", "handclapping"], **settings}
    return KTH(path=str(root), cache=str(root.parent / "store"), **settings)


# ---- splits and ranges ----


def test_subjects_are_those_of_the_release() -> None:
    assert [len(SUBJECTS[split]) for split in SPLITS] == [8, 8, 9]
    assert sorted(n for split in SPLITS for n in SUBJECTS[split]) == list(range(1, 26))
    assert SUBJECTS["train"] == tuple(range(11, 19))
    assert SUBJECTS["validation"] == (19, 20, 21, 23, 24, 25, 1, 4)
    assert SUBJECTS["test"] == (22, 2, 3, 5, 6, 7, 8, 9, 10)


def test_files_are_as_in_the_release(root: Path) -> None:
    path = root / "boxing" / "person11_boxing_d1_uncomp.avi"
    assert read_header(path)[:3] == (60, 120, 160)
    assert b"FMP4" in path.read_bytes()[:2000] or b"MP4V" in path.read_bytes()[:2000].upper()


def test_ranges_are_sequences(root: Path) -> None:
    data = {s: kth(root).dataset(s, num_frames=13) for s in SPLITS}
    lengths = {s: d.lengths.tolist() for s, d in data.items()}  # type: ignore[attr-defined]
    assert lengths == {"train": [20, 18, 20, 30, 30], "validation": [25, 31], "test": [26, 15, 60]}
    assert {s: len(d) for s, d in data.items()} == {"train": 7, "validation": 3, "test": 7}
    x = data["train"][0]
    assert x.shape == (13, 1, 64, 64)
    assert x.dtype == torch.uint8


def test_ranges_count_from_one(root: Path) -> None:
    data, first = kth(root, size=120).dataset("test", num_frames=15), start("person22_boxing_d1")
    for k, listed in ((0, 5), (1, 31)):  # the ranges 5-30 and 31-45
        seen = data[k][:, 0].numpy().reshape(15, 120, 40, 3).mean(-1)
        errors = []
        for shift in (-1, 0, 1):
            true = scene(95)[first + listed - 1 + shift :][:15].astype(float)
            squeezed = true.reshape(15, 120, 40, 4).mean(-1)  # of 160 columns, as seen of 120
            errors.append(np.abs(seen - squeezed).mean())
        assert np.argmin(errors) == 1
        assert errors[1] < 0.8 * min(errors[0], errors[2])


def test_squeezed_or_cropped(root: Path) -> None:
    squeezed, cropped = (
        kth(root, squeeze=s).dataset("test", num_frames=5)[0][0, 0].float() for s in (True, False)
    )
    # The background brightens to the right: from 40 to 119 over the whole width.
    assert squeezed[0, 0] < 43
    assert squeezed[0, -1] > 116
    assert 48 < cropped[0, 0] < 54
    assert 105 < cropped[0, -1] < 111


def test_settings(root: Path) -> None:
    assert kth(root).frame_shape == (1, 64, 64)
    assert kth(root, size=32).dataset("test", num_frames=4)[0].shape == (4, 1, 32, 32)
    boxing = kth(root, actions=["boxing"])
    assert len(boxing.dataset("test", num_frames=10)) == 3
    with pytest.raises(ValueError, match="unknown action 'sleeping': expected boxing, hand"):
        kth(root, actions=["sleeping"])
    with pytest.raises(ValueError, match="too small for size 128"):
        kth(root, size=128).dataset("test", num_frames=4)


def test_protocol_and_configuration(root: Path, tmp_path: Path) -> None:
    settings = kth(root).describe()
    assert json.loads(json.dumps(settings)) == settings
    assert str(tmp_path) not in json.dumps(settings)
    assert settings["files"] == 5
    again = source_from_config(json.loads(json.dumps(kth(root).config())))
    assert again.describe() == settings
    assert kth(root.rename(tmp_path / "moved")).describe() == settings


def test_ranges_belong_to_the_protocol(root: Path) -> None:
    before = kth(root).describe()
    write_sequences(root, {**LINES, "person22_boxing_d1": "5-31, 32-45"})
    assert kth(root).describe() != before


# ---- what is missing or damaged ----


def test_known_gap_of_the_release_is_reported(root: Path) -> None:
    notes = kth(root).prepare().notes
    assert notes == (f"{MISSING}: missing from the release of KTH Actions",)
    assert kth(root, actions=["boxing"]).prepare().notes == ()


def test_known_truncated_video_of_the_release(root: Path) -> None:
    path = add_video(root, TRUNCATED, 120)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.8)])
    write_sequences(root, {**LINES, TRUNCATED: "1-30, 31-60, 61-100, 101-120"})
    source = kth(root)
    (note,) = (line for line in source.prepare().notes if TRUNCATED in line)
    count = int(note.split(" of ")[0].split()[-1])
    assert note == f"{TRUNCATED}: ends after {count} of 120 frames"
    lengths = source.dataset("validation", num_frames=5).lengths  # type: ignore[attr-defined]
    rest = [b - a for a, b in ((60, min(count, 100)), (100, count)) if b > a]
    assert lengths.tolist() == [25, 31, 30, 30, *rest]
    assert 61 < count < 118


def test_other_truncated_videos_are_refused(root: Path) -> None:
    path = root / "boxing" / "person11_boxing_d1_uncomp.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"person11_boxing_d1_uncomp.avi: truncated or damaged"):
        kth(root).dataset("train", num_frames=5)
    with pytest.warns(UserWarning, match="left out 1 files: .*person11_boxing_d1"):
        data = kth(root, skip_bad=True).dataset("train", num_frames=5)
    assert data.lengths.tolist() == [30, 30]  # type: ignore[attr-defined]


def test_video_shorter_than_its_ranges(root: Path) -> None:
    write_sequences(root, {**LINES, "person22_boxing_d1": "5-30, 31-61"})
    lengths = kth(root).dataset("test", num_frames=5).lengths  # type: ignore[attr-defined]
    assert lengths.tolist() == [26, 30, 60]  # a frame more or less is the decoder's
    write_sequences(root, {**LINES, "person22_boxing_d1": "5-30, 31-90"})
    with pytest.raises(ValueError, match=r"person22.*: 90 frames in 00sequences.txt, .* has 60"):
        kth(root).dataset("test", num_frames=5)


def test_missing_videos(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"00sequences.txt: no such file.*download=True"):
        kth(root.parent).files()
    (root / "boxing" / "person20_boxing_d1_uncomp.avi").unlink()
    with pytest.raises(FileNotFoundError, match=r"person20_boxing_d1_uncomp.avi: listed in"):
        kth(root).dataset("test", num_frames=5)
    source = kth(root, skip_bad=True)
    assert "person20_boxing_d1: not there, left out" in source.prepare().notes
    with pytest.raises(EmptySplitError, match="the validation split is empty"):
        source.dataset("validation", num_frames=5)


def test_sequences_that_are_too_short(root: Path) -> None:
    lengths = kth(root).dataset("test", num_frames=20)
    assert len(lengths) == 1 + 0 + 3
    with pytest.raises(ValueError, match=r"kth: num_frames is 31, .* train split have 30 frames"):
        kth(root).dataset("train", num_frames=31)


def test_download_only_when_asked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []

    def fetch(folder: Path) -> None:
        fetched.append(folder)
        root.rename(folder)

    monkeypatch.setattr("pyro_afslvm.data.datasets.kth.fetch_kth", fetch)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path)
    folder = tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match=r"download=True to fetch it"):
        kth(folder).describe()
    assert not fetched
    assert kth(folder, download=True).describe()["files"] == 5
    assert fetched == [folder]
    folder.rename(tmp_path / "kth")
    assert KTH(cache=str(tmp_path / "store")).describe()["files"] == 5


# ---- 00sequences.txt ----


def test_lines_of_the_release(tmp_path: Path) -> None:
    line = "person01_boxing_d1\t\tframes\t1-95, 96-185, 186-245, 246-360\r\n"
    path = tmp_path / "00sequences.txt"
    path.write_text(HEADER + line + f"{MISSING}\t\t*missing*\n")
    first, missing = read_sequences(path)
    assert first == (
        "person01_boxing_d1",
        1,
        "boxing",
        ((0, 95), (95, 185), (185, 245), (245, 360)),
    )
    assert missing == (MISSING, 13, "handclapping", ())
    assert all(action in ACTIONS for action in (first.action, missing.action))


@pytest.mark.parametrize(
    ("ranges", "said"),
    [("1-9, x-3", "' x-3'"), ("9-1", "'9-1'"), ("0-5", "'0-5'"), ("", "''"), ("1-2; 3-4", "1-2;")],
)
def test_damaged_lines(tmp_path: Path, ranges: str, said: str) -> None:
    path = write_sequences(tmp_path, {"person11_boxing_d1": "1-5", "person12_boxing_d1": ranges})
    with pytest.raises(ValueError, match=r"line \d+: expected ranges of frames, got") as error:
        read_sequences(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_lines(tmp_path: Path) -> None:
    (tmp_path / "00sequences.txt").write_bytes(b"\xff\x00 not this file")
    with pytest.raises(ValueError, match="expected lines such as 'person01_boxing_d1 frames"):
        kth(tmp_path).files()


# ---- the command line ----


def test_prepare_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--data.path", str(root), "--data.cache", str(root.parent / "store")]
    actions = ["--data.actions", "[boxing, handclapping]"]
    assert main(["data", "prepare", "--data", "KTH", *settings, *actions]) == 0
    out = capsys.readouterr().out
    assert "prepared 5 files, 300 frames" in out
    assert f"note: {MISSING}: missing from the release" in out
    assert main(["data", "prepare", "--data", "KTH", *settings]) == 0  # no other is listed


def test_persons_are_the_independent_units(root: Path) -> None:
    """Ranges, videos and actions of one person hang together."""
    source = kth(root)
    assert source.unit == "person"
    for split in ("train", "validation", "test"):
        data = source.dataset(split, num_frames=2)
        assert set(data.units.tolist()) <= set(SUBJECTS[split])
        assert len(set(data.units.tolist())) < len(set(data.sequences.tolist()))
