"""KTH Actions in small: videos and ``00sequences.txt`` as in the release."""

from pathlib import Path

from pyro_afslvm.data.datasets.kth import MISSING
from tests.support.videos import scene, write_video

HEADER = """\
Description of the sequences: who does what, where and when.

Training:	person11, 12, 13, 14, 15, 16, 17, 18
Validation:	person19, 20, 21, 23, 24, 25, 01, 04
Test:	person22, 02, 03, 05, 06, 07, 08, 09, 10

"""


def add_video(root: Path, name: str, count: int = 60) -> Path:
    action = name.split("_")[1]
    first = start(name)
    return write_video(root / action / f"{name}_uncomp.avi", scene(count + first)[first:])


def start(name: str) -> int:
    """Where a video starts in its scene: no two are the same."""
    return int(name[6:8]) + 2 * int(name[-1])


def write_sequences(root: Path, lines: dict[str, str], *, text: str = "") -> Path:
    listed = [f"{name}\t\tframes\t{ranges}" for name, ranges in lines.items()]
    path = root / "00sequences.txt"
    path.write_text("\r\n".join([HEADER, *listed, f"{MISSING}\t\t*missing*", text]))
    return path
