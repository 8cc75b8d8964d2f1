"""Settings of a training run; those that are ``None`` come from the recipe."""

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
        steps: optimizer steps; by default ``STEPS`` of the recipe.
        seconds: stop after so many seconds of training, whatever the steps.
        batch_size: sequences per step and process, so that n processes take n times as many;
            by default ``BATCH_SIZE`` of the recipe.
        learning_rate: of Adam; by default ``LEARNING_RATE`` of the recipe.
        clip_norm: largest norm of the gradient of the loss, in nats per sequence and frame.
        kl_warmup: steps over which the divergence of the latents comes to count in full.
        average: decay of a running average of the parameters, such as 0.998, which is what is
            validated and kept as the model; 0 for the parameters themselves, and by default
            ``AVERAGE`` of the recipe, or 0.
        free_bits: least nats that each group of latents counts in training, see
            :class:`~pyro_afslvm.objectives.FreeBitsELBO`; validation has the plain bound.
        scored_frames: frames scored after the context.
        dequantization: ``gaussian`` (the paper's) or ``uniform`` (discrete protocol) for 8-bit
            data, ``none`` for real numbers, ``binary`` for zeros and ones; by default what the
            data need.
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
    batch_size: int | None = None
    learning_rate: float | None = None
    clip_norm: float = 1.0
    average: float | None = None
    free_bits: float = 0.0
    kl_warmup: int = 0
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
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"average must be at least 0 and below 1, got {self.average}")
        for name in ("seed", "workers", "kl_warmup", "free_bits"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def resolved(
        self, constants: Mapping[str, Any], *, dequantization: DequantizationName
    ) -> "TrainSettings":
        """Fill in those that are ``None``: from the recipe, and the dequantization of the data."""
        return replace(
            self,
            steps=self.steps or int(constants.get("STEPS", 100_000)),
            batch_size=self.batch_size or int(constants.get("BATCH_SIZE", 16)),
            learning_rate=self.learning_rate or float(constants.get("LEARNING_RATE", 1e-4)),
            dequantization=self.dequantization or dequantization,
            average=float(constants.get("AVERAGE", 0.0)) if self.average is None else self.average,
        )

    def changed_from(self, other: "TrainSettings") -> list[str]:
        """Names of the settings that differ and matter to what is computed."""
        names = [f.name for f in fields(self) if f.name not in FREE_TO_CHANGE]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


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
