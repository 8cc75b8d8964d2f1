"""The examples of the README run, one after the other, as one program."""

import re
from pathlib import Path

import pytest

from tests.processes import run_python

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) > 2
    program = "\n".join(examples).replace("steps=100", "steps=3")
    run_python("-W", "error::UserWarning:pyro_afslvm", "-c", program, cwd=tmp_path, timeout=240)
    assert (tmp_path / "results.nc").exists()
