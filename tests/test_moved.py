"""Recipes that import from where things used to be still run, with a warning."""

import warnings
from importlib import import_module

import pytest

from pyro_afslvm.moved import MOVED

NAMES = {  # what recipes in the wild import
    "flow": ["FlowModel", "simulate"],
    "layers": ["convolution"],
    "loss": ["BoundLoss", "crop_length"],
    "memory": ["FrameMemory", "HistoryEncoder"],
    "pair": ["Pair"],
    "programs": ["register", "evaluating", "check_shape", "split"],
    "residual": ["ResidualEncoder", "MaskedConv2d"],
    "slvm": ["SLVM"],
    "svi": ["fit", "TrainingError"],
    "vae": ["ResNetVAE"],
    "vae.ladder": ["ResNetVAE"],
}


@pytest.mark.parametrize("old", MOVED)
def test_old_paths_lead_to_the_same_things(old: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        module = import_module(f"pyro_afslvm.{old}")
    assert any(str(w.message).startswith(f"pyro_afslvm.{old} has moved: ") for w in said)
    for place in MOVED[old]:
        new = import_module(f"pyro_afslvm.{place}")
        for name in set(NAMES.get(old, [])) & vars(new).keys():
            assert getattr(module, name) is getattr(new, name)
    for name in NAMES.get(old, []):
        assert hasattr(module, name)
    with pytest.raises(ImportError, match="nonsense"):
        exec(f"from pyro_afslvm.{old} import nonsense")


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("pyro_afslvm.nonsense")
