"""Reading of the files of MNIST and Moving MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from pyro_afslvm.data.arrays.formats import Pixels, open_npy

_UINT8 = 0x08  # idx code of unsigned bytes


def read_idx_images(path: Path) -> Pixels:  # -> (N, H, W)
    """Read the images of an idx file: big-endian header (0, 0, 8, 3, N, H, W), then the bytes.

    Args:
        path: The file, compressed if its name ends in ``.gz``.

    Raises:
        ValueError: The file is no idx file of uint8 images, or is not as long as its header
            says.

    Source: Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*.
    """
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path}: expected an idx file, got first bytes {content[:4].hex(' ')!r}")
    if content[2] != _UINT8 or content[3] != 3:
        raise ValueError(
            f"{path}: expected idx images (type 0x08 in 3 dimensions), "
            f"got type {content[2]:#04x} in {content[3]} dimensions"
        )
    shape = [int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in (1, 2, 3)]
    expected = 16 + math.prod(shape)
    if len(content) < 16 or len(content) != expected:
        raise ValueError(
            f"{path}: expected {expected} bytes for images of shape {tuple(shape)}, "
            f"got {len(content)}: truncated or damaged"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=16).reshape(shape)


def open_sequences(path: Path) -> Pixels:  # -> (T, N, 64, 64)
    """Map an npy file in the layout of ``mnist_test_seq.npy``.

    Raises:
        ValueError: The file is no npy file of shape (T, N, 64, 64) and type uint8, or is
            shorter than its header says.
    """
    sequences = open_npy(path)
    shape, dtype = sequences.shape, sequences.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[2:] != (64, 64) or min(shape) == 0:
        raise ValueError(
            f"{path}: expected uint8 of shape (T, N, 64, 64), got {dtype} of shape {shape}"
        )
    pixels: Pixels = sequences
    return pixels


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a complete gzip file: {error}") from error
