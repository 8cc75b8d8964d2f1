"""Programs under a locale that is not UTF-8: recipes are read, and nothing fails to be printed."""

import io
from pathlib import Path

import pytest

from pyro_afslvm.cli.main import main
from pyro_afslvm.cli.printing import print_always
from tests.support.processes import run_python

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
RECIPE = '''"""Größe."""
from haefen import flow
from pyro_afslvm import FlowModel, Pair

NAME = "σ größe"
BATCH_SIZE = 2

def build(frame_shape):
    return Pair(FlowModel(flow(frame_shape), frame_shape, context_length=3), None)
'''
BESIDE = '''"""Häfen."""
from pyro_afslvm import TemporalAffine
from pyro_afslvm.transforms import LastFrame

def flow(frame_shape):
    return TemporalAffine(LastFrame(len(frame_shape), learned_scale=True))
'''
DATA = ("--data", "MovingDigits", "--data.size", "16", "--data.test_size", "4")
QUICK = ("--steps", "2", "--scored_frames", "3", "--validation_sequences", "2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    Path("größe.py").write_text(RECIPE, encoding="utf-8")
    Path("haefen.py").write_text(BESIDE, encoding="utf-8")
    return tmp_path


PROGRAM = """
import sys
from pyro_afslvm.cli.main import main
for command in {commands}:
    code = main(command)
    if code:
        sys.exit(code)
"""


def afslvm(here: Path, *commands: list[str], expect: int = 0, **variables: str) -> tuple[str, str]:
    """Run commands in one process; what they printed, its odd bytes replaced."""
    program = PROGRAM.format(commands=ascii(commands))
    found = run_python("-c", program, cwd=here, expect=expect, **(ASCII | variables))
    return found.stdout, found.stderr


@pytest.mark.parametrize("variables", [{}, {"PYTHONIOENCODING": "latin-1"}], ids=["C", "latin-1"])
def test_programs_print_into_files(here: Path, variables: dict[str, str]) -> None:
    Path("c.yaml").write_text("# größer\nsteps: 2\n", encoding="utf-8")
    recipe = "größe.py".encode().decode("ascii", "surrogateescape")  # as it comes from a shell
    out, _ = afslvm(
        here,
        ["train", recipe, *DATA, *QUICK, "--config", "c.yaml", "--out", "run"],
        ["evaluate", "run"],
        ["sample", "run", "--num_sequences", "1"],
        ["report", "run"],
        ["data", "inspect", *DATA, "--limit", "3"],
        **variables,
    )
    assert "wrote report.html" in out
    assert "gr" in out
    page = Path("report.html").read_text(encoding="utf-8")
    assert "σ größe" in page
    assert "&#34;recipe&#34;: &#34;größe.py&#34;" in page
    assert Path("run/recipe.py").read_text(encoding="utf-8") == RECIPE
    assert Path("run/haefen.py").read_text(encoding="utf-8") == BESIDE
    assert main(["evaluate", "run"]) == 0  # a run made there is one here


def test_a_name_that_the_locale_lacks_is_one_line(here: Path) -> None:
    Path("c.yaml").write_text("out: größer\n", encoding="utf-8")
    recipe = "größe.py".encode().decode("ascii", "surrogateescape")
    command = ["train", recipe, *DATA, *QUICK, "--config", "c.yaml"]
    _, errors = afslvm(here, command, expect=2)
    assert errors.strip().splitlines() == [
        "afslvm: error: gr??er: names of files have no such characters in this locale: set LC_ALL "
        "to one of UTF-8, such as C.UTF-8"
    ]


@pytest.mark.parametrize("name", ["c.yaml", "bad.py", "s.yaml"])
def test_files_in_another_encoding_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path(name).write_bytes("# größer\n".encode("latin-1"))
    options = {
        "c.yaml": ["größe.py", *DATA, "--config", name],
        "s.yaml": ["größe.py", "--data", name],
        "bad.py": [name, *DATA],
    }
    with pytest.raises(SystemExit) if name != "bad.py" else io.StringIO():
        main(["train", *options[name]])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("afslvm: error: ")
    assert name in line
    assert line.endswith("is not UTF-8")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"mu = 1.0 +- 0.2 ?, \xfc"),
        ("latin-1", b"mu = 1.0 \xb1 0.2 ?, \xfc"),
        ("utf-8", "μ = 1.0 ± 0.2 →, ".encode() + b"\xfc"),
    ],
)
def test_what_an_encoding_lacks(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: bytes
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    print_always()
    name = b"\xfc".decode("utf-8", "surrogateescape")  # of a file, in another encoding
    print(f"μ = 1.0 ± 0.2 →, {name}", end="", flush=True)
    assert written.getvalue() == expected


def test_folders_in_another_encoding_are_reported(here: Path) -> None:
    """Two runs of one name, which their folders tell apart."""
    odd = b"r\xfcn".decode("utf-8", "surrogateescape")
    train = ["train", "größe.py", *DATA, *QUICK, "--out"]
    commands = [[*train, odd], [*train, "run"], ["report", odd, "run"]]
    afslvm(here, *commands, LC_ALL="C.utf8", PYTHONUTF8="1")
    assert "σ größe (r\ufffdn)" in Path("report.html").read_text(encoding="utf-8")
