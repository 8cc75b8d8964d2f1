"""Programs that import from where things used to be still run, with a warning."""

import sys
import warnings
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import pytest

from pyro_afslvm.moved import MOVED, NAMES, modern
from tests.support.processes import ROOT, run_python

OLD_NAMES = [  # all that the modules of the release before defined in public
    line.split() for line in (ROOT / "tests/support/old_names.txt").read_text().splitlines()
]

ALIASES = {  # of which the modules of today know both names
    "FlowLevel": "FlowStep",
    "Forecast": "Moments",
    "FrameMemory": "HistoryEncoder",
    "LatentScale": "KLScale",
    "Split": "SequenceBatch",
    "choose_noise": "choose_dequantization",
    "split": "of",
}


def old_object(module: str, name: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return getattr(import_module(module), name)


@pytest.mark.parametrize("module", sorted({module for module, _ in OLD_NAMES}))
def test_old_names_are_found_or_say_what_to_use(module: str) -> None:
    for name in [name for where, name in OLD_NAMES if where == module]:
        path = f"{module}.{name}"
        new = NAMES.get(path.removeprefix("pyro_afslvm."), name)
        if " " in new:
            with pytest.raises(ImportError, match=f"^{path} is no more: use "):
                old_object(module, name)
            continue
        found = old_object(module, name)
        assert not isinstance(found, ModuleType), name
        if isinstance(found, FunctionType) or (isinstance(found, type) and found is not Any):
            assert found.__name__ in {name, ALIASES.get(name), new.rpartition(".")[-1]}


@pytest.mark.parametrize("name", NAMES)
def test_what_to_use_instead_is_there(name: str) -> None:
    handed_on = {"report.load_runs", "transforms.Level"}  # defined elsewhere
    assert f"pyro_afslvm.{name}".rsplit(".", 1) in OLD_NAMES or name in handed_on
    new = NAMES[name]
    path = new.rpartition(" ")[2] if " " in new else f"pyro_afslvm.{new}"
    if path.startswith("pyro_afslvm."):
        old_object(*path.rsplit(".", 1))


@pytest.mark.parametrize("old", MOVED)
def test_old_modules_warn_and_lead_on(old: str) -> None:
    sys.modules.pop(f"pyro_afslvm.{old}", None)
    with pytest.warns(FutureWarning, match=f"^pyro_afslvm.{old} has moved: import from "):
        import_module(f"pyro_afslvm.{old}")
    with pytest.raises(ImportError, match="nonsense"):
        exec(f"from pyro_afslvm.{old} import nonsense")


def test_names_that_have_left_a_module_warn_where_they_are_imported() -> None:
    with pytest.warns(FutureWarning, match=r"runs\.Run has moved: import .*runs\.run\.Run") as said:
        from pyro_afslvm.runs import Run  # noqa: F401
    assert {each.filename for each in said} == {__file__}
    with pytest.raises(ImportError, match="nonsense"):
        exec("from pyro_afslvm.runs import nonsense")


def test_what_is_no_more_says_what_to_use() -> None:
    with pytest.warns(FutureWarning), pytest.raises(ImportError) as caught:
        exec(
            "import sys; sys.modules.pop('pyro_afslvm.averaging', None)\n"
            "from pyro_afslvm.averaging import RunningAverage"
        )
    assert str(caught.value) == (
        "pyro_afslvm.averaging.RunningAverage is no more: use "
        "pyro_afslvm.training.averaging.running_average"
    )


def test_packages_stay_light() -> None:
    light = ["", ".cli", ".runs", ".evaluation", ".training", ".data.datasets"]
    program = "; ".join(f"import pyro_afslvm{package}" for package in light)
    program += "; import sys; sys.exit('torch' in sys.modules)"
    run_python("-c", program)


def test_a_function_has_the_name_that_its_module_had() -> None:
    """The script that an older installation made."""
    program = "from pyro_afslvm.cli import main; main(['--help'])"
    program = f"import warnings; warnings.simplefilter('error'); {program}"
    assert "afslvm" in run_python("-c", program).stdout


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("pyro_afslvm.nonsense")


def test_a_program_with_present_names() -> None:
    old = "from pyro_afslvm.memory import FrameMemory\nimport pyro_afslvm.vae.single as v\n"
    assert modern(old) == (
        "from pyro_afslvm.networks.history_encoder import HistoryEncoder\n"
        "import pyro_afslvm.models.vae.single as v\n"
    )
    assert modern(modern(old)) == modern(old)
