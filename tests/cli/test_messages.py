"""Errors of options: in the words of the command line, whole, and on one line."""

from pathlib import Path

import pytest

from pyro_afslvm.cli.main import build_parser, main
from tests.cli.test_cli import refused

DIGITS = ("--data", "MovingDigits")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


COMMANDS = "train, evaluate, sample, forecast, recipes, report, data"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "1e5"), "--steps: expected a whole number, got 100000.0: write 100000"),
        (("--steps", "2.5"), "--steps: expected a whole number, got 2.5"),
        (("--steps", "many"), "--steps: expected a whole number, got many"),
        (("--learning_rate", "fast"), "--learning_rate: expected a number, got fast"),
        (("--recompute", "maybe"), "--recompute: expected true or false, got maybe"),
        (("--precision", "16"), "--precision: expected 32-true or bf16-mixed, got 16"),
        (("--stepz", "5"), "there is no option --stepz; did you mean --steps?"),
        ((*DIGITS, "--data.size", "1e2"), "--data.size: expected a whole number, got 100.0: "),
        ((*DIGITS, "--data.size", "x"), "--data.size: expected a whole number, got x"),
        (
            (*DIGITS, "--data.sise", "9"),
            "there is no option --data.sise; did you mean --data.size?",
        ),
        ((*DIGITS, "--data.nosuch", "9"), "there is no option --data.nosuch"),
        (("--data", "nowhere.npy"), "nowhere.npy: there is no such file or folder"),
        (("--data", "Nowhere.MP4"), "Nowhere.MP4: there is no such file or folder"),
        (("--data", "nowhere.csv"), "nowhere.csv: there is no such file or folder"),
        (("--data", "nowhere.py"), "no source nowhere.py: "),
        (("--data", "Arrays"), "the following arguments are required: --data.path"),
        (("--data.size", "9"), "--data.size is a setting of what --data names, which is not given"),
        (("--data.size", "9", "--data", "Arrays"), "there is no option --data.size"),
        (("more",), "unrecognized arguments: more"),
    ],
)
def test_options_that_cannot_be(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    line = refused(capsys, "train", "recipe.py", *options)
    assert line.startswith(f"afslvm: error: {message}")
    assert not [
        word for word in ("class", "Union", "NestedArg", "Parser key", "data.-h") if word in line
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), f"expected one of the commands {COMMANDS}"),
        (("data",), "expected one of the commands prepare, inspect"),
        (("train",), "the following arguments are required: recipe"),
        (("data", "prepare"), "give either a path or --data"),
    ],
)
def test_what_is_missing(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert refused(capsys, *arguments) == f"afslvm: error: {message}"


def test_config_files_are_told_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for content, message in (
        ("steps: many", "--steps: expected a whole number, got many"),
        ("stepz: 4", "there is no option --stepz; did you mean --steps?"),
        ("data: {class_path: MovingDigits, init_args: {size: q}}", "--data.size: expected a whole"),
    ):
        Path("bad.yaml").write_text(content)
        line = refused(capsys, "train", "recipe.py", "--config", "bad.yaml")
        assert line.startswith(f"afslvm: error: {message}")


@pytest.mark.parametrize(
    "data",
    [
        ("--data.size", "16", "--data", "MovingDigits"),
        ("--data.size=16", "--data=MovingDigits"),
        ("--data.size", "16", "--steps", "5", "--data", "MovingDigits"),
    ],
    ids=" ".join,
)
def test_settings_of_the_data_may_come_before_their_name(data: tuple[str, ...]) -> None:
    parser = build_parser()
    made = parser.instantiate(parser.parse_args(["train", "recipe.py", *data]))
    assert made.train.data.size == 16


def test_a_reason_is_told_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "first, second; third " + ", ".join(map(str, range(200)))
    Path("long.py").write_text(f"raise ValueError({reason!r})")
    line = refused(capsys, "train", "long.py")
    assert line == f"afslvm: error: recipe long.py raises ValueError: {reason}"


def test_a_reason_within_training_is_told_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    Path("late.py").write_text(
        """
from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.transforms import LastFrame

class Late(FlowModel):
    def joint(self, batch):
        raise ValueError("frames reach 300; expected [0, 1], not 0..255, and more")

def build(frame_shape):
    return Pair(Late(TemporalAffine(LastFrame(3, learned_scale=True)), frame_shape), None)
"""
    )
    size = ("--data.size", "16", "--steps", "2", "--scored_frames", "2")
    assert main(["train", "late.py", *DIGITS, *size]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith("error: frames reach 300; expected [0, 1], not 0..255, and more")
