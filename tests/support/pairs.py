"""What is asked of every pair of model and guide."""

from collections.abc import Sequence

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import Pair


def parameters(pair: Pair) -> list[nn.Parameter]:
    """Of model and guide."""
    return [p for part in pair for p in part.parameters()]


def check_training(pair: Pair, x: Tensor) -> None:
    """SVI and torch get the same gradients, and no parameter stays where it is."""
    pyro.set_rng_seed(2)
    Trace_ELBO().loss_and_grads(*pair, x)
    by_svi = [p.grad.clone() for p in parameters(pair)]
    for part in pair:
        part.zero_grad()
    pyro.set_rng_seed(2)
    Trace_ELBO()(*pair)(x).backward()
    for p, expected in zip(parameters(pair), by_svi, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-12)
    before = [p.detach().clone() for p in parameters(pair)]
    SVI(*pair, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(x)
    names = [name for part in pair for name, _ in part.named_parameters()]
    moved = zip(names, parameters(pair), before, strict=True)
    assert [name for name, p, old in moved if torch.equal(p, old)] == []


def drawn_at_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all Gaussian draws be their means, so that bounds are functions of the frames alone."""
    for kind in (torch.distributions.Normal, pyro.distributions.Normal):
        monkeypatch.setattr(kind, "rsample", _mean)
        monkeypatch.setattr(kind, "sample", _mean)


def _mean(normal: torch.distributions.Normal, sample_shape: Sequence[int] = ()) -> Tensor:
    return normal.loc.expand(normal._extended_shape(torch.Size(sample_shape)))
