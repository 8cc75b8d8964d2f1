"""Ceilings of a device: products of matrices, and convolutions alone."""

import torch
from torch.nn import functional


class Product:
    """A product of square matrices."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.a, self.b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        self.flops = 2 * size**3

    def __call__(self) -> None:
        torch.mm(self.a, self.b)


class Convolution:
    """Forward and backward of a convolution of the flow's: 64 to 64 channels, 3×3."""

    def __init__(self, count: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        x = torch.randn(count, 64, size, size, dtype=dtype, device=device)
        self.x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(64, 64, 3, 3, dtype=dtype, device=device)
        self.weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
        self.gradient = torch.randn_like(self.x)
        self.flops = 3 * 2 * 9 * 64 * self.x.numel()

    def __call__(self) -> None:
        self.x.grad = self.weight.grad = None
        functional.conv2d(self.x, self.weight, padding=1).backward(self.gradient)
