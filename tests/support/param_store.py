"""Pairs and their parameters, in Pyro's param store."""

import pickle
from typing import Any

import pyro
import pyro.optim
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import Pair
from tests.support.guides import sequences, system

X = sequences()
Z = torch.randn(3, 6, 4, dtype=torch.float64)  # latents of X


def make(seed: int = 0, guide: str = "filtering", model: str = "plain") -> Pair:
    return Pair(*system(model, guide, seed=seed))


def store() -> Any:
    return pyro.get_param_store()


def step(pair: Pair) -> float:
    adam = pyro.optim.Adam({"lr": 1e-2})
    pyro.set_rng_seed(5)
    return SVI(*pair, adam, Trace_ELBO()).step(X)


def parameters(pair: Pair) -> list[nn.Parameter]:
    return [p for part in pair for p in part.parameters()]


def values(pair: Pair) -> list[Tensor]:
    return [p.detach().clone() for p in parameters(pair)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def all_moved(pair: Pair, before: list[Tensor]) -> bool:
    return not any(torch.equal(a, b) for a, b in zip(values(pair), before, strict=True))


def saved() -> Any:
    """The store as if from a file."""
    return pickle.loads(pickle.dumps(store().get_state()))


def run(pair: Pair) -> None:
    pair.guide(X)
    pair.model(X)
