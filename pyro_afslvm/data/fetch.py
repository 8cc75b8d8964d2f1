"""Where the files of Moving MNIST lie, and how they get there."""

from pathlib import Path
from typing import Literal

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


def locate(path: str | None, *, kind: Kind | None, download: bool) -> dict[str, Path]:
    """Files of Moving MNIST by their names in :data:`PUBLIC`, :data:`IDX_TRAIN`, ...

    Arguments:
        path: A file or a folder; ``None`` for this package's download cache.
        kind: What to look for; ``None`` for whichever is there.
        download: Fetch what is not there into the folder.

    Raises:
        FileNotFoundError: Nothing is there, and nothing could be fetched.
        ValueError: The path holds the other kind, or both kinds where none was named.
    """
    place = _cache() if path is None else Path(path).expanduser()
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


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("pyro_afslvm"))


def _fetch(folder: Path, kind: Kind) -> None:
    import pooch

    for name in _names(kind):
        if _find(folder, name):
            continue  # never replace the user's file
        address, known_hash = _REMOTE[name]
        file = address.rsplit("/", 1)[-1]
        try:
            pooch.retrieve(address, known_hash, fname=file, path=folder)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FileNotFoundError(
                f"could not fetch {address} ({reason}); without a network, copy {file} "
                f"to {folder} by hand"
            ) from error
