"""Every test starts from the same clean state."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")  # no window, also where there is a display

from weakref import WeakKeyDictionary

import pyro
import pytest
import torch

from pyro_afslvm.models import param_store


@pytest.fixture(autouse=True)
def clean_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Seed, validate, forget parameters; the trust ledger lives in the test's own folder.

    Models that tests before leave alive (torch's JIT keeps what it traced) hold no names here.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(param_store, "_entries", WeakKeyDictionary())
    monkeypatch.setattr(param_store, "_living", {})
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)
    yield
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()


@pytest.fixture
def float64() -> None:
    """Make float64 the default for one test; ``clean_state`` restores float32."""
    torch.set_default_dtype(torch.float64)
