"""The source of one's own videos: splits, crops, preparing, and its command."""

import errno
import json
import os
import signal
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyro_afslvm.cli.main import main
from pyro_afslvm.data import EmptySplitError, Videos, source_from_config
from tests.support.processes import run_python, start_python
from tests.support.videos import bad_file, scene, times, write_clock, write_video
from tests.training.test_training import TINY

SPLITS: tuple[Any, ...] = ("train", "validation", "test")


# ---- the source ----


def source(path: Path, **settings: Any) -> Videos:
    settings = {"size": 32, "cache": str(path.parent / "store"), **settings}
    return Videos(path=str(path), **settings)


def all_times(data: Any, epochs: int = 30) -> set[int]:
    return {t for k in range(epochs * len(data)) for t in times(data[k])}


def test_shapes_and_types(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", scene(100))
    for color, channels in (("grey", 1), ("rgb", 3)):
        films = source(path, color=color)
        assert films.frame_shape == (channels, 32, 32)
        x = films.dataset("train", num_frames=5)[0]
        assert x.shape == (5, channels, 32, 32)
        assert x.dtype == torch.uint8


@pytest.mark.parametrize(
    ("stride", "crop", "num_frames"), [(1, "centre", 4), (2, "random", 5), (2, "centre", 4)]
)
def test_splits_by_time(tmp_path: Path, stride: int, crop: Any, num_frames: int) -> None:
    count = 110
    path = write_clock(tmp_path / "a.avi", count)
    films = source(path, stride=stride, crop=crop, gap=4, validation_part=0.2, shrink=1)
    seen = {s: all_times(films.dataset(s, num_frames=num_frames)) for s in SPLITS}
    train, validation, test = (seen[s] for s in SPLITS)
    assert max(train) + 4 * stride < min(validation)
    assert max(validation) + 4 * stride < min(test)
    assert max(test) <= count - 1
    assert {t % stride for t in train | validation | test} == {0}
    stored = len(range(0, count, stride)) - 8
    assert train == {stride * t for t in range(stored - round(0.2 * stored) * 2)}
    assert len(test) == round(0.2 * stored) // num_frames * num_frames


def test_two_files_are_split_by_time_each(tmp_path: Path) -> None:
    for name in "ab":  # of different content: as one they would count once
        write_clock(tmp_path / "films" / f"{name}.avi", 90 if name == "a" else 100)
    data = source(tmp_path / "films", gap=3).dataset("test", num_frames=6)
    starts = [times(x)[0] for x in data]
    assert starts == [73, 79, 81, 87, 93]


def test_splits_by_file(tmp_path: Path) -> None:
    for i in range(6):
        write_clock(tmp_path / "films" / f"{i}.avi", 10 + i)
    films = source(tmp_path / "films", validation_part=0.2)
    lengths = [films.dataset(s, num_frames=5).lengths for s in SPLITS]
    assert [len(n) for n in lengths] == [4, 1, 1]
    assert sorted(np.concatenate(lengths)) == list(range(10, 16))  # each once, and whole
    drawn = {
        tuple(source(tmp_path / "films", seed=seed).dataset("test", num_frames=5).lengths)
        for seed in range(12)
    }
    assert len(drawn) > 2


def test_splits_by_file_do_not_depend_on_names(tmp_path: Path) -> None:
    for i in range(5):
        write_clock(tmp_path / "one" / f"{i}.avi", 10 + i)
        write_clock(tmp_path / "other" / "deeper" / f"{9 - i}.AVI", 10 + i)
    one, other = (source(tmp_path / name) for name in ("one", "other"))
    for split in SPLITS:
        a, b = (s.dataset(split, num_frames=5) for s in (one, other))
        assert sorted(a.lengths) == sorted(b.lengths)
    assert one.describe() == other.describe()


def test_split_can_be_chosen(tmp_path: Path) -> None:
    for i in range(3):
        write_clock(tmp_path / "films" / f"{i}.avi", 60 + i)
    assert len(source(tmp_path / "films", split_by="time").dataset("test", num_frames=5)) == 3
    write_clock(tmp_path / "film.avi", 60)
    alone = source(tmp_path / "film.avi", split_by="file")
    assert len(alone.dataset("train", num_frames=60)) == 1
    with pytest.raises(EmptySplitError, match="the validation split is empty"):
        alone.dataset("validation", num_frames=5)


def test_a_file_that_is_there_twice_is_used_once(tmp_path: Path) -> None:
    for i in range(3):
        write_clock(tmp_path / "films" / f"{i}.avi", 20 + i)
    copy = tmp_path / "films" / "9.avi"
    copy.write_bytes((tmp_path / "films" / "1.avi").read_bytes())
    films = source(tmp_path / "films")
    prepared = films.prepare()
    assert len(prepared.files) == 3
    assert f"{copy}: the same as {tmp_path}/films/1.avi, used once" in prepared.notes
    assert sum(len(films.dataset(s, num_frames=20)) for s in SPLITS) == 3


def test_which_files_are_found(tmp_path: Path) -> None:
    for name in ("a.avi", "b.MP4", "deep/c.avi", ".hidden.avi", "notes.txt", "d.avi/e.txt"):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    def found(pattern: str) -> list[str]:
        paths = Videos(path=str(tmp_path / pattern)).files()
        return [str(path.relative_to(tmp_path / "films")) for path in paths]

    assert found("films") == ["a.avi", "b.MP4", "deep/c.avi"]
    assert found("films/*.avi") == ["a.avi"]
    assert found("films/**/*.avi") == ["a.avi", "deep/c.avi"]
    assert found("films/notes.txt") == ["notes.txt"]  # named by the user: tried
    for nothing in ("nowhere", "films/*.mkv", "films/d.avi"):
        with pytest.raises(FileNotFoundError, match="no videos"):
            found(nothing)


def test_crops(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(160, dtype=np.uint8), (60, 120, 160))
    path = write_video(tmp_path / "a.avi", ramp)
    films = source(path, shrink=1, crop="random", gap=1)
    train = films.dataset("train", num_frames=4)
    corners = []
    for k in range(200):
        left = train[k][:, 0, :, 0].float()
        assert left.max() - left.min() <= 4  # one place for the whole sequence
        corners.append(round(float(left.mean())))
        assert torch.equal(train[k], films.dataset("train", num_frames=4)[k])
    assert min(corners) < 10
    assert max(corners) > 118
    for x in (films.dataset("test", num_frames=4)[0], source(path, shrink=1)):
        x = x if isinstance(x, torch.Tensor) else x.dataset("train", num_frames=4)[3]
        assert abs(float(x[:, 0, :, 0].float().mean()) - 64) < 2  # the centre


def test_files_of_different_sizes(tmp_path: Path) -> None:
    for i, (height, width) in enumerate([(120, 160), (160, 120), (64, 64)]):
        write_video(tmp_path / "films" / f"{i}.avi", scene(20, height, width))
    films = source(tmp_path / "films")
    for split in SPLITS:
        assert films.dataset(split, num_frames=5)[0].shape == (5, 1, 32, 32)


def test_too_short(tmp_path: Path) -> None:
    path = write_clock(tmp_path / "a.avi", 60)
    films = source(path, gap=4)
    with pytest.raises(ValueError, match=r"a.avi: num_frames is 13, .* validation split have 5"):
        films.dataset("validation", num_frames=13)
    with pytest.raises(ValueError, match=r"a.avi: 60 frames are too few .* with gaps of 30"):
        source(path, gap=30).dataset("train", num_frames=13)
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        films.dataset("test", num_frames=0)


def test_protocol_and_configuration(tmp_path: Path) -> None:
    path = write_clock(tmp_path / "a.avi", 60)
    films = source(path, crop="random", stride=2)
    settings = films.describe()
    assert json.loads(json.dumps(settings)) == settings
    assert str(tmp_path) not in json.dumps(settings)
    assert settings["files"] == 1
    assert settings["split_by"] == "time"
    assert source_from_config(json.loads(json.dumps(films.config()))).describe() == settings
    write_clock(path, 61)
    assert source(path, crop="random", stride=2).describe() != settings


def test_workers(tmp_path: Path) -> None:
    films = source(write_video(tmp_path / "a.avi", scene(120)), crop="random", shrink=2)
    data = films.dataset("train", num_frames=6)
    loaded = torch.cat(list(DataLoader(data, batch_size=3, num_workers=2, timeout=60)))
    assert torch.equal(loaded, torch.stack(list(data)))


# ---- preparing ----


def prepared_keys(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in store.glob("*.h5")}


def test_bad_files_stop_it_or_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    good = [write_clock(folder / f"good{i}.avi", 20 + i) for i in range(3)]
    bad = [bad_file(kind, folder) for kind in ("text", "zero", "truncated")]
    with pytest.raises(ValueError, match=r"text.avi: not a video.*skip_bad leaves such files out"):
        source(folder).dataset("train", num_frames=5)
    prepared = source(folder, skip_bad=True).prepare()
    assert [file.path for file in prepared.files] == good
    assert [line.split(": ")[0] for line in prepared.left_out] == sorted(str(b) for b in bad)
    films = source(folder, skip_bad=True)
    with pytest.warns(UserWarning, match=r"left out 3 files: .*text.avi: not a video"):
        films.dataset("train", num_frames=5)
    films.describe()  # and says so once
    for path in good:
        path.unlink()
    with pytest.raises(ValueError, match=r"none of 3 files can be used: .*text.avi"):
        source(folder, skip_bad=True).prepare()
    assert not list((tmp_path / "store").glob("*.partial"))


def test_only_what_is_new_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = tmp_path / "films", tmp_path / "store"
    write_clock(folder / "a.avi", 20)
    source(folder).prepare()
    before = prepared_keys(store)
    write_clock(folder / "b.avi", 30)
    (folder / "a.avi").rename(folder / "renamed.avi")
    source(folder).prepare()
    after = prepared_keys(store)
    assert len(after) == 2
    assert before.items() <= after.items()
    read = "pyro_afslvm.data.videos.prepared.read_frames"
    monkeypatch.setattr(read, lambda *_, **__: pytest.fail("!"))
    assert len(source(folder, crop="random", gap=1, seed=4).prepare().files) == 2
    with pytest.raises(pytest.fail.Exception):
        source(folder, color="rgb").prepare()


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    files = [write_clock(folder / f"{i}.avi", 100 + i) for i in range(2)]
    total, seen = sum(file.stat().st_size for file in files), []
    source(folder).prepare(lambda done, of: seen.append((done, of)))
    assert {of for _, of in seen} == {total}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({done for done, _ in seen}) > 4
    assert seen[-1][0] == total


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.avi", scene(1500))
    films = source(path, size=120)
    tracemalloc.start()
    films.prepare()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (file,) = films.prepared().files
    assert file.frames.shape == (1500, 1, 120, 160)
    assert peak < 1500 * 120 * 160 / 2


KILLED = """
import os, signal, sys
import pyro_afslvm.data.videos.prepared as prepared
from pyro_afslvm.data import Videos
from pyro_afslvm.data.videos.decoding import read_frames
def killed(path, *arguments, **options):
    for i, frame in enumerate(read_frames(path, *arguments, **options)):
        if path.name == "b.avi" and i == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        yield frame
prepared.read_frames = killed
Videos(path=sys.argv[1], size=32, cache=sys.argv[2]).prepare()
"""


def test_kill_and_second_try(tmp_path: Path) -> None:
    folder, store = tmp_path / "films", tmp_path / "store"
    for i, name in enumerate("abc"):
        write_clock(folder / f"{name}.avi", 40 + i)
    run_python("-c", KILLED, str(folder), str(store), expect=-signal.SIGKILL)
    before = prepared_keys(store)
    assert len(before) == 1
    assert list(store.glob("*.partial"))
    prepared = source(folder).prepare()
    assert before.items() <= prepared_keys(store).items()  # the first file was not done again
    assert [file.frames.shape[0] for file in prepared.files] == [40, 41, 42]
    assert [times(file.frames.read(0, 99)) for file in prepared.files] == [
        list(range(40 + i)) for i in range(3)
    ]
    assert not list(store.glob("*.partial"))


def test_two_programs_at_once(tmp_path: Path) -> None:
    folder, store = tmp_path / "films", tmp_path / "store"
    for i in range(4):
        write_video(folder / f"{i}.avi", scene(60 + i))
    settings = ["--data.path", str(folder), "--data.size", "32", "--data.cache", str(store)]
    command = ["-m", "pyro_afslvm.cli", "data", "prepare", "--data", "Videos", *settings]
    with start_python(*command) as one, start_python(*command) as other:
        for program in (one, other):
            assert "prepared 4 files, 246 frames" in program.end().stdout
    assert len(prepared_keys(store)) == 4
    assert not list(store.glob("*.partial"))


# ---- the command line ----


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def command(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)


PREPARE = ("data", "prepare", "--data", "Videos", "--data.path", "films", "--data.cache", "store")


def test_prepare_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(here / "films" / "a.avi", scene(30))
    for _ in range(2):
        assert command(*PREPARE) == 0
        assert "prepared 1 files, 30 frames" in capsys.readouterr().out
    assert len(prepared_keys(here / "store")) == 1


def test_prepare_command_with_bad_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(here / "films" / "good.avi", scene(30))
    bad_file("text", here / "films")
    assert command(*PREPARE) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("afslvm: error: films/text.avi: not a video")
    for flag in ("--skip-bad", "--skip_bad"):
        assert command(*PREPARE, flag) == 0
        out = capsys.readouterr().out
        assert "prepared 1 files" in out
        assert "left out 1" in out
        assert "films/text.avi: not a video" in out


def test_prepare_command_without_pyav(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(here / "films" / "a.avi", scene(30))
    monkeypatch.setitem(sys.modules, "av", None)
    assert command(*PREPARE) == 2
    assert "pip install 'pyro-afslvm[video]'" in capsys.readouterr().err.strip().splitlines()[-1]


def test_prepare_command_on_a_full_disk(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_video(here / "films" / "a.avi", scene(30))
    with monkeypatch.context() as patched:
        patched.setattr("pyro_afslvm.data.videos.store._append", full)
        assert command(*PREPARE) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    bytes_needed = 30 * 64 * 85
    assert error.startswith(
        f"afslvm: error: store: the disk is full: a.avi needs up to {bytes_needed} bytes, "
    )
    assert {path.name for path in Path("store").iterdir()} == {".lock", "hashes"}
    assert command(*PREPARE) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "Videos", "--data.path", "nowhere"), "nowhere: no videos"),
        (("--data", "Videos"), "path"),
        (("--data", "MovingDigits"), "MovingDigits needs no preparing"),
        (("--data", "MovingDigits", "--skip-bad"), "MovingDigits has no files to leave out"),
        ((), "give either a path or --data"),
    ],
)
def test_prepare_command_refuses(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert command("data", "prepare", *arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert said in error.strip().splitlines()[-1]


def test_train_on_a_video(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(here / "films" / "film.avi", scene(160))
    bad_file("text", here / "films")
    (here / "tiny.py").write_text(TINY)
    data = ["--data.path", "films", "--data.size", "16", "--data.cache", "store"]
    data += ["--data.skip_bad", "true"]
    steps = ["--steps", "4", "--validate_every", "4", "--scored_frames", "3"]
    crop = ["--data.crop", "random", "--data.shrink", "4"]
    assert command("train", "tiny.py", "--data", "Videos", *data, *crop, *steps) == 0
    assert "films/text.avi: not a video" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="left out 1 files: films/text.avi"):
        assert command("evaluate", "runs/tiny") == 0
    protocol = json.loads(Path("runs/tiny/results.json").read_text())["protocol"]
    assert protocol["data"]["name"] == "videos"
    assert protocol["data"]["shrink"] == 4


def test_help_of_prepare_is_light() -> None:
    code = (
        "import sys; from pyro_afslvm.cli.main import main\n"
        "try: main(['data', 'prepare', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'lightning', 'av', 'h5py', 'pooch'} & set(sys.modules)))"
    )
    printed = run_python("-c", code, COLUMNS="200").stdout
    assert "--skip-bad" in printed
    assert printed.splitlines()[-1] == "[]"


def test_folders_behind_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    elsewhere, films = tmp_path / "elsewhere", tmp_path / "films"
    write_video(elsewhere / "a.avi", scene(4))
    write_video(films / "b.avi", scene(5))
    (films / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(films)
    found = Videos(path=str(films), size=32).files()
    assert [file.name for file in found] == ["b.avi", "a.avi"]
