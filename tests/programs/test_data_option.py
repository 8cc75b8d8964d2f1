"""Programs take any source by ``--data``, whatever else was imported."""

from pathlib import Path

import pytest

from tests.support.processes import run_python
from tests.support.sources import RAMP

ASK = """
import sys
from inference.{program} import main
for data in ("MovingDigits", "mine.Ramp"):
    assert main([*sys.argv[1:], "--data", data, "--data.size", "3"]) == 2
"""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("rollout", ["nowhere"]), ("swap_guides", []), ("sweep", ["no.py"]), ("table1", [])],
)
def test_sources_by_name_and_by_import_path(
    tmp_path: Path, program: str, arguments: list[str]
) -> None:
    (tmp_path / "mine.py").write_text(RAMP)
    root = Path(__file__).parents[2]
    path = f"{root}:{tmp_path}"
    ended = run_python("-c", ASK.format(program=program), *arguments, PYTHONPATH=path)
    said = ended.stderr.strip().splitlines()
    assert said[-2:] == [
        f"{program}: error: size must be an integer of at least 16, got 3",
        f"{program}: error: a ramp of 3 pixels is no ramp",
    ]
