"""The training loop, of notebooks and of the command line."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from pyro_afslvm.objectives import warmed_up
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.errors import DivergenceError


def descend(
    loss: BoundLoss,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    *,
    clip_norm: float,
    kl_warmup: int = 0,
    first_step: int = 0,
    check: bool = True,
    forward: Callable[[Tensor], Tensor] | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Iterator[Tensor]:
    r"""Minimize a negative bound by gradient steps, one for each batch.

    .. math:: \theta \leftarrow \theta - \mathrm{Adam}\left(\mathrm{clip}
        \left(\nabla_\theta (-L(x; \theta))\right)\right)

    Args:
        loss: the negative bound, in nats per sequence and scored frame.
        optimizer: over its parameters.
        batches: sequences ``(batch, T, *frame_shape)``; training ends with them, or when the
            caller asks for no more losses.
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
        for step, x in enumerate(batches, first_step):
            optimizer.zero_grad()
            loss.latents.scale = warmed_up(step, kl_warmup)
            value = _finite(forward or loss, x, step, check)
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


def _finite(loss: Callable[[Tensor], Tensor], x: Tensor, step: int, check: bool) -> Tensor:
    try:
        value = loss(x)
    except ValueError as error:
        reason, invalid, _ = str(error).partition("found invalid values")
        if not invalid:
            raise
        # Pyro's validation met NaN in a distribution, or torch's on its behalf
        raise DivergenceError(step, " ".join((reason + invalid).split()), x) from None
    if check and not torch.isfinite(value):
        raise DivergenceError(step, f"the bound is {-float(value.detach())}", x)
    return value
