"""Settings of a training run; those that are ``None`` come from the recipe."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pyro_afslvm.data.dequantize import DequantizationName
from pyro_afslvm.utils.renamed import renamed_keyword

OLD_NAMES = {"noise": "dequantization"}  # of settings, in the release before
FREE_TO_CHANGE = (
    "steps",
    "seconds",
    "patience",
    "workers",
    "tensorboard",
    "accelerator",
    "recompute",
)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training.

    Args:
        steps: optimizer steps; by default ``STEPS`` of the recipe, a number, or a number for
            each data set by its name, of which others take the first.
        seconds: stop after so many seconds of training, whatever the steps.
        clock: of those seconds: ``wall``, or ``process``, the time that processors spent on this
            process in all its threads, which other work on them leaves as it is.
        batch_size: sequences per step and process, so that n processes take n times as many;
            by default ``BATCH_SIZE`` of the recipe, likewise.
        learning_rate: of Adam; by default ``LEARNING_RATE`` of the recipe.
        warmup: steps over which the learning rate rises to that.
        decay: ``cosine`` lets the learning rate fall to zero over the steps; ``none`` keeps it; by
            default ``DECAY`` of the recipe, or ``none``.
        start_from: folder of a run whose best weights this one starts from, as far as their names
            and shapes are the same; the others are fresh.
        hold: steps for which what came from there stays as it is and only fresh weights learn:
            their first gradients would undo what was learned before.
        clip_norm: largest norm of the gradient of the loss, in nats per sequence and frame; 1 is
            that of the authors' first implementation.
        kl_warmup: steps over which the divergence of the latents comes to count in full.
        divergence: of the latents in training: ``sampled``, as in ``Trace_ELBO``, or ``closed``, as
            in ``TraceMeanField_ELBO``, where prior and posterior are Gaussian given the past,
            which spares the gradient the noise of the sample; by default ``DIVERGENCE`` of the
            recipe, or ``sampled``.
        average: decay of a running average of the parameters, such as 0.998, which is what is
            validated and kept as the model; 0 for the parameters themselves, and by default
            ``AVERAGE`` of the recipe, or 0.
        free_bits: least nats that each group of latents counts in training, see
            :class:`~pyro_afslvm.objectives.FreeBitsELBO`; validation has the plain bound.
        scored_frames: frames scored after the context.
        dequantization: ``gaussian`` (as the authors ran it) or ``uniform`` (whose bits/dim are
            those of the literature) for 8-bit data, ``none`` for real numbers, ``binary`` for
            zeros and ones; by default what the data need.
        seed: of parameters, order, dequantization and samples.
        validate_every: steps between validations, each followed by a checkpoint.
        validation_sequences: sequences of the validation set that are used.
        patience: stop after so many validations without a new best.
        precision: ``32-true``, or ``bf16-mixed`` with distributions in single precision.
        recompute: compute activations anew for gradients, to keep few of them in memory; on
            processors freed memory then goes back to the system, otherwise it is kept.
        compile: compile the networks by ``torch.compile``; on processors it costs time.
        accelerator: as in Lightning.
        devices: processes of each node; under ``torchrun`` as many as it starts.
        num_nodes: machines, on each of which a launcher such as ``torchrun`` has started them.
        workers: processes that load data.
        tensorboard: write TensorBoard logs too (needs the extra ``logging``).
    """

    steps: int | None = None
    seconds: float | None = None
    clock: Literal["wall", "process"] = "wall"
    batch_size: int | None = None
    learning_rate: float | None = None
    warmup: int = 0
    decay: Literal["none", "cosine"] | None = None
    start_from: str | None = None
    hold: int = 0
    clip_norm: float = 1.0
    average: float | None = None
    free_bits: float = 0.0
    kl_warmup: int = 0
    divergence: Literal["sampled", "closed"] | None = None
    scored_frames: int = 10
    dequantization: DequantizationName | None = None
    seed: int = 0
    validate_every: int = 200
    validation_sequences: int = 64
    patience: int | None = None
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    recompute: bool = False
    compile: bool = False
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "seconds",
            "batch_size",
            "learning_rate",
            "clip_norm",
            "scored_frames",
            "validate_every",
            "validation_sequences",
            "patience",
            "devices",
            "num_nodes",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.divergence == "closed" and self.free_bits:
            raise ValueError("free_bits are of a sampled divergence: choose one of both")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"average must be at least 0 and below 1, got {self.average}")
        if self.hold and self.start_from is None:
            raise ValueError("hold keeps the weights of another run: name it by start_from")
        for name in ("seed", "workers", "warmup", "hold", "kl_warmup", "free_bits"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def resolved(
        self,
        constants: Mapping[str, Any],
        *,
        dequantization: DequantizationName,
        data: str = "",
    ) -> "TrainSettings":
        """Fill in those that are ``None``: from the recipe, and the dequantization of the data.

        Args:
            constants: of the recipe.
            dequantization: that the data need.
            data: name of the data set.

        Raises:
            ValueError: if a constant of the recipe names no number for any data set.
        """
        return replace(
            self,
            steps=self.steps or of_data(constants, "STEPS", 100_000, data),
            batch_size=self.batch_size or of_data(constants, "BATCH_SIZE", 16, data),
            learning_rate=self.learning_rate or float(constants.get("LEARNING_RATE", 1e-4)),
            decay=self.decay or constants.get("DECAY", "none"),
            divergence=self.divergence or constants.get("DIVERGENCE", "sampled"),
            dequantization=self.dequantization or dequantization,
            average=float(constants.get("AVERAGE", 0.0)) if self.average is None else self.average,
        )

    def rate(self, step: int) -> float:
        r"""Learning rate of a step, counted from zero.

        .. math:: \eta_t = \eta \min\left(1, \tfrac{t + 1}{W}\right)
            \cdot \tfrac12 \left(1 + \cos \tfrac{\pi t}{T}\right)

        with the last factor only where it decays.

        >>> settings = TrainSettings(steps=100, learning_rate=1.0, warmup=10, decay="cosine")
        >>> [round(settings.rate(step), 2) for step in (0, 9, 50, 99)]
        [0.1, 0.98, 0.5, 0.0]
        """
        rate = (self.learning_rate or 0.0) * min(1.0, (step + 1) / max(1, self.warmup))
        if self.decay == "cosine":
            rate *= 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / (self.steps or 1))))
        return rate

    def changed_from(self, other: "TrainSettings") -> list[str]:
        """Names of the settings that differ and matter to what is computed."""
        free = set(FREE_TO_CHANGE)
        if self.decay == "cosine":  # the rate of every step depends on how many there are
            free.remove("steps")
        mine, its = (  # runs of before know neither
            replace(s, decay=s.decay or "none", divergence=s.divergence or "sampled")
            for s in (self, other)
        )
        names = [f.name for f in fields(self) if f.name not in free]
        return [name for name in names if getattr(mine, name) != getattr(its, name)]


def of_data(constants: Mapping[str, Any], name: str, default: int, data: str) -> int:
    """Find a recipe's number for a data set: its own, or else the first.

    >>> steps = {"STEPS": {"moving_mnist": 100_000, "kth": 90_000}}
    >>> [of_data(steps, "STEPS", 1, data) for data in ("kth", "moving_mnist", "videos")]
    [90000, 100000, 100000]
    """
    value = constants.get(name, default)
    if not isinstance(value, Mapping):
        return int(value)
    if not value:
        raise ValueError(f"{name} of the recipe is empty: expected a number for a data set")
    return int(value.get(data, next(iter(value.values()))))


def with_present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings of the release before their present names; where both are there that counts.

    >>> with_present_names({"steps": 5, "noise": "uniform"})
    {'dequantization': 'uniform', 'steps': 5}
    """
    old = {OLD_NAMES[name]: value for name, value in settings.items() if name in OLD_NAMES}
    return old | {name: value for name, value in settings.items() if name not in OLD_NAMES}


# users' programs may have the name of the release before
TrainSettings.__init__ = renamed_keyword("noise", "dequantization")(  # type: ignore[method-assign]
    TrainSettings.__init__
)


def as_launched(settings: TrainSettings) -> TrainSettings:
    """Settings with the launcher's numbers of processes and nodes, where there is one.

    Raises:
        ValueError: if they say otherwise.
    """
    from pyro_afslvm.utils.distributed import launched  # imports torch

    started, chosen = launched(), (settings.devices, settings.num_nodes)
    if started is None and settings.num_nodes > 1 and "SLURM_NTASKS" not in os.environ:
        raise ValueError(
            f"num_nodes is {settings.num_nodes}, but no launcher such as torchrun has started "
            "processes on them"
        )
    if started is None or chosen == started:
        return settings
    if chosen != (1, 1):
        raise ValueError(
            f"the launcher has started {started[0]} processes on each of {started[1]} nodes, but "
            f"devices is {chosen[0]} and num_nodes {chosen[1]}"
        )
    return replace(settings, devices=started[0], num_nodes=started[1])
