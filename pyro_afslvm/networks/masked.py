"""Masked convolutions of single images."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, elu

from pyro_afslvm.networks.layers import on_frames
from pyro_afslvm.networks.residual import near_zero


class MaskedConv2d(nn.Conv2d):
    r"""Convolution that at a pixel sees the pixels before it in raster order.

    Of the pixel itself it sees the channels of which ``degrees`` says so: output channel o sees
    input channel i if :math:`d_i \le d_o`, or :math:`d_i < d_o` with ``strict``.

    Args:
        degrees: of the input channels, and of the output channels.
        kernel: height and width, odd.
        strict: whether equal degrees are hidden.
        backward: from the last pixel to the first, and from the highest degree to the lowest.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, *Pixel Recurrent Neural Networks*,
    arXiv:1601.06759.
    """

    mask: Tensor

    def __init__(
        self,
        degrees: tuple[Tensor, Tensor],
        *,
        kernel: int = 3,
        strict: bool = False,
        backward: bool = False,
    ) -> None:
        inputs, outputs = degrees
        super().__init__(len(inputs), len(outputs), kernel, padding=kernel // 2)
        if backward:
            inputs, outputs = -inputs, -outputs
        seen = inputs < outputs[:, None] if strict else inputs <= outputs[:, None]
        mask = torch.zeros(len(outputs), len(inputs), kernel * kernel)
        centre = kernel * kernel // 2
        before = slice(centre + 1, None) if backward else slice(centre)
        mask[:, :, before] = 1.0
        mask[:, :, centre] = seen.float()
        self.register_buffer("mask", mask.reshape(self.weight.shape))

    def forward(self, x: Tensor) -> Tensor:  # (N, inputs, H, W) -> (N, outputs, H, W)
        return conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedImageNetwork(nn.Module):
    """Masked convolutions from an image and its context to m and s of every entry.

    Args:
        channels: of the image.
        context_channels: of the context; 0 for none.
        hidden: channels of the hidden layers.
        kernel: height and width of the convolutions, odd.
        backward: whether the order of the entries is reversed.
        initial_bias: of s.
    """

    reverse: Tensor

    def __init__(
        self,
        channels: int,
        context_channels: int,
        hidden: Sequence[int],
        *,
        kernel: int,
        backward: bool,
        initial_bias: float,
    ) -> None:
        super().__init__()
        # entries have degrees 1 to C; of its own pixel a hidden channel sees those up to its
        # degree (from it on, backward), so one of 0 (C + 1) sees earlier pixels only
        entries = torch.arange(channels) + 1
        shift = 2 if backward else 0
        degrees = [entries, *(torch.arange(width) % channels + shift for width in hidden)]
        self.layers = nn.ModuleList(
            MaskedConv2d(pair, kernel=kernel, backward=backward) for pair in pairwise(degrees)
        )
        self.context = nn.Conv2d(context_channels, hidden[0], 1) if context_channels else None
        both = (degrees[-1], entries.repeat(2))
        last = MaskedConv2d(both, kernel=kernel, strict=True, backward=backward)
        self.last = near_zero(last)
        with torch.no_grad():
            cast(Tensor, last.bias)[channels:] = initial_bias
        self.register_buffer("reverse", torch.tensor(backward))
        self.channels = channels

    def forward(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute m and s of ``(*batch, C, H, W)``, in the precision of z."""
        dtype = self.last.weight.dtype
        features = on_frames(self.layers[0], z.to(dtype), 3)
        if self.context is not None and context is not None:
            features = features + on_frames(self.context, context.to(dtype), 3)
        for layer in self.layers[1:]:
            features = on_frames(layer, elu(features), 3)
        m, s = on_frames(self.last, elu(features), 3).to(z).chunk(2, -3)
        return m, s

    def order(self, height: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Channel, row and column of every entry, first to last."""
        places = [
            (c, i, j) for i in range(height) for j in range(width) for c in range(self.channels)
        ]
        is_reversed = not self.reverse.is_meta and bool(self.reverse)  # meta knows no values
        return iter(places[::-1] if is_reversed else places)
