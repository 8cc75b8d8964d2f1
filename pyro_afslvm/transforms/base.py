"""The base class of bijections across time.

Words, here and in all of this package: *frames* x of shape ``(*batch, T, *frame_shape)`` are made
of *noise* y of the same shape. *History* is the frames before the first of x, *context* another
variable that is aligned with history and frames. *Log-scale* is the logarithm of the derivative
of an entry of x with respect to its own noise, given the past; *shift* is what an affine transform
adds. A chain inverts x one transform after the other, and these are its *intermediates*. A *mask*
is true where a frame counts.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransform
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from pyro_afslvm.moved import old_names
from pyro_afslvm.transforms.cache import CachedTransform, WithCache, random_state
from pyro_afslvm.transforms.steps import AffineStep, Inverse, Prediction, sum_log_scales
from pyro_afslvm.transforms.time_axis import time_length
from pyro_afslvm.transforms.univariate import Affine, invert
from pyro_afslvm.utils.renamed import OldNames, Renamed

Steps = Sequence[AffineStep | Inverse]  # from x down to the noise, one for each transform


class TemporalTransform(OldNames, CachedTransform):
    r"""A bijection of whole sequences, triangular in time and elementwise given the past.

    The event is the sequence, of shape ``(T, *frame_shape)``. The inverse :math:`x \to y`
    is one parallel pass; the forward direction :math:`y \to x` is a loop of :meth:`step`.

    A subclass defines :meth:`given_past` or :meth:`intermediates`, :meth:`initial_state`,
    :meth:`step`, and :meth:`inverse_step` or both :meth:`predict` and :meth:`absorb`.

    Args:
        frame_dims: dimensions of a frame: 3 for ``(C, H, W)``, 1 for vectors.
        context_length: frames of history it cannot do without.
        reach: past frames that it looks at; ``None`` for all of them.
    """

    levels = Renamed("intermediates")

    def __init__(self, *, frame_dims: int, context_length: int, reach: int | None) -> None:
        super().__init__()
        self.frame_dims = frame_dims
        self.context_length = context_length
        self.reach = reach

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(constraints.real, 1 + self.frame_dims)

    codomain = domain

    @property
    def is_affine(self) -> bool:
        r"""True if :math:`x_t = \mu + \sigma \odot y_t`, with both from the past.

        Of affine transforms there are a predictive mean and, over Gaussian noise, a divergence
        in closed form. A subclass that does not say so is not taken for one.
        """
        return False

    # what a transform defines -----------------------------------------------------------

    def given_past(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Transform:
        """Give the map from its noise to each frame of x, with the true past of each.

        Args:
            x: frames ``(*batch, T, *frame_shape)``.
            history: the frames before them, ``(*batch, K, *frame_shape)``.
            context: another variable for all of them, ``(*batch, K + T, features)``.
        """
        raise TypeError(f"no mean: {type(self).__name__} does not define `given_past`")

    def maps(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> list[Transform]:
        """Give the map of each transform of a chain by itself, from x down; else the only one.

        The arguments are those of :meth:`given_past`.
        """
        return [self.given_past(x, history=history, context=context)]

    def intermediates(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Steps:
        """Invert, in parallel over time, and show each transform from x down to the noise.

        Args:
            x: frames ``(*batch, T, *frame_shape)``.
            history: the frames before them, ``(*batch, K, *frame_shape)``.
            context: another variable for all of them, ``(*batch, K + T, features)``.

        Returns:
            an :class:`AffineStep` for each transform that is affine, else an :class:`Inverse`.
        """
        transform = self.given_past(x, history=history, context=context)
        if isinstance(transform, Affine):
            return [AffineStep(transform.shift, transform.log_scale, transform.inv(x))]
        return [invert(transform, x, self.frame_dims)]

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Any:
        """Return the state from which :meth:`step` gives the first frame after ``history``."""
        raise NotImplementedError

    def step(
        self, noise: Tensor, state: Any, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """Make one frame from its noise, at a cost that does not grow with time.

        Args:
            noise: ``(*batch, *frame_shape)``.
            state: from :meth:`initial_state` or the step before.
            context: ``(*batch, features)``.

        Returns:
            the frame, its log-scale and the next state.
        """
        raise NotImplementedError

    def predict(self, like: Tensor, state: Any, *, context: Tensor | None = None) -> Prediction:
        """Give the map from its noise to the next frame, before it is there.

        Args:
            like: any frame ``(*batch, *frame_shape)``, for shape, precision and device.
            state: from :meth:`initial_state` or the step before.
            context: ``(*batch, features)``.
        """
        raise TypeError(f"no prediction: {type(self).__name__} does not define `predict`")

    def absorb(self, frame: Tensor, predicted: Prediction) -> tuple[Tensor, Tensor, Any]:
        """Take in the frame that was predicted: its noise, its log-scale and the next state."""
        raise NotImplementedError

    def inverse_step(
        self, frame: Tensor, state: Any, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """Find the noise of one frame, from the same state and at the same cost as :meth:`step`.

        Args:
            frame: ``(*batch, *frame_shape)``.
            state: from :meth:`initial_state` or the step before, of either direction.
            context: ``(*batch, features)``.

        Returns:
            the noise, the frame's log-scale and the next state.
        """
        return self.absorb(frame, self.predict(frame, state, context=context))

    @property
    def watched(self) -> tuple[nn.Module, ...]:
        """The modules on which an inverse depends, and which its cache watches."""
        return (self,)

    # what follows from it ---------------------------------------------------------------

    def condition(
        self,
        context: Tensor | None = None,
        *,
        history: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> "ConditionedTemporalTransform":
        """Give the transform of the frames that follow ``history``; it shares the parameters.

        With the context alone it is Pyro's protocol of a conditional transform.

        Args:
            context: a variable aligned in time with history and values together,
                ``(*batch, K + T, features)``.
            history: earlier frames ``(*batch, K, *frame_shape)``. As many as ``reach``
                stand for any longer past; fewer are taken for the start of the sequence.
            mask: ``(*batch, T)``, true where a frame counts. Elsewhere the transform is the
                identity, so that padding adds exactly zero.

        Raises:
            ValueError: if ``history`` is shorter than ``context_length``, or of another rank;
                from the transform, if ``context`` is not of ``K + T`` steps.
        """
        return ConditionedTemporalTransform(self, history=history, context=context, mask=mask)

    def _call(self, y: Tensor) -> Tensor:
        return self.condition()._call(y)

    def _inverse(self, x: Tensor) -> Tensor:
        return self.condition()._inverse(x)

    def log_abs_det_jacobian(self, y: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.condition().log_abs_det_jacobian(y, x)


ConditionalTransform.register(TemporalTransform)  # a metaclass of its own would keep out PyroModule


class ConditionedTemporalTransform(OldNames, WithCache, Transform):
    """A temporal transform with its history, context and mask given."""

    bijective = True
    sign = +1

    levels = Renamed("intermediates")

    def __init__(
        self,
        transform: TemporalTransform,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        given = 0 if history is None else time_length(history, transform.frame_dims)
        if given < transform.context_length:
            raise ValueError(
                f"{transform.context_length} frames of history are needed before the first "
                f"frame, got {given}: pass `history=` or build with `initial='learned'`"
            )
        self.transform = transform
        self.past = given
        self.history = history if given else None
        self.context = context
        self.mask = mask
        self._remembered: tuple[Tensor, Inverse] | None = None
        self._knows_source = transform._knows_source

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.domain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.codomain

    @property
    def is_affine(self) -> bool:
        """True if the transform is affine in the noise, given the past."""
        return self.transform.is_affine

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Shape of the frames of noise of this shape: batches of what is given broadcast it."""
        dims = self.transform.frame_dims
        if len(shape) < 1 + dims:
            raise ValueError(f"expected a sequence of {1 + dims} dimensions, got {tuple(shape)}")
        given = [(self.history, 1 + dims), (self.context, 2), (self.mask, 1)]
        batches = [
            tensor.shape[: tensor.ndim - event] for tensor, event in given if tensor is not None
        ]
        batch = torch.broadcast_shapes(tuple(shape[: -1 - dims]), *batches)
        return torch.Size((*batch, *shape[-1 - dims :]))

    inverse_shape = forward_shape

    def intermediates(self, x: Tensor) -> Steps:
        """Invert x, and show each transform from x down to the noise; the mask is not applied.

        Returns:
            an :class:`AffineStep` for each transform if all of them are affine; else there is
            no shift of the whole, and each is an :class:`Inverse`.
        """
        self._check(x)
        steps = self.transform.intermediates(x, history=self.history, context=self.context)
        return steps if self.is_affine else [Inverse(s.noise, s.log_scale) for s in steps]

    def log_scale(self, x: Tensor) -> Tensor:
        """Log-scale of every entry of x, summed over the chain; the shape of x."""
        return self._invert(x).log_scale

    def log_abs_det_jacobian(self, y: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.log_scale(x).flatten(-1 - self.transform.frame_dims).sum(-1)

    def _inverse(self, x: Tensor) -> Tensor:
        return self._invert(x).noise

    def remember(self, x: Tensor) -> None:
        """Keep the inverse of x as it is now, whatever becomes of the parameters."""
        self._remembered = None
        self._remembered = x, self._invert(x)

    def _invert(self, x: Tensor) -> Inverse:
        if self._remembered is not None and self._remembered[0] is x:
            return self._remembered[1]
        cache, watched = self.transform._cache, self.transform.watched
        inputs = (x, self.history, self.context)
        sampled = cache.find(watched, (*inputs, self.mask))
        if sampled is not None:
            return sampled
        inverse = cache.find(watched, inputs)  # the mask is cheap, and often new
        if inverse is None:
            drawn = random_state(x)
            steps = self.intermediates(x)
            inverse = Inverse(steps[-1].noise, sum_log_scales(steps))
            cache.keep(watched, inputs, inverse, drawn=drawn)
        if self.mask is None:
            return inverse
        drawn, masked = random_state(x), Inverse(*self._masked(*inverse, identity=x))
        if self._knows_source:
            cache.keep(watched, (*inputs, self.mask), masked, drawn=drawn)
        return masked

    def _source(self, y: Tensor) -> Tensor | None:
        """Return what y is the noise of, if that is asked for and known."""
        if not self._knows_source:
            return None
        if self._remembered is not None and self._remembered[1].noise is y:
            return self._remembered[0]
        given = (self.history, self.context, *([] if self.mask is None else [self.mask]))
        return self.transform._cache.source(self.transform.watched, y, given)

    def _call(self, y: Tensor) -> Tensor:
        if (known := self._source(y)) is not None:
            return known
        self._check(y)
        drawn, time_dim = random_state(y), -1 - self.transform.frame_dims
        state = self.transform.initial_state(
            y.shape[:time_dim], history=self.history, context=self._context_before()
        )
        frames, log_scales = [], []
        for t, noise in enumerate(y.unbind(time_dim)):
            frame, log_scale, state = self.transform.step(noise, state, context=self._context_at(t))
            frames.append(frame)
            log_scales.append(log_scale.expand_as(frame))
        x = torch.stack(frames, time_dim)
        x, log_scale = self._masked(x, torch.stack(log_scales, time_dim), identity=y)
        inputs = (x, self.history, self.context, self.mask)
        sampled = Inverse(y if y.shape == x.shape else y.expand_as(x), log_scale)
        self.transform._cache.keep(self.transform.watched, inputs, sampled, drawn=drawn)
        return x

    def _masked(
        self, values: Tensor, log_scale: Tensor, *, identity: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.mask is None:
            return values, log_scale
        mask = self.mask.reshape(*self.mask.shape, *[1] * self.transform.frame_dims)
        return torch.where(mask, values, identity), log_scale.masked_fill(~mask, 0.0)

    def _check(self, x: Tensor) -> None:
        """Refuse what is no sequence, or not as long as the context says."""
        steps = self.past + time_length(x, self.transform.frame_dims)
        if self.context is not None and time_length(self.context, 1) != steps:
            raise ValueError(
                f"expected a context of {steps} steps, for history and frames together, "
                f"got {self.context.shape[-2]}"
            )

    def _context_before(self) -> Tensor | None:
        if self.context is None or self.history is None:
            return None
        return self.context[..., : self.past, :]

    def _context_at(self, t: int) -> Tensor | None:
        return None if self.context is None else self.context[..., self.past + t, :]


__getattr__ = old_names(__name__)
