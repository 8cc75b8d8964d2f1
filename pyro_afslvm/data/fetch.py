"""Finding the files of public data sets, and fetching them on request."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pyro_afslvm.utils.files import locked

Kind = Literal["public", "generated"]

PUBLIC = "mnist_test_seq.npy"
IDX_TRAIN = "train-images-idx3-ubyte"
IDX_TEST = "t10k-images-idx3-ubyte"

_REMOTE = {  # address and hash of what is fetched for each name
    PUBLIC: (
        "http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy",
        "md5:be083ec986bfe91a449d63653c411eb2",
    ),
    IDX_TRAIN: (
        "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    IDX_TEST: (
        "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz",
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
}

KTH = "http://www.csc.kth.se/cvap/actions"
KTH_ACTIONS = {  # archive of each action: its hash
    "boxing": "sha1:adb36ed9c29c846d44d2ba15f348bd115c951bbd",
    "handclapping": "sha1:d3b81261aa822ef63d0d1523f945bfaff27814d2",
    "handwaving": "sha1:0792f7cd69f7f895a205c08ac212ddaa7177e370",
    "jogging": "sha1:21943bdbcef9dad106db0d74661e49eaeaa15a25",
    "running": "sha1:da83bb313edfd4455fffdda6263696fa10d43c6f",
    "walking": "sha1:a3e81537271a0ab4576591774baa38c2d97b7e3a",
}
BAIR = "http://rail.eecs.berkeley.edu/datasets/bair_robot_pushing_dataset_v0.tar"
BAIR_HASH = "sha256:c6f8d164ab2be07174ef597e3e070d7466f3142caddc467b6af119b9458cd9cd"
BAIR_FOLDER = "softmotion30_44k"


def locate(path: str | None, *, kind: Kind | None, download: bool) -> dict[str, Path]:
    """Find the files of Moving MNIST, by their names in :data:`PUBLIC`, :data:`IDX_TRAIN`, ...

    Args:
        path: A file or a folder; ``None`` for this package's download cache.
        kind: What to look for; ``None`` for whichever is there.
        download: Fetch what is not there into the folder.

    Raises:
        FileNotFoundError: Nothing is there, and nothing could be fetched.
        ValueError: The path holds the other kind, or both kinds where none was named.
    """
    place = cache() if path is None else Path(path).expanduser()
    if place.is_file():
        return _named(place, kind)
    if download:
        _fetch(place, kind or _found_kind(place) or "generated")
    kind = kind or _found_kind(place)
    files = {name: file for name in _names(kind) if (file := _find(place, name))}
    if not files:
        wanted = " or ".join(_names(kind)).replace("ubyte", "ubyte[.gz]")
        raise FileNotFoundError(
            f"{place}: looked for {wanted}; give path=FOLDER, or download=True to fetch it"
        )
    return files


def _names(kind: Kind | None) -> tuple[str, ...]:
    if kind is None:
        return (IDX_TRAIN, IDX_TEST, PUBLIC)
    return (PUBLIC,) if kind == "public" else (IDX_TRAIN, IDX_TEST)


def _named(file: Path, kind: Kind | None) -> dict[str, Path]:
    found: Kind = "public" if file.suffix == ".npy" else "generated"
    if kind is not None and kind != found:
        expected = "an npy file" if kind == "public" else "an idx file"
        raise ValueError(f"{file}: expected {expected} for kind={kind!r}")
    return {PUBLIC if found == "public" else file.name.removesuffix(".gz"): file}


def _found_kind(folder: Path) -> Kind | None:
    found: list[Kind] = [
        kind
        for kind in ("public", "generated")
        if any(_find(folder, name) for name in _names(kind))
    ]
    if len(found) == 2:
        raise ValueError(f"{folder}: holds both kinds, set kind to 'public' or 'generated'")
    return found[0] if found else None


def _find(folder: Path, name: str) -> Path | None:
    names = (name,) if name == PUBLIC else (name, f"{name}.gz")
    return next((folder / file for file in names if (folder / file).is_file()), None)


def cache() -> Path:
    """The folder of this package's downloads."""
    import pooch

    return Path(pooch.os_cache("pyro_afslvm"))


def _fetch(folder: Path, kind: Kind) -> None:
    from pyro_afslvm.data.download import download

    # Never replace the user's file.
    missing = [_REMOTE[name] for name in _names(kind) if not _find(folder, name)]
    if missing:
        with _draft(folder) as draft:
            for address, known_hash in missing:
                download(address, folder, known_hash, draft=draft)


def fetch_kth(folder: Path) -> None:
    """Fetch the KTH Actions into ``folder/ACTION/*.avi`` and ``folder/00sequences.txt``.

    About 1 GB in six archives, each of which is removed when it is unpacked; actions that
    are there already stay as they are. Archives copied into the folder by hand are used and
    stay. The archives' hashes are those that the vipy package has published; of ``00sequences.txt``
    none is known, the first download notes its own in ``00sequences.txt.sha256``.

    Args:
        folder: Where they go; made if need be.

    Raises:
        FileNotFoundError: A file could not be fetched; the message says what to do.
        ValueError: An archive is damaged or unsafe.

    Source: Schüldt, Laptev, Caputo, *Recognizing Human Actions: A Local SVM Approach*, ICPR
    2004.
    """
    from pyro_afslvm.data.download import download

    sequences = "00sequences.txt"
    if all((folder / name).exists() for name in (*KTH_ACTIONS, sequences)):
        return
    with _draft(folder) as draft:
        for action, known_hash in KTH_ACTIONS.items():
            _fetch_archive(f"{KTH}/{action}.zip", known_hash, folder / action, draft=draft)
        download(f"{KTH}/{sequences}", folder, None, draft=draft)


def fetch_bair(folder: Path) -> Path:
    """Fetch BAIR robot pushing and unpack it into ``folder/softmotion30_44k``.

    A tar archive of 32 GB, which is removed when it is unpacked; it needs twice the space
    until then. An archive copied into the folder by hand is used and stays. The hash is that
    of the TensorFlow Datasets' list of checksums.

    Args:
        folder: Where it goes; made if need be.

    Raises:
        FileNotFoundError: It could not be fetched; the message says what to do.
        ValueError: The archive is damaged or unsafe.

    Source: Ebert, Finn, Lee, Levine, *Self-Supervised Visual Planning with Temporal Skip
    Connections*, arXiv:1710.05268.
    """
    target = folder / BAIR_FOLDER
    if not target.exists():
        with _draft(folder) as draft:
            _fetch_archive(BAIR, BAIR_HASH, target, draft=draft, inner=BAIR_FOLDER)
    return target


def _fetch_archive(
    address: str, known_hash: str | None, target: Path, *, draft: Path, inner: str = ""
) -> None:
    from pyro_afslvm.data.archives import unpack
    from pyro_afslvm.data.download import download

    if target.exists():  # perhaps by the process that held the lock
        return
    is_users = (target.parent / address.rsplit("/", 1)[-1]).exists()
    archive = download(address, target.parent, known_hash, draft=draft)
    with TemporaryDirectory(dir=draft) as unpacked:
        unpack(archive, target, draft=Path(unpacked, "content"), inner=inner)
    if not is_users:
        archive.unlink()


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Make a folder for what is not whole yet; other processes wait until it is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".partial"
    with locked(folder) as alone:
        if alone:  # what a killed process left behind
            shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(exist_ok=True)
        try:
            yield draft
        finally:
            with suppress(OSError):  # where locks do not work, another process is at work in it
                draft.rmdir()
