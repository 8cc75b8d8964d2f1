"""Notes on runs beside simple models."""

from pathlib import Path
from typing import Any

from pyro_afslvm.report.beside import beside
from pyro_afslvm.runs.contents import RunContents


def run(label: str, nats: float | None, **simple: Any) -> RunContents:
    found = {name.replace("_", " "): value for name, value in simple.items()}
    return RunContents(Path(label), label, {"nats_per_dim": nats, "baselines": found}, {}, {}, {})


def test_one_line_for_runs_on_the_same_frames() -> None:
    runs = [
        run("1-AF", -2.0, copy_of_the_last_frame=-3.0),
        run("SLVM", -4.0, copy_of_the_last_frame=-3.0),
    ]
    assert [*beside(runs)] == [
        "Nats/dim on the same frames: copy of the last frame -3.000",
        "SLVM does not beat a copy of the last frame (-4.000 against -3.000 nats/dim)",
    ]


def test_runs_on_other_frames_are_named() -> None:
    runs = [
        run("1-AF", -2.0, copy_of_the_last_frame=-3.0),
        run("2-AF", -2.0, copy_of_the_last_frame=-3.1),
        run("SLVM", -2.5, copy_of_the_last_frame=-3.0),
    ]
    assert [*beside(runs)] == [
        "Nats/dim on the same frames as 1-AF, SLVM: copy of the last frame -3.000",
        "Nats/dim on the same frames as 2-AF: copy of the last frame -3.100",
    ]


def test_runs_of_an_earlier_release_have_none() -> None:
    old = RunContents(Path("a"), "a", {"nats_per_dim": -2.0}, {}, {}, {})
    assert [*beside([old, run("b", None, x=1.0), run("c", -2.0, x=float("nan"), y="?")])] == []
