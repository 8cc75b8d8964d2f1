"""Downloads that succeed, break off or bring something else."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from pyro_afslvm.data.download import download
from tests.support.archives import sha256
from tests.support.server import Server

BYTES = bytes(range(256)) * 5000


def fetched(address: str, folder: Path, known_hash: str | None) -> Path:
    (folder / "draft").mkdir(exist_ok=True)
    return download(address, folder, known_hash, draft=folder / "draft")


def failed(address: str, folder: Path, known_hash: str | None, message: str) -> None:
    """Nothing is left, and one line says why and what to do."""
    with pytest.raises(FileNotFoundError, match=message) as caught:
        fetched(address, folder, known_hash)
    assert "\n" not in str(caught.value)
    name = address.rsplit("/")[-1]
    assert f"could not fetch {address} (" in str(caught.value)
    assert f"without a network, copy {name} to {folder} by hand" in str(caught.value)
    assert not (folder / name).exists()
    assert not list((folder / "draft").iterdir())


def test_a_file_arrives_whole(server: Server, tmp_path: Path) -> None:
    server.files["/data.bin"] = BYTES
    file = fetched(server.address(), tmp_path, sha256(BYTES))
    assert file == tmp_path / "data.bin"
    assert file.read_bytes() == BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.bin", "draft"]
    assert not list((tmp_path / "draft").iterdir())


def test_progress_reaches_the_end_and_not_beyond(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bar:
        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __call__(self, done: int, total: int) -> None:
            seen.append((done, total))

    seen: list[tuple[int, int]] = []
    monkeypatch.setattr("pyro_afslvm.utils.progress.counting_bar", lambda _: Bar())
    server.files["/data.bin"] = BYTES
    fetched(server.address(), tmp_path, None)
    assert len(seen) >= 2
    assert all(0 < done <= total == len(BYTES) for done, total in seen)
    assert seen[-1] == (len(BYTES), len(BYTES))


@pytest.mark.parametrize("tells_lengths", [True, False])
def test_a_connection_that_breaks_off(server: Server, tmp_path: Path, tells_lengths: bool) -> None:
    server.files["/data.bin"], server.cut = BYTES, 400_000
    server.tells_lengths = tells_lengths  # otherwise only the hash can tell
    failed(server.address(), tmp_path, sha256(BYTES), "400000 bytes read" * tells_lengths or "hash")
    server.cut = None
    assert fetched(server.address(), tmp_path, sha256(BYTES)).read_bytes() == BYTES


def test_a_wrong_hash(server: Server, tmp_path: Path) -> None:
    server.files["/data.bin"] = BYTES
    failed(server.address(), tmp_path, sha256(b"other"), "hash")


def test_a_hash_that_is_not_known_is_noted_and_then_expected(
    server: Server, tmp_path: Path
) -> None:
    server.files["/data.bin"] = BYTES
    file = fetched(server.address(), tmp_path, None)
    note = (tmp_path / "data.bin.sha256").read_text()
    assert note == f"{hashlib.sha256(BYTES).hexdigest()}  data.bin\n"
    file.unlink()
    server.files["/data.bin"] = BYTES + b"changed"
    failed(server.address(), tmp_path, None, "hash")


def test_a_file_that_is_there_stays(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    assert fetched(server.address(), tmp_path, sha256(BYTES)).read_bytes() == b"mine"
    assert server.asked == []


def test_servers_that_have_nothing_or_are_not_there(server: Server, tmp_path: Path) -> None:
    failed(server.address(), tmp_path, None, "404")
    failed("http://127.0.0.1:9/data.bin", tmp_path, None, "refused")  # nobody listens


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/data.bin"] = BYTES

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("requests.Response.iter_content", full)
    failed(server.address(), tmp_path, None, "No space left on device")
