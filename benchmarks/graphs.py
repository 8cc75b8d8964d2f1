"""A training step, and one that an accelerator repeats by itself.

A small model's step is hundreds of short kernels, and the processor that starts them, through
Python and Pyro, is the slower one. As a CUDA graph the step runs in Python once and is then
repeated as a whole: Pyro's handlers work while it is captured, and never again.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms.cache import parameters_changed

Precision = Literal["float32", "bf16"]
Loss = Callable[[], Tensor]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Networks in bfloat16, or not."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class TrainingStep:
    """Forward, backward, clipping and Adam, with nothing that waits for the device.

    Args:
        module: with the parameters, on their device.
        loss: of the module, on data that stay where they are in memory.
        precision: of the networks.
        learning_rate: of Adam; a tensor may be changed between repetitions.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        precision: Precision,
        *,
        learning_rate: float | Tensor = 1e-4,
    ) -> None:
        self.parameters = list(module.parameters())
        self.device = self.parameters[0].device
        self.loss, self.precision = loss, precision
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=learning_rate,
            fused=True,
            capturable=self.device.type == "cuda",  # it counts its steps there
        )

    def __call__(self) -> Tensor:
        """Do a step; gives the loss before it, without waiting for it."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision):
            value = self.loss()
        value.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        return value.detach()


class CapturedStep:
    """A training step as a CUDA graph: draws of latents are fresh at every replay.

    Whatever Python decides is decided once: shapes, train and eval mode, weights of the bound.
    New data are copied into the tensor that the step was captured with.

    Args:
        step: it is done ``warmup`` times first, as libraries choose their kernels in the first
            ones; capturing changes nothing.
        warmup: steps before.

    Raises:
        RuntimeError: if the step does what cannot be captured, such as waiting for the device.
    """

    def __init__(self, step: Callable[[], Tensor], *, warmup: int = 3) -> None:
        self.step = step  # its tensors are the graph's
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warmup):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.loss = step()

    def __call__(self) -> Tensor:
        """Repeat the step; gives the loss before it, which the next call overwrites."""
        self.graph.replay()
        parameters_changed()
        return self.loss
