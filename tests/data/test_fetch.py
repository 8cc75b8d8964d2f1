"""The files of public data sets: fetched, unpacked, and left alone where they are."""

import signal
from pathlib import Path

import pytest

from pyro_afslvm.data import fetch
from pyro_afslvm.data.archives import ArchiveError
from tests.support.archives import held, sha256, zip_of
from tests.support.processes import run_python, start_python
from tests.support.server import Server


@pytest.fixture
def kth(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server of KTH Actions, two of them."""
    hashes = {}
    for action in ("boxing", "walking"):
        path = zip_of(tmp_path / f"{action}.zip", (video(action), action.encode() * 9))
        server.files[f"/{path.name}"] = path.read_bytes()
        hashes[action] = sha256(path.read_bytes())
        path.unlink()
    server.files["/00sequences.txt"] = b"person01_boxing_d1 frames 1-95\n"
    monkeypatch.setattr(fetch, "KTH", server.address("")[:-1])
    monkeypatch.setattr(fetch, "KTH_ACTIONS", hashes)
    return server


def video(action: str) -> str:
    return f"person01_{action}_d1_uncomp.avi"


WHOLE = {
    "boxing/person01_boxing_d1_uncomp.avi",
    "walking/person01_walking_d1_uncomp.avi",
    "00sequences.txt",
    "00sequences.txt.sha256",
    ".lock",
}


def test_kth(kth: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "kth"
    fetch.fetch_kth(folder)
    assert set(held(folder)) == WHOLE
    assert not (folder / ".partial").exists()
    kth.asked = []
    (folder / ".lock").unlink()
    fetch.fetch_kth(folder)
    assert kth.asked == []
    assert not (folder / ".lock").exists()  # nothing is written where nothing is missing


def test_kth_goes_on_with_what_is_missing(kth: Server, tmp_path: Path) -> None:
    walking = kth.files.pop("/walking.zip")
    with pytest.raises(FileNotFoundError, match=r"walking\.zip.*404"):
        fetch.fetch_kth(tmp_path)
    assert (tmp_path / "boxing").is_dir()
    assert not (tmp_path / "walking").exists()
    kth.files["/walking.zip"], kth.asked = walking, []
    fetch.fetch_kth(tmp_path)
    assert kth.asked == ["/walking.zip", "/00sequences.txt"]
    assert set(held(tmp_path)) == WHOLE


def test_an_archive_copied_by_hand_is_used_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zip_of(tmp_path / "boxing.zip", (video("boxing"), b"video"))
    (tmp_path / "00sequences.txt").write_text("")
    monkeypatch.setattr(fetch, "KTH_ACTIONS", {"boxing": sha256(b"another")})
    monkeypatch.setattr(fetch, "KTH", "http://127.0.0.1:9")  # nobody listens
    fetch.fetch_kth(tmp_path)
    assert held(tmp_path / "boxing") == {video("boxing"): b"video"}
    assert archive.exists()


def test_an_archive_that_cannot_be_unpacked_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_of(tmp_path / "boxing.zip", (video("boxing"), b"video" * 1000))
    content = (tmp_path / "boxing.zip").read_bytes()
    (tmp_path / "boxing.zip").write_bytes(content[:-30])
    monkeypatch.setattr(fetch, "KTH_ACTIONS", {"boxing": None})
    with pytest.raises(ArchiveError, match=r"boxing\.zip: not a complete"):
        fetch.fetch_kth(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "boxing.zip"]


FETCH = """
import os, signal, sys, zipfile
from pathlib import Path
from pyro_afslvm.data import fetch
fetch.KTH, fetch.KTH_ACTIONS = "http://127.0.0.1:9", {"boxing": None}
def killed(self, path):
    Path(path).mkdir()
    Path(path, "half.avi").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2:]:
    zipfile.ZipFile.extractall = killed
fetch.fetch_kth(Path(sys.argv[1]))
"""


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    zip_of(tmp_path / "boxing.zip", (video("boxing"), b"video"))
    (tmp_path / "00sequences.txt").write_text("")
    run_python("-c", FETCH, str(tmp_path), "killed", expect=-signal.SIGKILL)
    assert not (tmp_path / "boxing").exists()
    assert list((tmp_path / ".partial").rglob("half.avi"))
    run_python("-c", FETCH, str(tmp_path))
    assert held(tmp_path / "boxing") == {video("boxing"): b"video"}
    assert not (tmp_path / ".partial").exists()


def test_two_processes_at_once(tmp_path: Path) -> None:
    zip_of(tmp_path / "boxing.zip", *((f"{i}.avi", bytes(10_000)) for i in range(300)))
    (tmp_path / "00sequences.txt").write_text("")
    command = ["-c", FETCH, str(tmp_path)]
    with start_python(*command) as one, start_python(*command) as other:
        for program in (one, other):
            program.end()
    assert len(held(tmp_path / "boxing")) == 300


def test_pinned_hashes_are_hashes() -> None:
    sizes = {"sha1": 40, "sha256": 64, "md5": 32}
    for known in (
        *fetch.KTH_ACTIONS.values(),
        fetch.BAIR_HASH,
        *dict(fetch._REMOTE.values()).values(),
    ):
        kind, digest = known.split(":")
        assert len(digest) == sizes[kind]
        int(digest, 16)
