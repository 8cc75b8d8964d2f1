"""The base class of inverse autoregressive flows within a step: Algorithm 1 of the IAF paper."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform
from torch.distributions.utils import _sum_rightmost
from torch.nn.functional import logsigmoid

from pyro_afslvm.transforms.cache import CachedTransform, WithCache, random_state
from pyro_afslvm.transforms.steps import Inverse


class InverseFlow(CachedTransform):
    """An inverse autoregressive flow; a subclass says what its events and networks are.

    Args:
        steps: the network of each step.
    """

    def __init__(self, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    @property
    def depth(self) -> int:
        """Number of steps."""
        return len(self.steps)

    def condition(self, context: Tensor | None = None) -> "ConditionedInverseFlow":
        """Give the transform its context; the result shares the parameters."""
        raise NotImplementedError

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """The shape of the values, if their events are of the transform's size."""
        raise NotImplementedError

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """The shape of the noise: both directions keep it."""
        return self.forward_shape(shape)

    def _call(self, z: Tensor) -> Tensor:
        return self.condition()._call(z)

    def _inverse(self, z: Tensor) -> Tensor:
        return self.condition()._inverse(z)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.condition().log_abs_det_jacobian(x, y)


class ConditionedInverseFlow(WithCache, Transform):
    """An inverse autoregressive flow with its context, and a mask if it takes one, given.

    Sampling is one pass of a network per step, and so is the log-determinant of a sample, in
    the same pass; a value that was not just sampled takes a pass per entry and step.
    """

    bijective = True
    sign = +1

    def __init__(
        self, transform: InverseFlow, *, context: Tensor | None, mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.transform: Any = transform
        self.context = context
        self.mask = mask
        self._knows_source = transform._knows_source

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Broadcast the shape of values with what is given."""
        raise NotImplementedError

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Broadcast likewise, for both directions keep the shape."""
        return self.forward_shape(shape)

    def log_scale(self, value: Tensor) -> Tensor:
        """Logarithm of the derivative of every entry of a value, whose sum is the log det."""
        return self._inverted(value).log_scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        known = self._find(y)
        log_scale = self._sample(self._prepare(x))[1] if known is None else known.log_scale
        log_det: Tensor = _sum_rightmost(log_scale, self.domain.event_dim)
        return log_det

    def _call(self, z: Tensor) -> Tensor:
        if self._knows_source:
            cache: Any = self.transform._cache
            known: Tensor | None = cache.source((self.transform,), z, (self.context, self.mask))
            if known is not None:
                return known
        given, z, drawn = z, self._prepare(z), random_state(z)
        value, log_scale = self._sample(z)
        value, z = (self._as_given(each, given) for each in (value, z))
        self._keep(value, Inverse(z, log_scale), drawn)
        return value

    def _inverse(self, value: Tensor) -> Tensor:
        return self._inverted(value).noise

    def _inverted(self, value: Tensor) -> Inverse:
        inverse = self._find(value)
        if inverse is None:
            drawn = random_state(value)
            inverse = self._score(self._prepare(value))
            inverse = inverse._replace(noise=self._as_given(inverse.noise, value))
            self._keep(value, inverse, drawn)
        return inverse

    # Algorithm 1 ------------------------------------------------------------------------

    def _sample(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Make the value from the noise, with the log-scale of every entry."""
        value, log_scale = self._unpadded(z), torch.zeros_like(z)
        for network in self.transform.steps:
            m, s = self._parameters(network, value)
            value = torch.sigmoid(s) * value + torch.sigmoid(-s) * m
            log_scale = log_scale + logsigmoid(s)
        return self._masked(value, log_scale, identity=z)

    def _score(self, value: Tensor) -> Inverse:
        """Find the noise behind a value: entry after entry, step by step backwards."""
        z, log_scale = self._unpadded(value), torch.zeros_like(value)
        for network in reversed(self.transform.steps):
            z, step_log_scale = self._undo(network, z)
            log_scale = log_scale + step_log_scale
        return Inverse(*self._masked(z, log_scale, identity=value))

    def _parameters(self, network: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        """Give m and s of one step, in the precision of z."""
        raise NotImplementedError

    def _undo(self, network: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        """Undo one step: what was before it, and the step's log-scale of every entry."""
        raise NotImplementedError

    # padding, shapes, memory ------------------------------------------------------------

    def _unpadded(self, x: Tensor) -> Tensor:
        return x

    def _masked(self, z: Tensor, log_scale: Tensor, *, identity: Tensor) -> tuple[Tensor, Tensor]:
        return z, log_scale

    def _prepare(self, z: Tensor) -> Tensor:
        """Bring z to float32 or better and full shape; the same tensor where it is already so."""
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        shape = self.forward_shape(z.shape)
        return z if z.shape == shape else z.expand(shape)

    def _as_given(self, result: Tensor, given: Tensor) -> Tensor:
        """Bring a result to half precision again where the networks themselves are of it."""
        weights = next(self.transform.parameters(), result)
        return result.to(given.dtype) if weights.dtype == given.dtype else result

    def _find(self, value: Tensor) -> Inverse | None:
        found: Inverse | None = self.transform._cache.find((self.transform,), self._inputs(value))
        return found

    def _keep(self, value: Tensor, inverse: Inverse, drawn: tuple[bytes, ...]) -> None:
        cache, inputs = self.transform._cache, self._inputs(value)
        cache.keep((self.transform,), inputs, inverse, drawn=drawn)

    def _inputs(self, value: Tensor) -> tuple[Tensor | None, ...]:
        return value, self.context, self.mask
