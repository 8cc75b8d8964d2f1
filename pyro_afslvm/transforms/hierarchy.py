"""Levels of latents, each given the present of the levels above it."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms.autoregressive import TemporalAutoregressive
from pyro_afslvm.transforms.base import Steps, TemporalTransform
from pyro_afslvm.transforms.chain import TemporalChain
from pyro_afslvm.transforms.steps import AffineStep, Inverse, compose, sum_log_scales
from pyro_afslvm.transforms.time_axis import join


class TemporalHierarchy(TemporalTransform):
    r"""Transforms of vectors stacked into levels, the top one first.

    .. math:: z_t = (z^1_t, \dots, z^L_t), \qquad
        z^l_t = \mu^l(z^l_{<t}, z^{<l}_{\le t}) + \sigma^l(z^l_{<t}, z^{<l}_{\le t}) \odot
        \epsilon^l_t

    Level l sees its own past, and the levels above it up to the present, through its
    ``context``, after the context of the whole. As a prior it is a hierarchy of latents, as a
    posterior one that samples from the top down.

    Args:
        parts: one transform of vectors for each level; that of level l takes as many context
            features as the whole, plus the sizes of the levels above.
        sizes: size of a vector of each level.

    Raises:
        ValueError: if there are no levels, or one that needs history or no size.

    Marino et al. leave hierarchies of latents to future work.

    >>> from pyro_afslvm import LSTMConditioner, TemporalAffine
    >>> top = TemporalAffine(LSTMConditioner(2, hidden=8))
    >>> bottom = TemporalAffine(LSTMConditioner(3, hidden=8, context_features=2))
    >>> TemporalHierarchy([top, bottom], sizes=[2, 3])(torch.randn(7, 10, 5)).shape
    torch.Size([7, 10, 5])
    """

    def __init__(self, parts: Sequence[TemporalTransform], sizes: Sequence[int]) -> None:
        if not parts or len(parts) != len(sizes) or min(sizes) < 1:
            raise ValueError(f"expected a size for each level, got {len(parts)} and {list(sizes)}")
        if any(part.frame_dims != 1 or part.context_length for part in parts):
            raise ValueError("every level must be a transform of vectors that starts from nothing")
        super().__init__(frame_dims=1, context_length=0, reach=None)
        self.parts = nn.ModuleList(parts)
        self.sizes = tuple(sizes)

    @property
    def is_affine(self) -> bool:
        """True if every level is affine, given the past and the present of the levels above."""
        return all(part.is_affine for part in self._parts)

    def intermediates(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Steps:
        """Invert in one step, with shift, log-scale and noise of all latents side by side."""
        full = self._split(join(history, x, 1))
        pasts = [None] * len(self.sizes) if history is None else self._split(history)
        found: list[AffineStep | Inverse] = []
        for l, (part, values) in enumerate(zip(self._parts, self._split(x), strict=True)):
            seen = _beside(context, *full[:l])
            found.append(self._one(part.intermediates(values, history=pasts[l], context=seen)))
        return [type(found[0])(*(_joined(*same) for same in zip(*found, strict=True)))]

    def _one(self, steps: Steps) -> AffineStep | Inverse:
        """Put the steps of a level together."""
        noise = steps[-1].noise
        if self.is_affine:
            return AffineStep(*compose(steps), noise)
        return Inverse(noise, sum_log_scales(steps))

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Return a state per level."""
        if history is None:
            return tuple(part.initial_state(batch_shape) for part in self._parts)
        full = self._split(history)
        return tuple(
            part.initial_state(batch_shape, history=past, context=_beside(context, *full[:l]))
            for l, (part, past) in enumerate(zip(self._parts, full, strict=True))
        )

    def step(
        self, noise: Tensor, state: tuple[Any, ...], *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        frames: list[Tensor] = []
        log_scales, states = [], []
        for part, own, before in zip(self._parts, self._split(noise), state, strict=True):
            frame, log_scale, after = part.step(own, before, context=_beside(context, *frames))
            frames.append(frame)
            log_scales.append(log_scale.expand_as(frame))
            states.append(after)
        return _joined(*frames), _joined(*log_scales), tuple(states)

    def inverse_step(
        self, frame: Tensor, state: tuple[Any, ...], *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        own = self._split(frame)
        steps = [
            part.inverse_step(own[l], state[l], context=_beside(context, *own[:l]))
            for l, part in enumerate(self._parts)
        ]
        noises, log_scales, states = zip(*steps, strict=True)
        return _joined(*noises), _joined(*log_scales), states

    @property
    def _parts(self) -> list[TemporalTransform]:
        return cast(list[TemporalTransform], list(self.parts))

    def _split(self, z: Tensor) -> list[Tensor]:
        if z.shape[-1] != sum(self.sizes):
            raise ValueError(f"expected vectors of {sum(self.sizes)} numbers, got {z.shape[-1]}")
        return list(z.split(self.sizes, -1))


def _joined(*parts: Tensor) -> Tensor:
    """Put vectors side by side; their batch dimensions are broadcast."""
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], -1)


def _beside(context: Tensor | None, *above: Tensor) -> Tensor | None:
    """Make the context of a level: that of the whole, and the levels above."""
    given = above if context is None else (context, *above)
    return _joined(*given) if given else None


def check_size(transform: TemporalTransform, size: int, name: str) -> None:
    """Refuse a transform that is not of vectors of this size, or needs frames to start from.

    Raises:
        ValueError: for such a transform.
    """
    if transform.frame_dims != 1 or transform.context_length:
        raise ValueError(f"{name} must be a transform of vectors that starts from nothing")
    if isinstance(transform, TemporalHierarchy):
        found = {sum(transform.sizes)}
    else:
        parts = transform.parts if isinstance(transform, TemporalChain) else [transform]
        sized = [part for part in parts if isinstance(part, TemporalAutoregressive)]
        found = {n for part in sized for n in part.conditioner.initial_shape[-1:]}
    if wrong := found - {1, size}:
        raise ValueError(f"expected {name} to be of {size} latents, got one of {min(wrong)}")
