"""torch's own clients of a model: function transforms, export and compilation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, vmap

from pyro_afslvm import (
    ConvConditioner,
    DilatedConditioner,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    TemporalAffine,
    TemporalChain,
    TemporalMixture,
)
from pyro_afslvm.transforms import triangular_mixing

MODELS: dict[str, Callable[[], FlowModel]] = {
    "mlp": lambda: FlowModel(TemporalAffine(MLPConditioner(2, window=1)), (2,)),
    "conv": lambda: FlowModel(TemporalAffine(ConvConditioner(1, hidden=4, window=1)), (1, 4, 4)),
    "dilated": lambda: FlowModel(TemporalAffine(DilatedConditioner(2, hidden=4)), (2,)),
    "mixture": lambda: FlowModel(
        TemporalMixture(MLPConditioner(2, window=1, num_parameters=9)), (2,)
    ),
    "chain": lambda: FlowModel(
        TemporalChain([TemporalAffine(MLPConditioner(2, window=2)), triangular_mixing(2)]), (2,)
    ),
}
each = pytest.mark.parametrize("name", MODELS)
pytestmark = pytest.mark.filterwarnings(
    "ignore:There is a performance drop because", "ignore::DeprecationWarning"
)


class LogProb(nn.Module):
    """The log-likelihood of each sequence, as the module that torch's clients take."""

    def __init__(self, model: FlowModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x).sum(-1)


def made(name: str) -> tuple[LogProb, Tensor]:
    model = MODELS[name]().eval()
    return LogProb(model), torch.randn(3, 5, *model.frame_shape)


@each
def test_gradients_of_each_sequence(name: str) -> None:
    module, x = made(name)
    parameters = dict(module.named_parameters())

    def one(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = functional_call(module, parameters, (x[None],))[0]
        return found

    found = vmap(grad(one), in_dims=(None, 0))(parameters, x)
    for i in range(len(x)):
        gradients = torch.autograd.grad(module(x[i : i + 1]).sum(), list(parameters.values()))
        for (name, each_one), expected in zip(found.items(), gradients, strict=True):
            torch.testing.assert_close(each_one[i], expected, rtol=1e-4, atol=1e-4, msg=name)


@each
def test_vmap_and_forward_mode(name: str) -> None:
    module, x = made(name)
    mapped = vmap(lambda x: module(x[None])[0])(x)
    torch.testing.assert_close(mapped, module(x), rtol=1e-4, atol=1e-4)
    if name in ("mlp", "chain"):  # others have parts without forward-mode derivatives
        forward = jacfwd(lambda x: module(x[None])[0])(x[0])
        backward = torch.autograd.functional.jacobian(lambda x: module(x[None])[0], x[0])
        torch.testing.assert_close(forward, backward, rtol=1e-4, atol=1e-4)


@each
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_export(name: str, strict: bool) -> None:
    module, x = made(name)
    exported: Any = torch.export.export(module, (x,), strict=strict).module()
    torch.testing.assert_close(exported(x), module(x), rtol=1e-5, atol=1e-5)


@each
def test_compilation_in_one_graph(name: str) -> None:
    module, x = made(name)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "client"), [("mlp", "export"), ("mlp", "compile")])
def test_after_it_was_used(name: str, client: str) -> None:
    """What the cache holds of an ordinary evaluation is not compared within a graph."""
    module, x = made(name)
    expected = module(x)
    torch.compiler.reset()
    if client == "export":
        traced: Any = torch.export.export(module, (x,), strict=True).module()
    else:
        traced = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(x), expected)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_an_lstm_in_one_graph() -> None:
    model = FlowModel(TemporalAffine(LSTMConditioner(2, hidden=4)), (2,)).eval()
    module, x = LogProb(model), torch.randn(3, 5, 2)
    exported: Any = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x), rtol=1e-5, atol=1e-5)
