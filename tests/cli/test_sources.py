"""Sources of one's own by ``--data``, which a recipe on the command line defines."""

import json
from pathlib import Path

import pytest

from inference import rollout, sweep, table1
from pyro_afslvm.cli.main import main
from tests.support.processes import run_python
from tests.support.sources import RAMP

FLOW = """
from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.transforms import LastFrame

BATCH_SIZE = 2

def build(frame_shape):
    flow = TemporalAffine(LastFrame(len(frame_shape), learned_scale=True))
    return Pair(FlowModel(flow, frame_shape, context_length=3), None)
"""
QUICK = ("--steps", "2", "--validate_every", "2", "--validation_sequences", "2")
QUICK += ("--accelerator", "cpu")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a source that ``rec.py`` defines and no other test does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    digits = "".join(character for character in request.node.name if character.isalnum())
    name = f"Own{digits}"
    Path("rec.py").write_text(RAMP.replace("Ramp", name) + FLOW)
    Path("plain.py").write_text(FLOW)
    return name


def said(capsys: Capture, program, *arguments: str) -> str:
    """Run, expect exit code 2 and one line on stderr; return it."""
    capsys.readouterr()
    try:
        code = program([*arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def source_of(run: str) -> str:
    return json.loads(Path(run, "settings.json").read_text())["source"]["class"]


@pytest.mark.parametrize("asked", [["--data", "{}"], ["--data={}"], ["--data.class_path", "{}"]])
def test_training_finds_what_its_recipe_defines(own: str, asked: list[str]) -> None:
    data = [part.format(own) for part in asked]
    assert main(["train", "rec.py", *data, "--data.size", "9", *QUICK, "--out", "run"]) == 0
    assert source_of("run").endswith(f".{own}")


@pytest.mark.parametrize(
    "content",
    ["data: {}", "data: {{class_path: {}, init_args: {{size: 9}}}}", '{{"data": "{}"}}'],
)
def test_a_config_file_names_it(own: str, content: str) -> None:
    Path("d.yaml").write_text(content.format(own))
    assert main(["train", "rec.py", "--config", "d.yaml", *QUICK, "--out", "run"]) == 0
    assert source_of("run").endswith(f".{own}")


def test_a_mapping_on_the_command_line_names_it(own: str, capsys: Capture) -> None:
    values = json.dumps({"class_path": own, "init_args": {"size": 3, "seed": int("9" * 300)}})
    line = said(capsys, main, "train", "rec.py", "--data", values)
    assert line == "afslvm: error: a ramp of 3 pixels is no ramp"


def test_a_file_of_the_source_alone_names_it(own: str) -> None:
    Path("s.yaml").write_text(f"class_path: {own}\ninit_args:\n  size: 9\n")
    assert main(["train", "rec.py", "--data", "s.yaml", *QUICK, "--out", "run"]) == 0
    assert source_of("run").endswith(f".{own}")


def test_a_sweep_finds_it(own: str, capsys: Capture) -> None:
    data = ("--data", own, "--data.size", "3")
    assert said(capsys, sweep.main, "plain.py", "rec.py", *data) == (
        "sweep: error: a ramp of 3 pixels is no ramp"
    )


def test_a_list_of_recipes_defines_it(own: str, capsys: Capture) -> None:
    data = ("--data", own, "--data.size", "3")
    assert said(capsys, table1.main, "--recipes=[plain.py,rec.py]", *data) == (
        "table1: error: a ramp of 3 pixels is no ramp"
    )


ROLL_OUT = """
import sys
from inference.rollout import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_recipe_of_a_run_defines_it(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", "rec.py", "--data", own, *QUICK, "--out", "run"]) == 0
    run = str(Path("run").resolve())
    command = ("-c", ROLL_OUT, run, "--data", own, "--sequences", "2", "--samples", "2")
    assert "2 sequences" in run_python(*command).stdout
    monkeypatch.setenv("XDG_STATE_HOME", f"{run}/elsewhere")  # where nobody ran this recipe
    refused = run_python(*command, expect=2).stderr.strip()
    assert refused.startswith(f"rollout: error: no source {own} among those known here, ")
    assert refused.endswith("give --trust, or name your own copy with --recipe FILE")
    assert "\n" not in refused
    for allowed in (["--trust"], ["--recipe", str(Path("rec.py").resolve())]):
        assert "2 sequences" in run_python(*command, *allowed).stdout


@pytest.mark.parametrize(
    ("program", "arguments", "name"),
    [
        (main, ["train", "plain.py"], "afslvm"),
        (main, ["data", "inspect"], "afslvm"),
        (sweep.main, ["plain.py"], "sweep"),
        (rollout.main, ["run"], "rollout"),
    ],
)
def test_an_unknown_name_is_one_line(
    own: str, capsys: Capture, program, arguments: list[str], name: str
) -> None:
    line = said(capsys, program, *arguments, "--data", "MovingDigit")
    assert line.startswith(f"{name}: error: no source MovingDigit among those known here, ")
    assert all(f" {known}," in line for known in ("Arrays", "BAIR", "BinarizedMNIST", "KTH"))
    assert line.endswith("; did you mean MovingDigits?")
    assert "did you mean" not in said(capsys, program, *arguments, "--data", "Qqqqqqq")


def test_an_unknown_name_in_a_config_is_one_line(own: str, capsys: Capture) -> None:
    Path("d.yaml").write_text("data: Vidoes")
    line = said(capsys, main, "train", "plain.py", "--config", "d.yaml")
    assert "no source Vidoes among" in line
    assert line.endswith("did you mean Videos?")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_module.Mine", "No module named 'no_such_module'"),
        ("pyro_afslvm.data.Mine", "module 'pyro_afslvm.data' has no attribute 'Mine'"),
        ("pyro_afslvm.data.inspection", "it is no SequenceSource"),
        ("pathlib.Path", "it is no SequenceSource"),
    ],
)
def test_an_import_path_without_a_source_is_one_line(
    own: str, capsys: Capture, path: str, reason: str
) -> None:
    line = said(capsys, main, "train", "plain.py", "--data", path)
    assert line.startswith(f"afslvm: error: no source {path}: ")
    assert reason in line


def test_a_recipe_that_raises_is_one_line(own: str, capsys: Capture) -> None:
    Path("bad.py").write_text("1 / 0")
    line = said(capsys, main, "train", "bad.py", "--data", own)
    assert line == "afslvm: error: recipe bad.py raises ZeroDivisionError: division by zero"


def test_help_for_what_a_recipe_defines(own: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "rec.py", "--data.help", own])
    assert stop.value.code == 0
    assert "--data.size SIZE" in capsys.readouterr().out


@pytest.mark.parametrize("last", ["--print_config", "--help"])
def test_a_known_name_executes_nothing(own: str, capsys: Capture, last: str) -> None:
    Path("loud.py").write_text("print('executed')" + FLOW)
    with pytest.raises(SystemExit) as stop:
        main(["train", "loud.py", "--data", "MovingDigits", last])
    assert stop.value.code == 0
    assert "executed" not in capsys.readouterr().out
