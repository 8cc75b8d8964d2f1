"""Archives that are unsafe, and downloads that are interrupted."""

import contextlib
import hashlib
import io
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pyro_afslvm.data import fetch
from pyro_afslvm.data.archives import ArchiveError, unpack
from pyro_afslvm.data.download import Resuming, download

CONTENT = {"videos/a.avi": b"first" * 1000, "videos/deep/b.avi": b"", "read.me": b"text"}


def tar_of(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def zip_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def held(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


# ---- unpacking ----


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_files_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "zip":
        zip_of(path, *CONTENT.items())
    else:
        tar_of(path, *CONTENT.items(), mode="w" + kind.replace("tar", "").replace(".", ":"))
    unpack(path, tmp_path / "new" / "out")
    assert held(tmp_path / "new" / "out") == CONTENT
    unpack(path, tmp_path / "new" / "videos", inner="videos")
    assert held(tmp_path / "new" / "videos") == {"a.avi": b"first" * 1000, "deep/b.avi": b""}
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["out", "videos"]


NAMES = ["../evil", "a/../../evil", "/tmp/evil", "..", "a\\..\\evil", "C:/evil"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_leave_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    make = zip_of if kind == "zip" else tar_of
    path = make(tmp_path / "bad", ("good", b"fine"), (name, b"evil"))
    refused(path, tmp_path, f"member {name!r} would leave the folder")


def refused(path: Path, tmp_path: Path, message: str, **limits: int) -> None:
    with pytest.raises(ArchiveError) as caught:
        unpack(path, tmp_path / "new" / "out", **limits)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [p for p in tmp_path.rglob("*") if p not in (path, tmp_path / "new")]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_links_and_devices_in_tar(tmp_path: Path, kind: bytes, what: str) -> None:
    path = tar_of(tmp_path / "bad.tar", special("door", kind), ("door/passwd", b"evil"))
    refused(path, tmp_path, f"member 'door' is {what}")


@pytest.mark.parametrize(("mode", "what"), [(stat.S_IFLNK, "a link"), (stat.S_IFBLK, "a device")])
def test_links_and_devices_in_zip(tmp_path: Path, mode: int, what: str) -> None:
    info = zipfile.ZipInfo("door")
    info.external_attr = (mode | 0o777) << 16
    refused(zip_of(tmp_path / "bad.zip", (info, b"/etc")), tmp_path, f"'door' is {what}")


def test_encrypted_zip(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "bad.zip", ("secret", b"content"))
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    refused(path, tmp_path, "is encrypted")


def test_a_member_twice(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "bad.tar", ("a", b"one"), ("./a", b"two"))
    refused(path, tmp_path, "member './a' is there twice")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    big = [(f"{i}", bytes(1_000_000)) for i in range(3)]
    path = tmp_path / f"bomb.{kind}"
    (zip_of if kind == "zip" else lambda p, *m: tar_of(p, *m, mode="w:gz"))(path, *big)
    assert path.stat().st_size < 20_000
    refused(path, tmp_path, "2,500,000 bytes", max_bytes=2_500_000)
    refused(path, tmp_path, "more than 2 members", max_members=2)
    unpack(path, tmp_path / "fits", max_bytes=3_000_000, max_members=3)


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "bad.zip", ("liar", bytes(100_000)))
    content = path.read_bytes()
    true = (100_000).to_bytes(4, "little")
    assert content.count(true) == 2
    path.write_bytes(content.replace(true, (10).to_bytes(4, "little")))
    refused(path, tmp_path, "bad.zip", max_bytes=1000)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "text", "empty"])
def test_damaged_archives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bad.{kind}"
    if kind in ("text", "empty"):
        path.write_bytes(b"no archive" if kind == "text" else b"")
    else:
        content = [("noise", os.urandom(50_000)), ("more", os.urandom(50_000))]
        mode = "w:gz" if kind == "tar.gz" else "w"
        (zip_of if kind == "zip" else lambda p, *m: tar_of(p, *m, mode=mode))(path, *content)
        path.write_bytes(path.read_bytes()[:70_000])
    refused(path, tmp_path, "bad." + kind)


def test_a_flipped_bit_in_a_zip(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "bad.zip", ("noise", os.urandom(50_000)))
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    refused(path, tmp_path, "CRC-32")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "data.zip", *CONTENT.items())
    opened = Path.open

    def full(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if mode == "xb":
            raise OSError(28, "No space left on device")
        return opened(self, mode, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"data\.zip: cannot be unpacked into .*out: No space left"):
        unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["data.zip"]


def test_the_target_must_be_new_and_drafts_of_the_dead_go(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "data.zip", *CONTENT.items())
    dead, alive = tmp_path / ".out.99999999.partial", tmp_path / f".out.{os.getppid()}.partial"
    for draft in (dead, alive):
        draft.mkdir()
        (draft / "half").write_bytes(b"")
    unpack(path, tmp_path / "out")
    assert not dead.exists()
    assert alive.exists()
    with pytest.raises(FileExistsError, match="out: is there already"):
        unpack(path, tmp_path / "out")


# ---- downloads ----


class Server(ThreadingHTTPServer):
    """Serves ``files`` with ranges; cuts the connection after ``cut`` bytes of an answer."""

    daemon_threads = True
    files: dict[str, bytes]
    cut: int | None
    ranges: bool
    lengths: bool
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if wanted and self.server.ranges and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:][: self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.files, server.cut, server.asked = {}, None, []
        server.ranges = server.lengths = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_afslvm.data.download.time.sleep", lambda _: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def address(server: Server, name: str = "data.bin") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


NOISE = bytes(range(256)) * 5000


def test_an_interrupted_download_goes_on(server: Server, tmp_path: Path) -> None:
    server.files["/data.bin"], server.cut = NOISE, 0
    with pytest.raises(
        FileNotFoundError, match=r"0 of 1,280,000 bytes.*copy data.bin to .*by hand"
    ):
        download(address(server), tmp_path, sha256(NOISE))
    part = tmp_path / ".data.bin.part"
    part.write_bytes(NOISE[:900_000])  # as if the connection, or this process, died here
    server.cut, server.asked = None, []
    file = download(address(server), tmp_path, sha256(NOISE))
    assert server.asked == ["bytes=900000-"]
    assert file.read_bytes() == NOISE
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_one_call_goes_on_while_bytes_arrive(server: Server, tmp_path: Path) -> None:
    server.files["/data.bin"], server.cut = NOISE, 400_000
    assert download(address(server), tmp_path, sha256(NOISE)).read_bytes() == NOISE
    starts = [None, 400_000, 800_000, 1_200_000]
    assert server.asked == [start and f"bytes={start}-" for start in starts]


@pytest.mark.parametrize("change", ["another file", "no ranges", "a part too long", "no tag"])
def test_a_part_that_does_not_fit_is_fetched_anew(
    server: Server, tmp_path: Path, change: str
) -> None:
    server.files["/data.bin"], server.cut = b"old" * 10_000, 0
    with pytest.raises(FileNotFoundError):
        download(address(server), tmp_path, None)
    part = tmp_path / ".data.bin.part"
    part.write_bytes(b"old" * 5000)
    server.cut = None
    if change == "another file":
        server.files["/data.bin"] = b"new" * 10_000
    if change == "no ranges":
        server.ranges = False
    if change == "a part too long":
        part.write_bytes(b"old" * 20_000)
    if change == "no tag":
        (tmp_path / ".data.bin.tag").unlink()
        part.write_bytes(b"odd" * 5000)
    assert download(address(server), tmp_path, None).read_bytes() == server.files["/data.bin"]


def test_a_hash_that_is_not_known_is_noted_and_then_expected(
    server: Server, tmp_path: Path
) -> None:
    server.files["/data.bin"] = NOISE
    file = download(address(server), tmp_path, None)
    note = (tmp_path / "data.bin.sha256").read_text()
    assert note == f"{hashlib.sha256(NOISE).hexdigest()}  data.bin\n"
    file.unlink()
    server.files["/data.bin"] = NOISE + b"changed"
    with pytest.raises(FileNotFoundError, match="hash"):
        download(address(server), tmp_path, None)
    assert not file.exists()


def test_a_wrong_hash_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/data.bin"] = NOISE
    with pytest.raises(FileNotFoundError, match="hash") as caught:
        download(address(server), tmp_path, sha256(b"other"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_tells_no_length(server: Server, tmp_path: Path) -> None:
    server.files["/data.bin"], server.lengths = NOISE, False
    assert download(address(server), tmp_path, sha256(NOISE)).read_bytes() == NOISE
    (tmp_path / "data.bin").unlink()
    server.cut = 1000  # only the hash can tell
    with pytest.raises(FileNotFoundError, match="hash"):
        download(address(server), tmp_path, sha256(NOISE))
    assert not (tmp_path / "data.bin").exists()


def test_a_file_that_is_there_stays(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    assert download(address(server), tmp_path, sha256(NOISE)).read_bytes() == b"mine"
    assert server.asked == []


def test_not_found_is_asked_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="404"):
        download(address(server), tmp_path, None)
    assert len(server.asked) == 1


def test_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"could not fetch http.*without a network, copy"):
        download("http://127.0.0.1:9/data.bin", tmp_path, None)  # nobody listens


def test_two_processes_do_not_write_one_part(server: Server, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    server.files["/data.bin"] = NOISE
    with (tmp_path / ".data.bin.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConnectionError, match="another process"):
            Resuming(tmp_path / ".data.bin")(address(server), str(tmp_path / "out"), None)


# ---- the data sets ----


def test_kth(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {}
    for action in fetch.KTH_ACTIONS:
        name = f"person01_{action}_d1_uncomp.avi"
        path = zip_of(tmp_path / f"{action}.zip", (name, action.encode()))
        server.files[f"/{action}.zip"] = path.read_bytes()
        hashes[action] = sha256(path.read_bytes())
    server.files["/00sequences.txt"] = b"person01_boxing_d1 frames 1-95\n"
    monkeypatch.setattr(fetch, "KTH", address(server, "")[:-1])
    monkeypatch.setattr(fetch, "KTH_ACTIONS", hashes)
    folder = tmp_path / "kth"
    fetch.fetch_kth(folder)
    videos = {f"{action}/person01_{action}_d1_uncomp.avi" for action in hashes}
    assert set(held(folder)) == videos | {"00sequences.txt", "00sequences.txt.sha256"}
    server.asked = []
    fetch.fetch_kth(folder)
    assert server.asked == []


def test_an_archive_copied_by_hand_is_used_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zip_of(tmp_path / "boxing.zip", ("person01_boxing_d1_uncomp.avi", b"video"))
    (tmp_path / "00sequences.txt").write_text("")
    monkeypatch.setattr(fetch, "KTH_ACTIONS", {"boxing": sha256(b"another")})
    monkeypatch.setattr(fetch, "KTH", "http://127.0.0.1:9")  # nobody listens
    fetch.fetch_kth(tmp_path)
    assert held(tmp_path / "boxing") == {"person01_boxing_d1_uncomp.avi": b"video"}
    assert archive.exists()


def test_kth_of_an_evil_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zip_of(tmp_path / "boxing.zip", ("../evil.avi", b"evil"))
    server.files["/boxing.zip"] = path.read_bytes()
    monkeypatch.setattr(fetch, "KTH", address(server, "")[:-1])
    monkeypatch.setattr(fetch, "KTH_ACTIONS", {"boxing": None})
    with pytest.raises(ArchiveError, match=r"'\.\./evil\.avi' would leave the folder"):
        fetch.fetch_kth(tmp_path / "kth")
    assert not list(tmp_path.rglob("evil.avi"))


def test_pinned_hashes_are_hashes() -> None:
    sizes = {"sha1": 40, "sha256": 64}
    for known in (*fetch.KTH_ACTIONS.values(), fetch.BAIR_HASH):
        kind, digest = known.split(":")
        assert len(digest) == sizes[kind]
        int(digest, 16)
