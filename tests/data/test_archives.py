"""Archives that are whole, damaged or evil: what comes out of them, and where."""

import contextlib
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pyro_afslvm.data.archives import ArchiveError, unpack
from tests.support.archives import held, tar_of, zip_of

CONTENT = {"videos/a.avi": b"first" * 1000, "videos/deep/b.avi": b"", "read.me": b"text"}
KINDS = {"zip": zip_of, "tar": tar_of}


def unpacked(archive: Path, **options: Any) -> Path:
    """The folder ``out`` beside the archive, made of it."""
    target = archive.parent / "out"
    unpack(archive, target, draft=archive.parent / "draft", **options)
    return target


def refused(archive: Path, message: str = "") -> None:
    with pytest.raises(ArchiveError) as caught:
        unpacked(archive)
    assert message in str(caught.value)
    assert str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (archive.parent / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_files_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "zip":
        zip_of(path, *CONTENT.items())
    else:
        tar_of(path, *CONTENT.items(), mode="w" + kind.replace("tar", "").replace(".", ":"))
    out = unpacked(path)
    assert held(out) == CONTENT
    with pytest.raises(OSError, match="out: Directory not empty"):
        unpacked(path)
    assert held(out) == CONTENT


def test_a_folder_of_the_archive(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "data.zip", *CONTENT.items())
    with pytest.raises(ArchiveError, match="holds no folder films"):
        unpacked(path, inner="films")
    out = unpacked(path, inner="videos")
    assert held(out) == {"a.avi": b"first" * 1000, "deep/b.avi": b""}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_outside(tmp_path: Path, kind: str) -> None:
    names = ["../evil", "a/../../evil", f"{tmp_path}/evil", "..", "a\\..\\..\\evil", "C:/evil"]
    for i, name in enumerate(names):
        folder = tmp_path / str(i)
        folder.mkdir()
        archive = KINDS[kind](folder / "bad", ("good", b"fine"), (name, b"evil"))
        with contextlib.suppress(ArchiveError, OSError):
            unpacked(archive)
        assert {path.name for path in folder.iterdir()} <= {"bad", "draft", "out"}
    assert len(list(tmp_path.iterdir())) == len(names)


def special(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_tar(tmp_path: Path, kind: bytes) -> None:
    for i, target in enumerate(("/etc", "../..", "good")):
        door = special("door", kind, target)
        refused(tar_of(tmp_path / f"{i}", ("good", b""), door, ("door/passwd", b"evil")), "'door'")


def test_links_and_devices_of_other_kinds(tmp_path: Path) -> None:
    for i, kind in enumerate((tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        refused(tar_of(tmp_path / f"bad{i}", special("door", kind, "")), "'door'")
    for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK):
        info = zipfile.ZipInfo("door")
        info.external_attr = (kind | 0o777) << 16
        refused(zip_of(tmp_path / f"bad{kind}.zip", ("good", b""), (info, b"/etc")), "'door'")


def test_a_zip_without_kinds_of_files(tmp_path: Path) -> None:
    plain, folder = zipfile.ZipInfo("read.me"), zipfile.ZipInfo("videos/")
    plain.external_attr, folder.external_attr = 0, 0x10  # as written on Windows
    written = zipfile.ZipInfo("videos/a.avi")
    written.external_attr = (stat.S_IFREG | 0o644) << 16
    path = zip_of(tmp_path / "data.zip", (plain, b"text"), (folder, b""), (written, b"first"))
    assert held(unpacked(path)) == {"read.me": b"text", "videos/a.avi": b"first"}


def test_encrypted_zip(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "bad.zip", ("secret", b"content"))
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    refused(path, "is encrypted")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "text", "empty"])
def test_damaged_archives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bad.{kind}"
    if kind in ("text", "empty"):
        path.write_bytes(b"no archive" if kind == "text" else b"")
    else:
        content = [("one", os.urandom(50_000)), ("more", os.urandom(50_000))]
        mode = "w:gz" if kind == "tar.gz" else "w"
        (zip_of if kind == "zip" else lambda p, *m: tar_of(p, *m, mode=mode))(path, *content)
        path.write_bytes(path.read_bytes()[:70_000])
    refused(path)


def test_a_flipped_bit_in_a_zip(tmp_path: Path) -> None:  # tar has no checksums of data
    path = zip_of(tmp_path / "bad.zip", ("one", os.urandom(50_000)))
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    refused(path, "CRC-32")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = zip_of(tmp_path / "data.zip", *CONTENT.items())
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match=r"data\.zip: cannot be unpacked into .*out: No space left"):
        unpacked(path)
    assert not (tmp_path / "out").exists()


def test_a_python_that_cannot_unpack_tar_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    refused(tar_of(tmp_path / "data.tar", *CONTENT.items()), "unpack it by hand, or use Python")
