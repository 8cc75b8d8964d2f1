"""A training run between its steps: validation, checkpoints, the curve, its end."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn, cast

import pyro
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pyro_afslvm.data import Dequantization
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
from pyro_afslvm.training.loop import descend, parameters
from pyro_afslvm.utils.distributed import Processes, is_first_process
from pyro_afslvm.utils.files import write_atomically
from pyro_afslvm.utils.seeding import Stream, seed_step


class Session:
    """A training run: where it stands, and what is done between its steps.

    Args:
        pair: model and guide, moved to the device of ``fabric``.
        recipe: what they were built from.
        settings: how to train, resolved.
        run: the folder of checkpoints and curve.
        dequantization: of the data.
        fabric: launched; the device, and what processes tell one another.
        validation: batches of sequences, ``None`` where there are none.
        report: called after every step.

    Attributes:
        step: steps done.
        seconds: spent on them, by the slowest process; not on validation and checkpoints.
        curve: step, seconds, nats/dim in training and validation, at each validation.
        interrupted: whether this process was asked to stop after the step.
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
        validation: DataLoader[Tensor] | None = None,
        report: Callable[["Session"], None] = lambda _: None,
    ) -> None:
        self.recipe, self.settings, self.run = recipe, settings, run
        self.dequantization, self.fabric = dequantization, fabric
        self.validation, self.report = validation, report
        free_bits = settings.free_bits
        self.loss = BoundLoss(pair, FreeBitsELBO(free_bits) if free_bits else None)
        self._parallel = self._set_up()
        self.optimizer = torch.optim.Adam(
            self.loss.parameters(), lr=settings.learning_rate or 0.0, fused=True
        )
        self.processes = Processes.running()
        self.step, self.seconds = 0, 0.0
        self.best, self.since_best = -math.inf, 0
        self.curve: list[tuple[int, float, float, float]] = []
        self.interrupted = False
        self._losses: list[Tensor] = []

    def _set_up(self) -> nn.Module:
        """Move the loss to the device, copy it for its average, wrap it for all processes."""
        parallel: nn.Module = self.fabric.setup_module(self.loss)
        decay = self.settings.average or 0.0
        self.average = running_average(self.loss, decay) if decay else None
        if self.settings.recompute:
            recompute_activations(self.loss)
        if self.settings.compile:
            compile_networks(self.loss)
        return parallel

    @property
    def steps(self) -> int:
        """Steps to do in all."""
        return self.settings.steps or 0

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

    def train(self, batches: Iterable[Tensor]) -> None:
        """Train on batches of data until the budget is spent or Ctrl-C comes.

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
            backward=self.fabric.backward,
        )
        try:
            clock = time.perf_counter()
            for loss in losses:
                stop = self._after_step(loss, time.perf_counter() - clock)
                if self.is_done:
                    break
                if stop:
                    raise KeyboardInterrupt
                clock = time.perf_counter()
        except DivergenceError as error:
            self._give_up(error)

    def _frames(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches as the model takes them; each step has random numbers of its own."""
        for batch in batches:
            batch = self.fabric.to_device(batch)
            seed_step(self.settings.seed, self.step, self.fabric.global_rank)
            yield self.dequantization(batch)

    def _forward(self, x: Tensor) -> Tensor:
        with self._autocast():
            loss: Tensor = self._parallel(x)
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
        valid = self.fabric.broadcast(self._validate() if is_first_process() else math.nan)
        score = train if math.isnan(valid) and self.validation is None else valid
        if not (math.isfinite(train) and math.isfinite(score)):
            raise TrainingError(f"the bound is not finite near step {self.step}; {self._kept()}")
        self.curve.append((self.step, self.seconds, train, valid))
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
            terms = bound_terms(self.loss.model, self.loss.guide, error.x)
        site = "z" if not bool(torch.isfinite(terms.kl).all()) else "x"
        raise TrainingError(
            f"training stopped at step {error.step}, site '{site}': {error.reason}; {self._kept()}"
        ) from None

    def _kept(self) -> str:
        if self.run.last.exists():
            return f"the checkpoint {self.run.last} from before is kept"
        return "no checkpoint had been written yet"

    # its metrics ------------------------------------------------------------------------

    def _mean_losses(self) -> Tensor:
        """Loss of each step since the last period, over processes."""
        losses = torch.stack([loss.to(self.fabric.device) for loss in self._losses])
        mean: Any = self.fabric.all_reduce(losses, reduce_op="mean")
        return cast(Tensor, mean)

    @torch.no_grad()
    def _validate(self) -> float:
        """Nats/dim of the last frames on the validation set, NaN where there is none."""
        if self.validation is None:
            return math.nan
        loss, metrics = self._averaged(), []
        loss.eval()
        for i, batch in enumerate(self.validation):
            seed_step(self.settings.seed, i, Stream.VALIDATION)  # the same at every validation
            with self._autocast():
                x = self.dequantization(self.fabric.to_device(batch))
                terms = bound_terms(loss.model, loss.guide, x)
            metrics.append(terms.bound[..., -self.settings.scored_frames :].mean((0, 2)))
        loss.train()
        return self._nats_per_dim(float(torch.cat(metrics).mean()))

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
        rows = ["step,seconds,train_nats_per_dim,validation_nats_per_dim"]
        rows += [f"{s},{sec:.3f},{t:.6f},{v:.6f}" for s, sec, t, v in self.curve]
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
            "losses": self._losses,
        }

    @torch.no_grad()
    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        load_pair(Pair(self.loss.model, self.loss.guide), checkpoint)
        self.step, self.seconds = checkpoint["step"], checkpoint["seconds"]
        self.best, self.since_best = checkpoint["best"], checkpoint["since_best"]
        self.curve = [tuple(row) for row in checkpoint["curve"]]
        self._losses = list(checkpoint["losses"])
        if self.average is not None:
            self.average.module.load_state_dict(self.loss.state_dict())
            self.average.n_averaged.fill_(self.step)
            for parameter, value in zip(
                parameters(self.optimizer), checkpoint["trained"], strict=True
            ):
                parameter.copy_(value)
        self.optimizer.load_state_dict(checkpoint["optimizer"])
