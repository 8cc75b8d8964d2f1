"""Conditioners without a network: the parameters are the context, or zero."""

from typing import Any

import torch
from torch import Tensor

from pyro_afslvm.transforms.conditioners.base import Conditioner
from pyro_afslvm.transforms.time_axis import time_length


class _WithoutPast(Conditioner):
    """Conditioner of vectors that keeps nothing of the past."""

    def __init__(self, features: int, *, num_parameters: int = 2) -> None:
        super().__init__(
            frame_dims=1,
            initial_shape=(features,),
            window=0,
            reach=0,
            num_parameters=num_parameters,
        )
        self.features = features

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Any, ...]:
        return ()


class GivenParameters(_WithoutPast):
    """Conditioner of vectors whose parameters are its context.

    In an affine transform of N(0, I) it makes a posterior that does not look at earlier latents,
    with what an encoder gives as its parameters.

    Args:
        features: size D of a vector.
        num_parameters: parameters P of each entry; a context has D times P features, all of the
            first parameter before those of the next.

    Raises:
        ValueError: when used, without such a context.

    >>> posterior = GivenParameters(3)
    >>> posterior(torch.zeros(5, 10, 3), context=torch.randn(5, 10, 6)).shape
    torch.Size([5, 10, 3, 2])
    """

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        if context is not None:
            length = time_length(values, 1)
            context = context.narrow(-2, context.shape[-2] - length, length)
        return self._of(context)

    def step(
        self, previous: Tensor | None, state: Any, *, context: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        return self._of(context), ()

    def _of(self, context: Tensor | None) -> Tensor:
        found = 0 if context is None else context.shape[-1]
        if context is None or found != self.features * self.num_parameters:
            raise ValueError(
                f"expected a context of {self.num_parameters} parameters for each of "
                f"{self.features} entries, got {found} features"
            )
        each: Tensor = context.unflatten(-1, (self.num_parameters, self.features))
        return each.transpose(-1, -2)


class StandardNormal(_WithoutPast):
    """Conditioner of a transform that changes nothing: its frames are its noise, N(0, I).

    As a prior it leaves to the decoder what the past says of the latents.

    Args:
        features: size of a vector.

    >>> StandardNormal(3)(torch.ones(5, 10, 3)).abs().max().item()
    0.0
    """

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        return values.new_zeros((*values.shape, 2))

    def step(
        self, previous: Tensor | None, state: Any, *, context: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        return torch.zeros(self.features, 2), ()
