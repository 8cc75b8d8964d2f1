"""Checks of the frames, lengths and latents that a program is given."""

import math

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from pyro_afslvm.utils.tracing import checks_values


def check_shape(x: Tensor, frame_shape: tuple[int, ...]) -> None:
    """Refuse anything but a batch of sequences of such frames."""
    if x.ndim != 2 + len(frame_shape) or x.shape[2:] != frame_shape:
        expected = ", ".join(["batch", "time", *map(str, frame_shape)])
        raise ValueError(f"expected x of shape ({expected}), got {tuple(x.shape)}")
    if x.is_meta and is_validation_enabled():
        raise ValueError(
            "x is on the meta device, which has no values for the distributions to check: "
            "pyro.enable_validation(False)"
        )
    if not x.shape[0]:
        raise ValueError(f"expected at least 1 sequence, got x of shape {tuple(x.shape)}")


def check_values(x: Tensor, frame_shape: tuple[int, ...]) -> None:
    """Refuse frames that are not finite or, for video, not in the units of the model."""
    if not x.is_floating_point():
        raise ValueError(
            f"expected frames as floating point numbers, got {x.dtype}: dequantize 0..255 "
            "pixels first, see pyro_afslvm.data.GaussianDequantization"
        )
    if not checks_values(x):
        return
    largest = float(x.detach().abs().max())  # NaN and Inf survive a maximum
    if not math.isfinite(largest):
        raise ValueError(f"x holds NaN or Inf; expected finite values{_padded(x)}")
    if len(frame_shape) == 3 and 16.0 < largest <= 255.0 and _is_pixels(x.detach()):
        raise ValueError(
            f"x reaches {largest:g} in whole numbers; expected pixels near [0, 1], not 0..255: "
            "dequantize them, see pyro_afslvm.data.GaussianDequantization"
        )


def _is_pixels(x: Tensor) -> bool:
    """Tell whether all values are whole numbers from zero on, as those of 8-bit pixels."""
    return bool((x >= 0).all()) and bool((x == x.round()).all())


def _padded(x: Tensor) -> str:
    """Say what it is if nothing but the ends of sequences is not finite."""
    if x.shape[1] < 2:
        return ""
    missing = x.flatten(2).isnan().all(-1)  # (batch, T)
    ends = missing.flip(1).cumprod(1).flip(1).bool()
    alone = not bool((~x.flatten(2).isfinite()).any(-1)[~ends].any())
    if not alone or not bool(ends.any()):
        return ""
    return (
        f": the last frames of {int(ends.any(1).sum())} of {len(x)} sequences are NaN, which looks "
        "like padding; pass `lengths=`, the frames of each that count"
    )


def check_padding(values: Tensor, mask: Tensor) -> None:
    """Refuse padding so large that its gradient, which is multiplied by zero, is infinite."""
    if not checks_values(values):
        return
    outside = mask.reshape(*mask.shape, *[1] * (values.ndim - 2))
    largest = float(values.detach().masked_fill(outside, 0.0).abs().max())
    if largest > 1e6:
        raise ValueError(f"padding reaches {largest:g}: fill it with zeros")


def check_lengths(lengths: Tensor, batch: int, shortest: int, longest: int) -> None:
    """Refuse lengths that are not one whole number in range for every sequence."""
    kind = lengths.dtype
    if lengths.shape != (batch,) or kind.is_floating_point or kind == torch.bool:
        raise ValueError(f"expected {batch} whole lengths, got {tuple(lengths.shape)} of {kind}")
    if not checks_values(lengths):
        return
    low, high = int(lengths.min()), int(lengths.max())
    if low < shortest or high > longest:
        raise ValueError(f"lengths must lie in {shortest}..{longest}, got {low}..{high}")


def check_horizon(x: Tensor | None, horizon: int, lengths: Tensor | None) -> None:
    """Refuse a program with nothing to do, and a future that would follow padding."""
    if horizon < 0 or (x is None and horizon == 0):
        raise ValueError(f"expected horizon >= 1 without x, and >= 0 with it; got {horizon}")
    if horizon and lengths is not None:
        raise ValueError(
            "expected no lengths with a horizon, for the future would follow the padding; "
            "forecast sequences of one length together"
        )


def check_latents(z: Tensor, steps: int, latent_size: int) -> None:
    """Refuse latents from a guide that was made for another model."""
    if z.shape[-2:] != (steps, latent_size):
        raise ValueError(
            f"expected z of shape (..., {steps}, {latent_size}), got {tuple(z.shape)}: the "
            "guide was made for another model"
        )
