"""The conditioner of series: a linear prediction of the next change, and a network for the rest."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm.transforms.conditioners.base import Conditioner, as_parameters
from pyro_afslvm.transforms.time_axis import join, time_length


class LinearState(NamedTuple):
    """The last frames, and the state of the network."""

    frames: tuple[Tensor, ...]  # the latest at the end
    inner: Any


class LinearConditioner(Conditioner):
    r"""Vector autoregression in units of changes, with a network on top of it.

    .. math:: \mu_t = x_{t-1} + s \odot \left(W \phi_t + b + B \tanh \tfrac{m_t}{B}\right), \qquad
        \log \sigma_t = \log s + B \tanh \tfrac{l_t}{B}

    with :math:`\phi_t` the last level, the changes before it and the covariates, each in units of
    its own, and :math:`(m_t, l_t)` from the network, which sees levels and changes in the same
    units. A fresh one is the random walk with scale s, whatever the network; and since what the
    network adds is bounded, trajectories stay as finite as those of the linear part are.

    Args:
        features: size D of a vector.
        lags: frames that the linear part looks at, at least 2.
        network: a conditioner of vectors of size ``2 * features``: levels, then changes; the
            parameters of its first D entries count. ``None``: without one.
        context_features: size of covariates of each frame; the network takes as many.
        bound: B, in units of s and of log-scale.

    Raises:
        ValueError: for fewer than two lags, or a network of another kind.

    >>> import torch
    >>> walk = LinearConditioner(3)
    >>> x = torch.randn(7, 3)
    >>> torch.equal(walk(x[2:], history=x[:2])[..., 0], x[1:-1])  # at the start
    True
    """

    level_mean: Tensor
    level_scale: Tensor
    unit: Tensor
    context_mean: Tensor
    context_scale: Tensor

    def __init__(
        self,
        features: int,
        *,
        lags: int = 2,
        network: Conditioner | None = None,
        context_features: int = 0,
        bound: float = 3.0,
    ) -> None:
        if lags < 2:
            raise ValueError(f"expected at least 2 lags, got {lags}")
        if network is not None and network.initial_shape != (2 * features,):
            raise ValueError(f"expected a network of vectors of size {2 * features}")
        window = max(lags, 0 if network is None else network.window + 1)
        beyond = lags - 1 if network is None else network.reach
        super().__init__(
            frame_dims=1,
            initial_shape=(features,),
            window=window,
            reach=None if beyond is None else max(lags, beyond + 1),
        )
        self.lags, self.bound, self.context_features = lags, bound, context_features
        self.weight = nn.Parameter(torch.zeros(features, lags * features + context_features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        for name, size in (("level", features), ("context", context_features)):
            self.register_buffer(f"{name}_mean", torch.zeros(size) if size else None)
            self.register_buffer(f"{name}_scale", torch.ones(size) if size else None)
        self.register_buffer("unit", torch.ones(features))  # standard deviation of the changes
        self.network = network
        heads = getattr(network, "heads", None)
        if isinstance(heads, nn.Linear):  # nothing is added at the start
            nn.init.zeros_(heads.weight)
            nn.init.zeros_(heads.bias)

    # all frames at once -----------------------------------------------------------------

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        length = time_length(values, 1)
        full = join(history, values, 1)
        past = time_length(full, 1) - length
        if past < self.window:
            raise ValueError(f"a window of {self.window} frames needs as many, got {past}")
        inputs = self.regressors(full, context, length)
        last = full.narrow(-2, past - 1, length)
        if self.network is None:
            return self._parameters_of(last, inputs, None)
        known = None if context is None else self._known(context)[..., 1:, :]
        seen = self._seen(full[..., 1:, :], full[..., :-1, :])
        before, now = seen.split([past - 1, length], -2)
        found = self.network(now, history=before, context=known)
        return self._parameters_of(last, inputs, as_parameters(found, now))

    def regressors(self, full: Tensor, context: Tensor | None, length: int) -> Tensor:
        """What the linear part sees before each of the last ``length`` frames.

        Args:
            full: frames ``(*batch, K + T, D)``.
            context: their covariates.
            length: T.

        Returns:
            ``(*batch, T, lags * D + context_features)``.
        """
        start = time_length(full, 1) - length
        lagged = [full.narrow(-2, start - i, length) for i in range(1, self.lags + 1)]
        known = None if context is None else self._known(context)[..., -length:, :]
        return self._inputs(lagged, known)

    # one frame after the other ----------------------------------------------------------

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> LinearState:
        if history is None or time_length(history, 1) < self.window:
            raise ValueError(f"a window of {self.window} frames needs as many")
        inner = None
        if self.network is not None:
            known = None if context is None else self._known(context)[..., 1:, :]
            seen = self._seen(history[..., 1:, :], history[..., :-1, :])
            inner = self.network.initial_state(batch_shape, history=seen, context=known)
        return LinearState(history[..., -self.lags :, :].unbind(-2), inner)

    def step(
        self, previous: Tensor | None, state: LinearState, *, context: Tensor | None = None
    ) -> tuple[Tensor, LinearState]:
        if previous is None:
            raise ValueError(f"a window of {self.window} frames needs them before the first step")
        # after the history its last frame is among them
        frames = state.frames if len(state.frames) == self.lags else (*state.frames, previous)
        known = None if context is None else self._known(context)
        inputs = self._inputs([*reversed(frames)], known)
        found, inner = None, state.inner
        if self.network is not None:
            seen = self._seen(frames[-1], frames[-2])
            emitted, inner = self.network.step(seen, inner, context=known)
            found = as_parameters(emitted, seen)
        return self._parameters_of(frames[-1], inputs, found), LinearState(frames[1:], inner)

    # parts ------------------------------------------------------------------------------

    def _inputs(self, lagged: list[Tensor], known: Tensor | None) -> Tensor:
        """Level, changes and covariates; ``lagged`` has the latest frame first."""
        pairs = pairwise(lagged)
        parts = [self._level(lagged[0]), *((late - early) / self.unit for late, early in pairs)]
        if (0 if known is None else known.shape[-1]) != self.context_features:
            raise ValueError(f"expected {self.context_features} context features")
        if known is not None:
            parts.append(known.to(lagged[0]))
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], -1)

    def _level(self, x: Tensor) -> Tensor:
        return (x - self.level_mean) / self.level_scale

    def _known(self, context: Tensor) -> Tensor:
        if not self.context_features:
            raise ValueError(f"expected no context, got {context.shape[-1]} features")
        return (context - self.context_mean) / self.context_scale

    def _seen(self, x: Tensor, before: Tensor) -> Tensor:
        """What the network sees of frames: levels and changes, neither of them too large."""
        return torch.cat(
            torch.broadcast_tensors(_squashed(self._level(x)), _squashed((x - before) / self.unit)),
            -1,
        )

    def _parameters_of(self, last: Tensor, inputs: Tensor, found: Tensor | None) -> Tensor:
        change = inputs @ self.weight.T.to(inputs) + self.bias
        log_scale = self.log_scale.expand_as(change)
        if found is not None:
            features = self.initial_shape[0]
            added = self.bound * torch.tanh(found[..., :features, :] / self.bound)
            change, log_scale = change + added[..., 0], log_scale + added[..., 1]
        return torch.stack(torch.broadcast_tensors(last + self.unit * change, log_scale), -1)


def _squashed(x: Tensor, most: float = 10.0) -> Tensor:
    """Near zero the identity; large values by their logarithm."""
    return x.sign() * torch.where(
        x.abs() < most, x.abs(), most * (1 + (x.abs().clamp(min=most) / most).log())
    )
