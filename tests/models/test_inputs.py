"""Data of any precision, tensors or arrays, at the door of every public function."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pyro_afslvm import (
    SLVM,
    FilteringGuide,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    StreamingFilter,
    TemporalAffine,
    fit,
    rollout,
)
from pyro_afslvm.metrics import crps, temporal_correlation
from pyro_afslvm.networks import MLPDecoder, MLPEncoder
from pyro_afslvm.objectives import bound_terms, iwae, smc
from pyro_afslvm.results import infer

LENGTHS = [5, 3, 6, 4]


def flow() -> Pair:
    return Pair(FlowModel(TemporalAffine(MLPConditioner(2, window=1)), (2,)), None)


def slvm() -> Pair:
    model = SLVM(
        (2,),
        3,
        prior=TemporalAffine(LSTMConditioner(3, hidden=8)),
        decoder=MLPDecoder(3, 2),
        flow=TemporalAffine(MLPConditioner(2, window=1)),
    )
    return Pair(model, FilteringGuide(model, MLPEncoder(2), hidden=8))


def streamed(pair: Pair, x: Any) -> Any:
    stream = StreamingFilter(*pair)
    return [stream.update(x[:, t]) for t in range(x.shape[1])][-1].log_likelihood


FUNCTIONS: dict[str, Callable[[Pair, Any], Any]] = {
    "forward": lambda pair, x: pair.model(x, horizon=2),
    "log_prob": lambda pair, x: pair.model.log_prob(x) if pair.guide is None else pair.guide(x),
    "fit": lambda pair, x: fit(*pair, x, steps=2, batch_size=2, progress=False).bound,
    "fit-lengths": lambda pair, x: (
        fit(*pair, x, lengths=LENGTHS, steps=2, batch_size=2, progress=False).bound
    ),
    "rollout": lambda pair, x: rollout(*pair, x, horizon=2, num_samples=2)["x_future"],
    "rollout-lengths": lambda pair, x: rollout(*pair, x, horizon=2, num_samples=2, lengths=LENGTHS)[
        "x_future"
    ],
    "infer": lambda pair, x: infer(*pair, x, num_samples=3, horizon=2)["log_likelihood/x"],
    "iwae": lambda pair, x: iwae(*pair, x, num_particles=3).log_evidence,
    "iwae-lengths": lambda pair, x: iwae(*pair, x, num_particles=3, lengths=LENGTHS).log_evidence,
    "terms": lambda pair, x: bound_terms(*pair, x).bound,
    "smc": lambda pair, x: smc(*pair, x, num_particles=3).log_evidence,
    "stream": streamed,
}
KINDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "float32": lambda x: x,
    "float64": lambda x: x.double(),
    "numpy": lambda x: x.double().numpy(),
    "numpy-float16": lambda x: x.numpy().astype(np.float16),
    "xarray": lambda x: xr.DataArray(x.double().numpy()),
}


@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("make", [flow, slvm])
def test_data_of_any_kind(
    make: Callable[[], Pair], name: str, kind: str, precision: torch.dtype
) -> None:
    if name == "smc" and make is flow:
        pytest.skip("a flow has no latents to filter")
    pair = make()
    for program in pair:
        if program is not None:
            program.to(precision)
    found = FUNCTIONS[name](pair, KINDS[kind](torch.randn(4, 6, 2)))
    values = found.detach() if isinstance(found, torch.Tensor) else torch.as_tensor(found.values)
    assert not values.isnan().all()
    if name in ("forward", "log_prob"):
        assert values.dtype == precision


ODD: dict[str, Callable[[np.ndarray], Any]] = {
    "big-endian": lambda x: x.astype(">f4"),
    "backwards": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "by-columns": np.asfortranarray,
    "list-of-arrays": lambda x: [*x],
    "list-of-tensors": lambda x: [*torch.as_tensor(x)],
    "numbers": lambda x: x.tolist(),
    "xarray": lambda x: xr.DataArray(x.astype(">f4")),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("forward", "stream")])
def test_arrays_that_torch_does_not_read(name: str, kind: str) -> None:
    values = torch.randn(4, 6, 2).numpy()
    found = []
    for x in (torch.as_tensor(values), ODD[kind](values)):
        torch.manual_seed(0)
        pair = slvm()
        torch.manual_seed(1)
        result = FUNCTIONS[name](pair, x)
        is_tensor = isinstance(result, torch.Tensor)
        found.append(result.detach() if is_tensor else torch.as_tensor(result.values))
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ODD)
def test_metrics_of_arrays_that_torch_does_not_read(kind: str) -> None:
    values = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    x = ODD[kind](values)
    assert temporal_correlation(x) == temporal_correlation(values)
    samples = np.stack([values + 1, values])
    assert torch.equal(crps(samples, x), crps(samples, values))


def test_whole_numbers_are_still_refused() -> None:
    model, _ = flow()
    with pytest.raises(ValueError, match="expected frames as floating point numbers"):
        model.log_prob(torch.zeros(4, 6, 2, dtype=torch.uint8))
