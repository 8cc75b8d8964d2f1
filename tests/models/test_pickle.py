"""Models as files, after they have been trained."""

import copy
import io
import pickle
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_afslvm import Pair, fit
from pyro_afslvm.objectives import bound_terms
from tests.support.guides import sequences, system


def saved(pair: Pair) -> Pair:
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    loaded: Pair = torch.load(file, weights_only=False)
    return loaded


cloudpickle = pytest.importorskip("cloudpickle")

WAYS = {
    "torch": saved,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
    "cloudpickle": lambda pair: cloudpickle.loads(cloudpickle.dumps(pair)),
    "deepcopy": copy.deepcopy,
}


def trained(way: str) -> tuple[Pair, torch.Tensor]:
    pair, x = system("vrnn", "filtering"), sequences()
    if way == "fit":
        fit(*pair, x, steps=2, progress=False)
    else:
        svi = SVI(*pair, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        svi.step(x)
    return pair, x


@pytest.mark.parametrize("way", ["fit", "svi"])
@pytest.mark.parametrize("copied", WAYS.values(), ids=WAYS)
def test_a_trained_pair_and_its_parts(copied: Any, way: str) -> None:
    pair, x = trained(way)
    other = copied(pair)
    pyro.set_rng_seed(3)
    expected = bound_terms(*pair, x).bound
    pyro.set_rng_seed(3)
    assert torch.equal(bound_terms(*other, x).bound, expected)
    for part in (pair.model.prior, pair.model.decoder, pair.guide.posterior.conditioner):
        names = copied(part).state_dict()
        assert all(torch.equal(names[k], v) for k, v in part.state_dict().items())
    fit(*other, x, steps=2, progress=False)  # and it can be trained further
