"""The inverse autoregressive flow of images, by masked convolutions."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_afslvm.networks.masked import MaskedImageNetwork
from pyro_afslvm.transforms.iaf.base import ConditionedInverseFlow, InverseFlow

_IMAGE = constraints.independent(constraints.real, 3)


class ConvInverseAutoregressive(InverseFlow):
    r"""Inverse autoregressive flow of images, in its numerically stable form.

    .. math:: z \leftarrow \sigma \odot z + (1 - \sigma) \odot m, \qquad
        \sigma = \operatorname{sigmoid}(s), \quad (m, s) = \operatorname{MaskedConv}(z, h)

    The event is an image ``(C, H, W)``. Each entry of :math:`m` and :math:`s` sees the pixels
    before its own in raster order and the channels before it in its own pixel, as far as the
    kernels reach; every other step has the reverse order. Sampling is one pass of a network per
    step, and so is the log-determinant of a sample, in the same pass. A value that was not just
    sampled takes a pass per entry and step.

    Args:
        channels: of the image, which may have any height and width.
        context_channels: of the context :math:`h`, an image of the same height and width; 0 for
            none.
        depth: number of steps; with 0 it is the identity.
        hidden: channels of the networks' hidden layers, none below ``channels``.
        kernel: height and width of the convolutions, odd.
        initial_bias: of :math:`s`; 1 to 2 in the paper.

    Raises:
        ValueError: if a size is out of range.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, Algorithm 1 and Section 5.2.

    >>> iaf = ConvInverseAutoregressive(4, context_channels=3, depth=2, hidden=(16,))
    >>> conditioned = iaf.condition(torch.randn(5, 3, 7, 7))
    >>> z0 = torch.randn(5, 4, 7, 7)
    >>> conditioned.log_abs_det_jacobian(z0, conditioned(z0)).shape
    torch.Size([5])
    """

    domain = _IMAGE
    codomain = _IMAGE

    def __init__(
        self,
        channels: int,
        *,
        context_channels: int = 0,
        depth: int = 1,
        hidden: Sequence[int] = (32,),
        kernel: int = 3,
        initial_bias: float = 2.0,
    ) -> None:
        _check_sizes(channels, context_channels, depth, hidden, kernel)
        super().__init__(
            [
                MaskedImageNetwork(
                    channels,
                    context_channels,
                    hidden,
                    kernel=kernel,
                    backward=bool(k % 2),
                    initial_bias=initial_bias,
                )
                for k in range(depth)
            ]
        )
        self.channels = channels
        self.context_channels = context_channels

    @property
    def networks(self) -> list[MaskedImageNetwork]:
        """The network of each step."""
        return cast(list[MaskedImageNetwork], list(self.steps))

    def condition(self, context: Tensor | None = None) -> "ConditionedConvInverseAutoregressive":
        """Give the transform its context; the result shares the parameters.

        Args:
            context: ``(*batch, context_channels, H, W)`` for values ``(*batch, channels, H, W)``.

        Raises:
            ValueError: if a context is missing, not wanted or of another size.
        """
        return ConditionedConvInverseAutoregressive(self, context)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """The shape of the values, if they are images of so many channels."""
        if len(shape) < 3 or shape[-3] != self.channels:
            raise ValueError(
                f"expected images of {self.channels} channels, got shape {tuple(shape)}"
            )
        return torch.Size(shape)


class ConditionedConvInverseAutoregressive(ConditionedInverseFlow):
    """An inverse autoregressive flow of images with its context given."""

    domain = _IMAGE
    codomain = _IMAGE

    def __init__(self, transform: ConvInverseAutoregressive, context: Tensor | None) -> None:
        given = 0 if context is None else context.shape[-3] if context.ndim > 2 else 1
        if given != transform.context_channels:
            expected = transform.context_channels
            raise ValueError(f"expected a context of {expected or 'no'} channels, got {given}")
        super().__init__(transform, context=context)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """The shape of the values, broadcast with the context."""
        shape = torch.Size(self.transform.forward_shape(shape))
        if self.context is None:
            return shape
        context = self.context.shape
        try:
            if context[-2:] != tuple(shape[-2:]):
                raise RuntimeError
            return torch.Size((*torch.broadcast_shapes(shape[:-3], context[:-3]), *shape[-3:]))
        except RuntimeError:
            raise ValueError(
                f"values {tuple(shape)} and context {tuple(context)} do not broadcast"
            ) from None

    def _parameters(self, network: MaskedImageNetwork, z: Tensor) -> tuple[Tensor, Tensor]:
        """m and s in the precision of z, whatever the network ran in."""
        dtype = next(network.parameters()).dtype
        context = None if self.context is None else self.context.to(dtype)
        m, s = network(z.to(dtype), context)
        return m.to(z), s.to(z)

    def _undo(self, network: MaskedImageNetwork, y: Tensor) -> tuple[Tensor, Tensor]:
        z, log_scale = torch.zeros_like(y), torch.zeros_like(y)
        for c, i, j in network.order(*y.shape[-2:]):
            place = (..., c, i, j)
            m, s = (p[place] for p in self._parameters(network, z))
            z, log_scale = z.clone(), log_scale.clone()  # gradients need the earlier ones
            z[place] = y[place] + torch.exp(-s) * (y[place] - m)  # 1 / sigma = 1 + exp(-s)
            log_scale[place] = logsigmoid(s)
        return z, log_scale


def _check_sizes(
    channels: int, context_channels: int, depth: int, hidden: Sequence[int], kernel: int
) -> None:
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    if context_channels < 0 or depth < 0:
        raise ValueError(
            f"context_channels and depth must not be negative, got {context_channels} and {depth}"
        )
    if not hidden or (depth and min(hidden) < channels):
        raise ValueError(
            f"hidden must name at least one layer, of at least as many channels as the image's "
            f"{channels}, got {tuple(hidden)}"
        )
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"kernel must be odd and at least 3, got {kernel}")
