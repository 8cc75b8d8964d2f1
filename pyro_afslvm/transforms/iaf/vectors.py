"""The inverse autoregressive flow: a bijection of single vectors, cheap to sample."""

import warnings
from collections.abc import Callable, Sequence
from typing import cast

import torch
from pyro.nn import AutoRegressiveNN
from pyro.nn import ConditionalAutoRegressiveNN as Network
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_afslvm.transforms.iaf.base import ConditionedInverseFlow, InverseFlow

LAST_LAYER = 0.1  # its initial weights are this much smaller than a linear layer's


class InverseAutoregressive(InverseFlow):
    r"""Inverse autoregressive flow, in its numerically stable form.

    .. math:: z \leftarrow \sigma \odot z + (1 - \sigma) \odot m, \qquad
        \sigma = \operatorname{sigmoid}(s), \quad (m, s) = \operatorname{MADE}(z, h), \qquad
        \log\left|\det \frac{\partial z_K}{\partial z_0}\right| = \sum_k \sum_i \log \sigma_{k, i}

    The event is one vector. Entry i of :math:`m` and :math:`s` sees the entries before i in the
    order of the step; each step has the order of the one before it, reversed. Sampling is one
    pass of a network per step, and so is the log-determinant of a sample, in the same pass. A
    value that was not just sampled takes ``features`` passes per step.

    At the start :math:`\sigma` is close to ``sigmoid(initial_bias)`` and :math:`m` to zero.

    Args:
        features: entries of the vector.
        context_features: entries of the context :math:`h`; 0 for none.
        depth: number of steps :math:`K`; with 0 it is the identity.
        hidden: widths of the networks' hidden layers, none below ``features``.
        order: the entries, first to last, as the first step sees them; by default as they are.
            It is part of the state, as is every other step's.
        initial_bias: of :math:`s`; 1 to 2 in the paper.
        activation: builds what follows each hidden layer.

    Raises:
        ValueError: if a size is out of range or ``order`` is not a permutation.

    Source: Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling, *Improving Variational
    Inference with Inverse Autoregressive Flow*, arXiv:1606.04934, Algorithm 1, Eq. 12-14.

    >>> import torch
    >>> iaf = InverseAutoregressive(4, context_features=3, depth=2, hidden=(16,))
    >>> conditioned = iaf.condition(torch.randn(5, 10, 3))  # 5 sequences of 10 contexts
    >>> z0 = torch.randn(5, 10, 4)
    >>> z = conditioned(z0)
    >>> conditioned.log_abs_det_jacobian(z0, z).shape
    torch.Size([5, 10])
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        depth: int = 2,
        hidden: Sequence[int] = (320,),
        order: Sequence[int] | None = None,
        initial_bias: float = 2.0,
        activation: Callable[[], nn.Module] = nn.ELU,
    ) -> None:
        _check_sizes(features, context_features, depth, hidden)
        order = list(range(features) if order is None else order)
        if sorted(order) != list(range(features)):
            raise ValueError(f"order must hold each of 0 to {features - 1} once, got {order}")
        super().__init__(
            [
                _made(order[:: (-1) ** k], context_features, hidden, initial_bias, activation())
                for k in range(depth)
            ]
        )
        self.features = features
        self.context_features = context_features

    @property
    def networks(self) -> list[Network]:
        """The network of each step; its buffer ``permutation`` is the order."""
        return cast(list[Network], list(self.steps))

    def condition(
        self, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> "ConditionedInverseAutoregressive":
        """Give the transform its context; the result shares the parameters.

        Args:
            context: ``(*batch, context_features)``, for values ``(*batch, features)``; the batch
                dimensions are broadcast.
            mask: ``(*batch)``, true where a vector counts. Elsewhere the transform is the
                identity, so that padding adds exactly zero, whatever it holds.

        Raises:
            ValueError: if a context is missing, not wanted or of another size, or if the mask
                is not boolean.
        """
        return ConditionedInverseAutoregressive(self, context=context, mask=mask)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """The shape of the values, if they are vectors of so many entries."""
        if not len(shape) or shape[-1] != self.features:
            raise ValueError(
                f"expected vectors of {self.features} entries, got shape {tuple(shape)}"
            )
        return torch.Size(shape)


def check_iaf(iaf: InverseAutoregressive | None, latent_size: int) -> None:
    """Refuse a transform of latents that are not a model's."""
    if iaf is not None and iaf.features != latent_size:
        raise ValueError(
            f"expected an IAF of {latent_size} latents, as the model has, got one of {iaf.features}"
        )


class ConditionedInverseAutoregressive(ConditionedInverseFlow):
    """An inverse autoregressive flow with its context and mask given."""

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self,
        transform: InverseAutoregressive,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        given = 0 if context is None else context.shape[-1] if context.ndim else 1
        if given != transform.context_features:
            expected = transform.context_features
            raise ValueError(f"expected a context of {expected or 'no'} features, got {given}")
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(f"the mask must be boolean, got {mask.dtype}")
        super().__init__(transform, context=context, mask=mask)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """The shape of the values, broadcast with the context and the mask."""
        features = self.transform.features
        batch = {"values": self.transform.forward_shape(shape)[:-1]}
        if self.context is not None:
            batch["context"] = self.context.shape[:-1]
        if self.mask is not None:
            batch["mask"] = self.mask.shape
        try:
            return torch.Size((*torch.broadcast_shapes(*batch.values()), features))
        except RuntimeError:
            shapes = ", ".join(f"{name} {tuple(size)}" for name, size in batch.items())
            raise ValueError(f"batch dimensions do not broadcast: {shapes}") from None

    def _undo(self, made: Network, value: Tensor) -> tuple[Tensor, Tensor]:
        y, z = value.unbind(-1), list(torch.zeros_like(value).unbind(-1))
        log_scale = list(z)
        order = made.permutation
        for i in range(len(order)) if order.is_meta else order.tolist():
            m, s = (p[..., i] for p in self._parameters(made, torch.stack(z, -1)))
            z[i] = y[i] + torch.exp(-s) * (y[i] - m)  # 1 / sigma = 1 + exp(-s)
            log_scale[i] = logsigmoid(s)
        return torch.stack(z, -1), torch.stack(log_scale, -1)

    def _parameters(self, made: Network, z: Tensor) -> tuple[Tensor, Tensor]:
        """m and s in the precision of z, whatever the network ran in."""
        dtype = next(made.parameters()).dtype
        if self.context is None:
            m, s = made(z.to(dtype))
        else:
            m, s = made(z.to(dtype), context=self._unpadded(self.context).to(dtype))
        return m.to(z), s.to(z)

    def _unpadded(self, x: Tensor) -> Tensor:
        # so that padding that is not finite cannot reach a gradient
        return x if self.mask is None else torch.where(self.mask.unsqueeze(-1), x, 0.0)

    def _masked(self, z: Tensor, log_scale: Tensor, *, identity: Tensor) -> tuple[Tensor, Tensor]:
        if self.mask is None:
            return z, log_scale
        mask = self.mask.unsqueeze(-1)
        return torch.where(mask, z, identity), log_scale.masked_fill(~mask, 0.0)


def _made(
    order: Sequence[int],
    context_features: int,
    hidden: Sequence[int],
    initial_bias: float,
    activation: nn.Module,
) -> Network:
    """A masked network of one step, started so that the step is near the identity."""
    features, sizes, seen = len(order), list(hidden), cast(torch.LongTensor, torch.tensor(order))
    with warnings.catch_warnings():  # of a single entry, with which nothing is wrong here
        warnings.filterwarnings("ignore", ".*input_dim = 1")
        made = (
            Network(features, context_features, sizes, permutation=seen, nonlinearity=activation)
            if context_features
            else AutoRegressiveNN(features, sizes, permutation=seen, nonlinearity=activation)
        )
    last = cast(nn.Linear, made.layers[-1])
    with torch.no_grad():
        last.weight.mul_(LAST_LAYER)
        last.bias.zero_()
        last.bias[features:] = initial_bias
    return made


def _check_sizes(features: int, context_features: int, depth: int, hidden: Sequence[int]) -> None:
    if features < 1:
        raise ValueError(f"features must be at least 1, got {features}")
    if context_features < 0:
        raise ValueError(f"context_features must not be negative, got {context_features}")
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}")
    if not hidden:
        raise ValueError("hidden must name at least one layer")
    if depth and min(hidden) < features:
        raise ValueError(
            f"hidden layers must be at least as wide as the vector of {features} entries, "
            f"got {tuple(hidden)}"
        )
