"""The training loop, of notebooks and of the command line."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyro_afslvm.objectives import warmed_up
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.errors import DivergenceError

# sequences; then perhaps lengths and covariates
Batch = Tensor | tuple[Tensor, Tensor | None, Tensor | None]


def descend(
    loss: BoundLoss,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    *,
    clip_norm: float,
    kl_warmup: int = 0,
    first_step: int = 0,
    check: bool = True,
    forward: Callable[[Any], Tensor] | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Iterator[Tensor]:
    r"""Minimize a negative bound by gradient steps, one for each batch.

    .. math:: \theta \leftarrow \theta - \mathrm{Adam}\left(\mathrm{clip}
        \left(\nabla_\theta (-L(x; \theta))\right)\right)

    Args:
        loss: the negative bound, in nats per sequence and scored frame.
        optimizer: over its parameters.
        batches: sequences ``(batch, T, *frame_shape)``, or these, their lengths and covariates;
            training ends with them, or when the caller asks for no more losses.
        clip_norm: largest norm of all gradients together.
        kl_warmup: steps over which the divergence of the latents comes to count in full.
        first_step: the number of steps done before.
        check: whether to look at each loss before its step; an accelerator is waited for.
        forward: calls the loss, where something is wrapped around it, such as Fabric's module.
        backward: takes the gradients, as :meth:`torch.Tensor.backward` does.

    Yields:
        the loss of each batch, before the step that it caused; a number on the device.

    Raises:
        DivergenceError: if the loss is not finite; the step is not taken.
    """
    loss.train()
    try:
        for step, batch in enumerate(batches, first_step):
            optimizer.zero_grad()
            loss.latents.scale = warmed_up(step, kl_warmup)
            value = _finite(forward or loss, batch, step, check)
            if value.requires_grad:  # not where there is nothing to learn
                backward(value)
            nn.utils.clip_grad_norm_(parameters(optimizer), clip_norm)
            optimizer.step()
            yield value.detach()
    finally:
        optimizer.zero_grad()  # nothing is left for another training to add to


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """List the parameters that an optimizer moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _finite(loss: Callable[..., Tensor], batch: Batch, step: int, check: bool) -> Tensor:
    given = (batch,) if isinstance(batch, Tensor) else batch
    x, context = given[0], given[2] if len(given) > 2 else None
    try:
        value = loss(*given)
    except ValueError as error:
        reason, invalid, values = str(error).partition("found invalid values")
        # Pyro's validation met NaN in a distribution, or torch's on its behalf; what is finite and
        # invalid, or came with the data, no learning rate makes valid
        if not invalid or not _NOT_FINITE.search(values) or not bool(x.isfinite().all()):
            raise ValueError(_one_line(reason, invalid)) from None
        raise DivergenceError(step, _one_line(reason, invalid), x, context) from None
    if check and not torch.isfinite(value):
        raise DivergenceError(step, f"the bound is {-float(value.detach())}", x, context)
    return value


_NOT_FINITE = re.compile(r"\b(nan|inf)\b")


def _one_line(reason: str, invalid: str) -> str:
    """What an error says, without the table of shapes that Pyro appends."""
    if not invalid:
        return reason.split("\n")[0]
    return " ".join((reason + invalid).split())
