"""A training run between its steps: validation, checkpoints, the curve, its end."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn, cast

import pyro
import torch
from lightning.fabric import Fabric
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_afslvm.data import Dequantization
from pyro_afslvm.data.sequences import parted
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives import FreeBitsELBO, bound_terms
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.checkpoint import load_pair, save_checkpoint
from pyro_afslvm.runs.recipe import Recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.acceleration import compile_networks, recompute_activations
from pyro_afslvm.training.averaging import running_average
from pyro_afslvm.training.errors import DivergenceError, TrainingError
from pyro_afslvm.training.loop import Batch, descend, parameters
from pyro_afslvm.training.validation import Watched, noise_correlation, validate
from pyro_afslvm.utils.distributed import Processes, is_first_process
from pyro_afslvm.utils.files import write_atomically
from pyro_afslvm.utils.seeding import seed_step

RECENT = 20  # steps whose mean is shown


class Session:
    """A training run: where it stands, and what is done between its steps.

    Args:
        pair: model and guide, moved to the device of ``fabric``.
        recipe: what they were built from.
        settings: how to train, resolved.
        run: the folder of checkpoints and curve.
        dequantization: of the data.
        fabric: launched; the device, and what processes tell one another.
        watched: sequences on which it is watched.
        report: called after every step.

    Attributes:
        step: steps done.
        seconds: spent on them, by the slowest process; not on validation and checkpoints.
        curve: step, seconds, nats/dim in training and validation, at each validation.
        correlations: corr y of training sequences (Fig. 7) at each of them, NaN without a flow.
        interrupted: whether this process was asked to stop after the step.
        taken: names of parameters that came from another run.
    """

    def __init__(
        self,
        pair: Pair,
        recipe: Recipe,
        settings: TrainSettings,
        run: Run,
        *,
        dequantization: Dequantization,
        fabric: Fabric,
        watched: Watched = Watched(),  # noqa: B008
        report: Callable[["Session"], None] = lambda _: None,
    ) -> None:
        self.recipe, self.settings, self.run = recipe, settings, run
        self.dequantization, self.fabric = dequantization, fabric
        self.watched, self.report = watched, report
        self.loss = BoundLoss(pair, _objective(settings))
        self._parallel = self._set_up()
        self.optimizer = torch.optim.Adam(
            self.loss.parameters(), lr=settings.learning_rate or 0.0, fused=True
        )
        self.processes = Processes.running()
        self.step, self.seconds = 0, 0.0
        self.best, self.since_best = -math.inf, 0
        self.curve: list[tuple[int, float, float, float]] = []
        self.correlations: list[float] = []
        self.interrupted = False
        self.taken: frozenset[str] = frozenset()
        self._losses: list[Tensor] = []

    def _set_up(self) -> nn.Module:
        """Move the loss to the device, copy it for its average, wrap it for all processes."""
        # without gradients there is nothing that processes have to tell one another
        place = self.fabric.setup_module if self.learns else self.fabric.to_device
        parallel: nn.Module = place(self.loss)
        decay = self.settings.average or 0.0
        self.average = running_average(self.loss, decay) if decay else None
        if self.settings.recompute:
            recompute_activations(self.loss)
        if self.settings.compile:
            compile_networks(self.loss)
        return parallel

    @property
    def learns(self) -> bool:
        """Whether there is anything that gradients would move."""
        return any(parameter.requires_grad for parameter in self.loss.parameters())

    @property
    def steps(self) -> int:
        """Steps to do in all; one where there is nothing to learn."""
        return (self.settings.steps or 0) if self.learns else 1

    @property
    def is_done(self) -> bool:
        """Whether the budget is spent."""
        seconds, patience = self.settings.seconds, self.settings.patience
        return (
            self.step >= self.steps
            or (seconds is not None and self.seconds >= seconds)
            or (patience is not None and self.since_best >= patience)
        )

    # the steps --------------------------------------------------------------------------

    def train(self, batches: Iterable[Any]) -> None:
        """Train on batches of data until the budget is spent or Ctrl-C comes.

        Args:
            batches: sequences, or these and their covariates.

        Raises:
            TrainingError: if the bound is not finite.
            KeyboardInterrupt: on Ctrl-C, once the step has ended and a checkpoint was written.
        """
        losses = descend(
            self.loss,
            self.optimizer,
            self._frames(batches),
            clip_norm=self.settings.clip_norm,
            kl_warmup=self.settings.kl_warmup,
            first_step=self.step,
            check=self.fabric.device.type == "cpu",  # elsewhere at the next validation
            forward=self._forward,
            backward=self._backward,
        )
        now = time.process_time if self.settings.clock == "process" else time.perf_counter
        try:
            start = now()
            for loss in losses:
                stop = self._after_step(loss, now() - start)
                if self.is_done:
                    break
                if stop:
                    raise KeyboardInterrupt
                start = now()
        except DivergenceError as error:
            self._give_up(error)

    def _frames(self, batches: Iterable[Any]) -> Iterator[Batch]:
        """The batches as the model takes them; each step has random numbers of its own."""
        for batch in batches:
            frames, known = parted(self.fabric.to_device(batch))
            seed_step(self.settings.seed, self.step, self.fabric.global_rank)
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.rate(self.step)
            x = self.dequantization(frames)
            yield x if known is None else (x, None, known)

    def _backward(self, loss: Tensor) -> None:
        """Take the gradients, at first of fresh weights only."""
        self.fabric.backward(loss)
        if self.step < self.settings.hold:
            for name, parameter in self.loss.named_parameters():
                if name in self.taken:
                    parameter.grad = None

    def _forward(self, *given: Tensor | None) -> Tensor:
        with self._autocast():
            loss: Tensor = self._parallel(*given)
        return loss

    def _autocast(self) -> AbstractContextManager[None]:
        """Networks in bfloat16 if asked; Fabric's own would round the frames to it too."""
        device, mixed = self.fabric.device.type, self.settings.precision == "bf16-mixed"
        return torch.autocast(device, torch.bfloat16, enabled=mixed)

    def _after_step(self, loss: Tensor, seconds: float) -> bool:
        """Note a step; tell whether all processes are to stop here, for any was interrupted."""
        self._losses.append(loss)
        self.step += 1
        self.seconds += seconds
        if self.average is not None:
            self.average.update_parameters(self.loss)
        self.report(self)
        # clocks and signals differ between processes, the decision must not
        self.seconds, interrupted = self.processes.largest(self.seconds, self.interrupted)
        if self.step % self.settings.validate_every == 0 or self.is_done:
            self._end_period()
        elif interrupted:
            self._pause()
        return bool(interrupted)

    def _end_period(self) -> None:
        """Validate, note the nats/dim, keep a checkpoint."""
        train = self._nats_per_dim(-float(self._mean_losses().mean()))
        self._losses = []
        # batch norm's statistics are those of the first process
        found = self._validate() if is_first_process() else (math.nan, math.nan)
        valid, correlation = self.fabric.broadcast(found)
        score = train if math.isnan(valid) and self.watched.held is None else valid
        if not (math.isfinite(train) and math.isfinite(score)):
            raise TrainingError(f"the bound is not finite near step {self.step}; {self._kept()}")
        self.curve.append((self.step, self.seconds, train, valid))
        self.correlations.append(correlation)
        is_best = score > self.best
        self.since_best = 0 if is_best else self.since_best + 1
        self.best = max(self.best, score)
        if is_first_process():
            self._save(is_best)
        self.processes.wait()  # for its files

    def _pause(self) -> None:
        """Save where training stands between two periods."""
        self._losses = [*self._mean_losses()]
        if is_first_process():
            save_checkpoint(self.run.last, self.state())
        self.processes.wait()

    def _give_up(self, error: DivergenceError) -> NoReturn:
        """Say at which site the bound is not finite."""
        with pyro.validation_enabled(False), torch.no_grad():
            terms = bound_terms(self.loss.model, self.loss.guide, error.x, context=error.context)
        site = "z" if not bool(torch.isfinite(terms.kl).all()) else "x"
        raise TrainingError(
            f"training stopped at step {error.step}, site '{site}': {error.reason}; {self._kept()}"
        ) from None

    def _kept(self) -> str:
        if self.run.last.exists():
            return f"the checkpoint {self.run.last} from before is kept"
        return "no checkpoint had been written yet"

    @property
    def recent(self) -> float:
        """Nats/dim of the last steps in training, of this process; NaN before the first."""
        last = self._losses[-RECENT:]
        if not last:
            return self.curve[-1][2] if self.curve else math.nan
        return self._nats_per_dim(-float(torch.stack([loss.cpu() for loss in last]).mean()))

    # its metrics ------------------------------------------------------------------------

    def _mean_losses(self) -> Tensor:
        """Loss of each step since the last period, over processes."""
        losses = torch.stack([loss.to(self.fabric.device) for loss in self._losses])
        mean: Any = self.fabric.all_reduce(losses, reduce_op="mean")
        return cast(Tensor, mean)

    def _validate(self) -> tuple[float, float]:
        """Nats/dim of the last frames on the validation set, and corr y of training sequences."""
        loss, valid = self._averaged(), math.nan
        common: Any = {"dequantization": self.dequantization, "settings": self.settings}
        if self.watched.held is not None:
            of_held = validate(
                loss, self.watched.held, fabric=self.fabric, autocast=self._autocast(), **common
            )
            valid = self._nats_per_dim(of_held)
        return valid, noise_correlation(loss, self.watched.training, **common)

    def _nats_per_dim(self, nats_per_frame: float) -> float:
        num_dims = math.prod(self.loss.model.frame_shape)  # type: ignore[arg-type]
        return self.dequantization.to_nats(nats_per_frame / num_dims)

    # its files --------------------------------------------------------------------------

    def _averaged(self) -> BoundLoss:
        """The loss whose parameters are validated and kept as the model."""
        averaged = self.loss if self.average is None else self.average.module
        assert isinstance(averaged, BoundLoss)
        return averaged

    def _save(self, is_best: bool) -> None:
        save_checkpoint(self.run.last, self.state())
        if is_best:
            write_atomically(self.run.best, self.run.last.read_bytes())
        rows = ["step,seconds,train_nats_per_dim,validation_nats_per_dim,train_correlation_y"]
        rows += [
            f"{step},{seconds:.3f},{train:.6f},{valid:.6f},{correlation:.6f}"
            for (step, seconds, train, valid), correlation in zip(
                self.curve, self.correlations, strict=True
            )
        ]
        write_atomically(self.run.metrics, ("\n".join(rows) + "\n").encode())
        step, seconds, train, valid = self.curve[-1]
        self.fabric.log_dict(
            {"train_nats_per_dim": train, "validation_nats_per_dim": valid, "seconds": seconds},
            step,
        )

    def state(self) -> dict[str, Any]:
        """Return the content of a checkpoint: plain data and tensors."""
        kept = self._averaged()
        trained = None
        if self.average is not None:  # beside which the parameters themselves are kept
            trained = [p.detach() for p in self.loss.parameters()]
        return {
            "model": kept.model.state_dict(),
            "guide": None if kept.guide is None else kept.guide.state_dict(),
            "trained": trained,
            "optimizer": self.optimizer.state_dict(),
            "recipe": self.recipe.digest,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "since_best": self.since_best,
            "curve": self.curve,
            "correlations": self.correlations,
            "losses": self._losses,
            "taken": sorted(self.taken),
        }

    @torch.no_grad()
    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        load_pair(Pair(self.loss.model, self.loss.guide), checkpoint)
        self.step, self.seconds = checkpoint["step"], checkpoint["seconds"]
        self.best, self.since_best = checkpoint["best"], checkpoint["since_best"]
        self.curve = [tuple(row) for row in checkpoint["curve"]]
        unknown = [math.nan] * len(self.curve)  # in runs of earlier releases
        self.correlations = list(checkpoint.get("correlations", unknown))
        self._losses = list(checkpoint["losses"])
        self.taken = frozenset(checkpoint.get("taken", ()))
        if self.average is not None:
            self.average.module.load_state_dict(self.loss.state_dict())
            self.average.n_averaged.fill_(self.step)
            for parameter, value in zip(
                parameters(self.optimizer), checkpoint["trained"], strict=True
            ):
                parameter.copy_(value)
        self.optimizer.load_state_dict(checkpoint["optimizer"])


def _objective(settings: TrainSettings) -> ELBO | None:
    """The objective of training; ``None`` for the plain bound."""
    if settings.free_bits:
        return FreeBitsELBO(settings.free_bits)
    if settings.divergence == "closed":
        closed: ELBO = TraceMeanField_ELBO()
        return closed
    return None
