"""Devices without double precision: no function makes numbers of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_afslvm import Pair, StreamingFilter, fit, rollout
from pyro_afslvm.metrics import coverage, crps, forecast_scores, psnr, ssim, temporal_correlation
from pyro_afslvm.objectives import bound_terms, iwae, smc
from pyro_afslvm.results import infer
from pyro_afslvm.utils import precision
from tests.support.guides import sequences, system
from tests.support.inferred import flow_model


class NoDouble(TorchDispatchMode):
    """A device on which a number in double precision cannot be made."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [a for a in tree_leaves(out) if isinstance(a, torch.Tensor)]
        assert all(a.dtype != torch.float64 for a in made), f"{func} made double precision"
        return out


LENGTHS = torch.tensor([8, 5, 6])
FORECASTS = torch.rand(4, 2, 3, 1, 8, 8), torch.rand(2, 3, 1, 8, 8)

OF_PAIRS: dict[str, Callable[[Pair, torch.Tensor], Any]] = {
    "iwae": lambda pair, x: iwae(*pair, x, num_particles=3, lengths=LENGTHS),
    "smc": lambda pair, x: smc(*pair, x, num_particles=3),
    "infer": lambda pair, x: infer(*pair, x, num_samples=3, horizon=2, lengths=LENGTHS),
    "terms": lambda pair, x: bound_terms(*pair, x, lengths=LENGTHS),
    "rollout": lambda pair, x: rollout(*pair, x, horizon=2, num_samples=2),
    "fit": lambda pair, x: fit(*pair, x, steps=2, progress=False, lengths=LENGTHS),
    "stream": lambda pair, x: StreamingFilter(*pair).update(x[:, 0]),
}
OF_ARRAYS: dict[str, Callable[[], Any]] = {
    "crps": lambda: crps(*FORECASTS),
    "coverage": lambda: coverage(*FORECASTS, level=[0.5, 0.9]),
    "psnr": lambda: psnr(*FORECASTS),
    "ssim": lambda: ssim(*FORECASTS),
    "scores": lambda: forecast_scores(*FORECASTS, lengths=torch.tensor([3, 1])),
    "correlation": lambda: temporal_correlation(FORECASTS[1]),
    "correlation-lengths": lambda: temporal_correlation(FORECASTS[1], torch.tensor([3, 2])),
}


@pytest.fixture(autouse=True)
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_SINGLE", {"cpu", "mps"})


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("guide", ["filtering", "filtering-iaf", "iterative"])
def test_functions_of_models(name: str, guide: str) -> None:
    pair = Pair(*system("plain", guide, dtype=torch.float32))
    x = sequences().float()
    with NoDouble():
        OF_PAIRS[name](pair, x)


@pytest.mark.parametrize("name", ["iwae", "infer", "terms", "fit", "rollout", "stream"])
def test_functions_of_flows(name: str) -> None:
    x = torch.randn(3, 8, 2)
    with NoDouble():
        OF_PAIRS[name](Pair(flow_model(), None), x)


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_functions_of_arrays(name: str) -> None:
    with NoDouble():
        OF_ARRAYS[name]()


def test_double_precision_from_elsewhere_is_brought_to_what_is_there() -> None:
    samples, truth = FORECASTS
    assert torch.equal(crps(samples, truth.double()), crps(samples, truth))


def test_the_guard_guards() -> None:
    with pytest.raises(AssertionError, match="made double precision"), NoDouble():
        torch.zeros(2).double()
