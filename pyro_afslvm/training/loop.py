"""One training run as Lightning drives it: steps, validation, checkpoints, curve."""

import copy
import math
import time
from collections.abc import Callable
from typing import Any, NoReturn

import lightning as L
import pyro
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_afslvm.data import Dequantization
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives import FreeBitsELBO, bound_terms, warmed_up
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.checkpoint import load_pair, save_checkpoint
from pyro_afslvm.runs.recipe import Recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.acceleration import compile_networks, recompute_activations
from pyro_afslvm.training.averaging import RunningAverage
from pyro_afslvm.training.errors import TrainingError
from pyro_afslvm.utils.distributed import ALONE, Processes, is_first_process
from pyro_afslvm.utils.files import write_atomically
from pyro_afslvm.utils.seeding import seed_step


class Training(L.LightningModule):
    """One run: loss, optimizer, validation, checkpoints, curve."""

    def __init__(
        self,
        pair: Pair,
        recipe: Recipe,
        settings: TrainSettings,
        run: Run,
        *,
        noise: Dequantization,
    ) -> None:
        super().__init__()
        free_bits = settings.free_bits
        self.loss = BoundLoss(pair, FreeBitsELBO(free_bits) if free_bits else None)
        if settings.recompute:
            recompute_activations(self.loss)
        if settings.compile:
            compile_networks(self.loss)
        self.recipe, self.settings, self.run_folder = recipe, settings, run
        self.noise = noise
        self.average = RunningAverage([*self.loss.parameters()], settings.average or 0.0)
        self.step, self.seconds = 0, 0.0
        self.best, self.since_best = -math.inf, 0
        self.interrupted = False
        self.processes = ALONE
        self.curve: list[tuple[int, float, float, float]] = []
        self._restored: dict[str, Any] | None = None
        self._losses: list[Tensor] = []
        self.validation: DataLoader[Tensor] | None = None
        self._started = 0.0
        self.report: Callable[[Training], None] = lambda _: None

    # state -------------------------------------------------------------------------------

    @property
    def num_dims(self) -> int:
        """Entries of one frame."""
        return math.prod(self.loss.model.frame_shape)  # type: ignore[arg-type]

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

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        load_pair(Pair(self.loss.model, self.loss.guide), checkpoint)
        self.step, self.seconds = checkpoint["step"], checkpoint["seconds"]
        self.best, self.since_best = checkpoint["best"], checkpoint["since_best"]
        self.curve = [tuple(row) for row in checkpoint["curve"]]
        self._losses = list(checkpoint["losses"])
        self.average.restore(checkpoint.get("trained"))
        self._restored = checkpoint["optimizer"]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; plain data and tensors."""
        trained, guide = self.average.trained(), self.loss.guide
        with self.average.applied():
            model = copy.deepcopy(self.loss.model.state_dict())
            of_guide = None if guide is None else copy.deepcopy(guide.state_dict())
        return {
            "model": model,
            "guide": of_guide,
            "trained": trained,
            "optimizer": self.optimizers(use_pl_optimizer=False).state_dict(),  # type: ignore[union-attr]
            "recipe": self.recipe.digest,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "since_best": self.since_best,
            "curve": self.curve,
            "losses": self._losses,
        }

    # Lightning's hooks -------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        rate = self.settings.learning_rate or 0.0
        optimizer = torch.optim.Adam(self.loss.parameters(), lr=rate, fused=True)
        if self._restored is not None:
            optimizer.load_state_dict(self._restored)
        return optimizer

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        # Lightning refuses to with a fused optimizer, for the sake of float16
        torch.nn.utils.clip_grad_norm_(self.loss.parameters(), self.settings.clip_norm)

    def on_train_start(self) -> None:
        self.processes = Processes.running()

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        seed_step(self.settings.seed, self.step, self.global_rank)
        self.loss.latents.scale = warmed_up(self.step, self.settings.kl_warmup)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = self.noise(batch)
        try:
            loss: Tensor = self.loss(x)
        except ValueError as error:  # Pyro's validation met NaN in a distribution
            self._stop(x, str(error).split(",")[0].split("\n")[0])
        if x.device.type == "cpu" and not torch.isfinite(loss):
            self._stop(x, f"the loss became {float(loss)}")
        self._losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        now = time.perf_counter()
        self.seconds += now - self._started
        self.step += 1
        self.average.update(self.step)
        self.report(self)
        # clocks and signals differ between processes, the decision must not
        self.seconds, interrupted = self.processes.largest(self.seconds, self.interrupted)
        if self.step % self.settings.validate_every == 0:
            self._end_of_period()
        if self.is_done or interrupted:
            self.trainer.should_stop = True
            if self.is_done:
                self._end_of_period()
            else:
                self._interrupt()
        self._started = time.perf_counter()

    def _interrupt(self) -> None:
        """Save where training stands between two periods."""
        self.interrupted = True
        if self._losses:
            self._losses = [*self._mean_losses()]
            if is_first_process():
                save_checkpoint(self.run_folder.last, self.state())
        self.processes.wait()

    def _end_of_period(self) -> None:
        """Validate, note the figures, keep a checkpoint."""
        if not self._losses:
            return
        train = self._nats_per_dim(-float(self._mean_losses().mean()))
        self._losses = []
        with self.average.applied():  # batch norm's statistics are those of the first process
            valid = self._validate() if is_first_process() else math.nan
        valid = self.trainer.strategy.broadcast(valid)
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

    def _mean_losses(self) -> Tensor:
        """Loss of each step since the last period, over processes."""
        losses = torch.stack([loss.to(self.device) for loss in self._losses])
        mean: Tensor = self.trainer.strategy.reduce(losses, reduce_op="mean")
        return mean

    @torch.no_grad()
    def _validate(self) -> float:
        """Nats/dim of the last frames on the validation set, NaN where there is none."""
        if self.validation is None:
            return math.nan
        self.loss.eval()
        figures = []
        for i, batch in enumerate(self.validation):
            seed_step(self.settings.seed, i, 1 << 20)  # the same noise at every validation
            with self.trainer.precision_plugin.forward_context():
                x = self.noise(batch.to(self.device))
                terms = bound_terms(self.loss.model, self.loss.guide, x)
            figures.append(terms.bound[..., -self.settings.scored_frames :].mean((0, 2)))
        self.loss.train()
        return self._nats_per_dim(float(torch.cat(figures).mean()))

    def _nats_per_dim(self, nats_per_frame: float) -> float:
        return self.noise.to_nats(nats_per_frame / self.num_dims)

    def _save(self, is_best: bool) -> None:
        save_checkpoint(self.run_folder.last, self.state())
        if is_best:
            write_atomically(self.run_folder.best, self.run_folder.last.read_bytes())
        rows = ["step,seconds,train_nats_per_dim,validation_nats_per_dim"]
        rows += [f"{s},{sec:.3f},{t:.6f},{v:.6f}" for s, sec, t, v in self.curve]
        write_atomically(self.run_folder.metrics, ("\n".join(rows) + "\n").encode())
        for logger in self.trainer.loggers:
            step, seconds, train, valid = self.curve[-1]
            figures = {"train_nats_per_dim": train, "validation_nats_per_dim": valid}
            logger.log_metrics({**figures, "seconds": seconds}, step)

    def _stop(self, x: Tensor, reason: str) -> NoReturn:
        """Find the first site that is not finite and give up."""
        with pyro.validation_enabled(False), torch.no_grad():
            terms = bound_terms(self.loss.model, self.loss.guide, x)
        site = "z" if not bool(torch.isfinite(terms.kl).all()) else "x"
        raise TrainingError(
            f"training stopped at step {self.step}, site '{site}': {reason}; " + self._kept()
        )

    def _kept(self) -> str:
        if self.run_folder.last.exists():
            return f"the checkpoint {self.run_folder.last} from before is kept"
        return "no checkpoint had been written yet"
