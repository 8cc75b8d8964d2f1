"""Layers that are faster than torch's compute what torch's do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import (
    PatchConvolution,
    PixelProjection,
    Rectifier,
    WindowConvolution,
)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def same_layer(mine: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Outputs and gradients are torch's; what follows finds channels last in memory."""
    theirs.load_state_dict(mine.state_dict())
    x.requires_grad_()
    outputs = [layer(x) for layer in (mine, theirs)]
    close(*outputs)
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)
    weight = torch.randn_like(outputs[0])
    gradients = [
        torch.autograd.grad((out * weight).sum(), [x, *layer.parameters()])
        for out, layer in zip(outputs, (mine, theirs), strict=True)
    ]
    for a, b in zip(*gradients, strict=True):
        close(a, b)


@pytest.mark.parametrize(
    ("channels", "options"),
    [(1, (3, 1, 1)), (3, (3, 1, 1)), (1, (4, 2, 1)), (3, (4, 2, 1)), (2, (5, 3, 0))],
)
def test_patch_convolution_is_convolution(channels: int, options: tuple[int, ...]) -> None:
    size, stride, padding = options
    mine = PatchConvolution(channels, 6, size, stride=stride, padding=padding).double()
    theirs = nn.Conv2d(channels, 6, size, stride=stride, padding=padding).double()
    same_layer(mine, theirs, torch.randn(4, channels, 12, 10, dtype=torch.float64))


def test_patch_convolution_elsewhere_has_channels_last() -> None:
    x = torch.zeros(4, 1, 12, 10, device="meta")
    y = PatchConvolution(1, 6, 3, padding=1).to("meta")(x)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_pixel_projection_is_transposed_convolution() -> None:
    mine = PixelProjection(5, 6, (3, 4)).double()
    theirs = nn.ConvTranspose2d(5, 6, (3, 4)).double()
    same_layer(mine, theirs, torch.randn(7, 5, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("window", [1, 2, 3])
def test_window_convolution_over_time_is_that_of_each_window(window: int) -> None:
    layer = WindowConvolution(window, 5, 4).double()
    x = torch.randn(2, 7, 5, 6, 6, dtype=torch.float64)
    over_time = layer.over_time(x)
    one_by_one = [layer(x[:, t : t + window].flatten(1, 2)) for t in range(8 - window)]
    close(over_time, torch.stack(one_by_one, 1))


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rectifier_is_that_of_torch(slope: float, dtype: Any) -> None:
    x = torch.randn(100).to(dtype)
    assert torch.equal(Rectifier(slope)(x.clone()), nn.functional.leaky_relu(x, slope))
