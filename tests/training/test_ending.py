"""What is shown of a training while it lasts and when it ends."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from pyro_afslvm.training import progress
from pyro_afslvm.training.ending import ending
from pyro_afslvm.training.errors import TrainingError
from pyro_afslvm.training.progress import duration_text, training_bar

COPY = {"copy of the last frame": -2.0}


def test_final_and_best_and_a_sentence_where_copying_is_better():
    curve = [(200, 1.0, -4.0, -3.0), (400, 2.0, -3.0, -2.5)]
    first, *more, last = ending(curve, COPY)
    assert first == "validation -2.500 nats/dim at the end (step 400), best -2.500 (step 400, kept)"
    assert last.startswith("the model does not beat a copy of the last frame (-2.500 against")
    assert more == [
        "training -3.000 at the end: 0.500 worse than validation",
        "on the same frames: copy of the last frame -2.000",
    ]
    assert len(ending([(200, 1.0, -4.0, -1.0)], COPY)) == 3  # nothing to complain of


def test_without_validation_the_figures_are_of_training():
    (line,) = ending([(3, 1.0, -4.0, math.nan)], {})
    assert line.startswith("training -4.000 nats/dim at the end (step 3)")


def test_worse_than_its_best_is_said():
    curve = [(200, 1.0, -2.0, -2.0), (400, 2.0, -9.0, -9.0)]
    assert any("became worse after its best" in line for line in ending(curve, {}))


@pytest.mark.parametrize("simple", [{}, COPY])
def test_absurd_figures_are_no_training(simple):
    curve = [(200, 1.0, -1e11, -1e11), (400, 2.0, -1e11, -1e11)]
    with pytest.raises(TrainingError, match=r"got nowhere: -1e\+11 nats/dim .* lower the learning"):
        ending(curve, simple, rate=0.1)


def test_a_few_steps_may_be_far_off():
    lines = ending([(2, 1.0, -1e11, -1e11)], COPY, rate=0.1)
    assert lines[-1].startswith("the model does not beat a copy of the last frame")


def session(step: int, steps: int = 100_000, **settings: object) -> SimpleNamespace:
    known = {"seconds": None, "patience": None} | settings
    return SimpleNamespace(
        step=step,
        steps=steps,
        seconds=step * 7.5,
        settings=SimpleNamespace(**known),
        recent=-12345.678,
        curve=[(1, 1.0, -12345.678, -12345.678)],
        is_done=step == steps,
    )


def test_says_first_how_long_it_takes():
    text = duration_text(session(21, 200_021), 7.5)
    assert text == (
        "0.133 steps/s here: all 200021 end in 17.4 days; --steps or --seconds end it earlier"
    )
    assert "at most 5 min" in duration_text(session(0, seconds=300.0), 7.5)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_has_loss_and_speed_from_the_start_in_80_columns(monkeypatch, terminal):
    shown = io.StringIO()
    console = Console(file=shown, width=80, force_terminal=terminal, color_system=None)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    monkeypatch.setattr(progress, "BETWEEN", 0.0)
    with training_bar("SLVM w/ 1-AF, small, with two levels") as report:
        report(session(1))
        report(session(3))
    text = Text.from_ansi(shown.getvalue()).plain
    assert "SLVM w/ 1-AF, smal " in text
    assert "0.133/s  train -12345.678  valid -12345.678" in text
    assert "0.133 steps/s here: all 100000 end in 8.7 days" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
