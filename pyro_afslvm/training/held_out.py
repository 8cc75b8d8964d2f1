"""Sequences held out from a :func:`~pyro_afslvm.fit`: their bound as it goes on, and its best."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_afslvm.models.pair import Pair
from pyro_afslvm.models.programs import evaluating
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.training.loop import Batch


class HeldOut:
    """Bounds of held-out sequences, and the parameters that were the best for them.

    Args:
        model: the model.
        guide: its guide, or ``None``.
        batches: of the sequences, as often as they are asked for.
        patience: validations without a new best after which a training is to stop.

    Attributes:
        curve: steps done and bound, in nats per sequence and scored frame, of each validation.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: Callable[..., Any] | None,
        batches: Callable[[], Iterable[Batch]],
        *,
        patience: int | None,
    ) -> None:
        self.loss = BoundLoss(Pair(model, guide))  # type: ignore[arg-type]
        self.batches, self.patience = batches, patience
        self.curve: list[tuple[int, float]] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    @property
    def best(self) -> tuple[int, float]:
        """Steps done and bound of the best validation."""
        return max(self.curve, key=lambda row: row[1])

    def __call__(self, step: int, parameters: Iterable[Tensor]) -> float:
        """Validate after so many steps; the parameters are kept if they are the best so far."""
        bound = self._bound()
        self.curve.append((step, bound))
        if self.best[0] == step and math.isfinite(bound):
            tensors = {id(t): t for t in [*parameters, *self.loss.buffers()]}.values()
            self._kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
        return bound

    @property
    def is_patient(self) -> bool:
        """Whether a training may go on."""
        since = len(self.curve) - 1 - self.curve.index(self.best)
        return self.patience is None or since < self.patience

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best parameters back."""
        for tensor, kept in self._kept:
            tensor.copy_(kept)

    @torch.no_grad()
    def _bound(self) -> float:
        total, count = 0.0, 0
        with evaluating(self.loss.model, self.loss.guide), torch.random.fork_rng():
            torch.manual_seed(0)  # the same draws each time, so that parameters are compared
            for batch in self.batches():
                x, lengths, known = batch if isinstance(batch, tuple) else (batch, None, None)
                terms = self.loss.num_frames(x, lengths)
                total -= terms * float(self.loss(x, lengths, known))
                count += terms
        return total / count
