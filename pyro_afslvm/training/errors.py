"""Errors that end a training."""

from torch import Tensor


class TrainingError(RuntimeError):
    """Training cannot go on."""


class DivergenceError(TrainingError):
    """The bound is not finite, or a distribution has parameters that are not.

    Args:
        step: steps done before it.
        reason: what was found.
        x: the batch on which it was found.
        context: its covariates, where it has any.
    """

    def __init__(self, step: int, reason: str, x: Tensor, context: Tensor | None = None) -> None:
        super().__init__(f"{reason} at step {step}: lower the learning rate")
        self.step, self.reason, self.x, self.context = step, reason, x, context
