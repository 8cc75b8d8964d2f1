"""Training for the command line, on Lightning: resumable to the bit."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import pyro
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_afslvm.data import (
    EmptySplitError,
    SequenceDataset,
    SequenceSource,
    ShortSplitError,
    choose_noise,
)
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.objectives.loss import check_discrete
from pyro_afslvm.runs.checkpoint import RunError, load_checkpoint
from pyro_afslvm.runs.recipe import Recipe, build_pair, remember
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings, as_launched
from pyro_afslvm.training.acceleration import keep_freed_memory
from pyro_afslvm.training.interrupt import interruptible, quiet
from pyro_afslvm.training.loop import Training
from pyro_afslvm.training.sampler import StepBatches
from pyro_afslvm.utils.distributed import is_first_process
from pyro_afslvm.utils.seeding import seed_step


def train(
    recipe: Recipe,
    source: SequenceSource,
    out: Any,
    settings: TrainSettings,
    *,
    resume: bool = False,
    report: Callable[[Training], None] | None = None,
) -> Run:
    """Train a recipe on a data set into a run folder.

    Args:
        recipe: what to train.
        source: where sequences come from.
        out: the run folder; new, or with ``resume`` an earlier run's.
        settings: how to train.
        resume: go on with an earlier run, exactly as if it had not been interrupted.
        report: called after every step with the :class:`Training`.

    Raises:
        RunError: if the folder is in the way, or was trained otherwise.
        TrainingError: if the loss becomes NaN; the last good checkpoint is kept.
        KeyboardInterrupt: on Ctrl-C, after the step has ended and a checkpoint was written.
    """
    noise = choose_noise(settings.noise, source)
    settings = as_launched(settings.resolved(recipe.constants, noise=noise.name))
    seed_step(settings.seed, 0, 1 << 21)
    pair = build_pair(recipe, source.frame_shape)
    frames = crop_length(pair.model, settings.scored_frames, most=source.num_frames)
    data = source.dataset("train", num_frames=frames)
    if noise.name == "binary":
        check_discrete(pair.model, noise(data[0][None]))
    validation = _validation_set(source, frames, settings)
    if not list(pair.model.parameters()):
        raise RunError(f"the model of {recipe.path} has no parameters to train")
    run = _folder(recipe, source, out, settings, resume=resume)
    training = Training(pair, recipe, settings, run, noise=noise)
    training.validation = validation
    if report is not None:
        training.report = report
    if resume and run.last.exists():
        training.restore(load_checkpoint(run.last))
    try:
        if not training.is_done:
            _fit(training, data)
    except BaseException:
        if not resume and is_first_process() and not run.last.exists():
            shutil.rmtree(run.path)  # this call made it, and nothing came of it
        raise
    return run


def _folder(
    recipe: Recipe, source: SequenceSource, out: Any, settings: TrainSettings, *, resume: bool
) -> Run:
    """The run's folder, which the first process makes for all."""
    if not is_first_process():
        return Run(Path(out))
    if resume:
        run = Run.open(out)
        run.check_resumable(recipe, settings, source)
        run.update_settings(settings)
    else:
        run = Run.create(out, recipe, settings, source)
    remember(recipe)
    return run


def _fit(training: Training, data: SequenceDataset) -> None:
    settings = training.settings
    trainer = _trainer(training)
    root = trainer.strategy.root_device
    if root.type == "cpu" and not settings.recompute:
        keep_freed_memory()
    batches = StepBatches(
        len(data),
        settings.batch_size or 1,
        seed=settings.seed,
        position=lambda: training.step,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    loader = DataLoader(
        data,
        batch_sampler=batches,
        num_workers=settings.workers,
        pin_memory=root.type == "cuda",  # copied while the device works
    )
    with quiet(), interruptible(training), _one_line_errors(), watched(root):
        trainer.fit(training, loader)
    if training.interrupted:
        raise KeyboardInterrupt


def watched(device: torch.device) -> AbstractContextManager[None]:
    """Pyro's validation, but not on an accelerator, which it would wait for several times a step.

    There NaN is found at the next validation.
    """
    if device.type == "cpu":
        return nullcontext()
    off: AbstractContextManager[None] = pyro.validation_enabled(False)
    return off


def _trainer(training: Training) -> L.Trainer:
    settings = training.settings
    logger: Any = False
    if settings.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        logger = TensorBoardLogger(training.run_folder.path, name="tensorboard", version="")
    with quiet(), _one_line_errors():
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy="ddp" if settings.devices * settings.num_nodes > 1 else "auto",
            precision=settings.precision,
            max_steps=training.steps - training.step,
            min_epochs=0,
            max_epochs=-1,
            num_sanity_val_steps=0,
            logger=logger,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            inference_mode=False,
            log_every_n_steps=1,
        )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What Lightning says of a device that is not there, or a worker of damaged data, in short."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(str(error).split("\n")[0]) from None
    except (ValueError, OSError) as error:
        if "DataLoader worker" not in str(error):
            raise
        last = str(error).strip().splitlines()[-1]  # after the worker's traceback: "Kind: reason"
        raise ValueError(last.partition(": ")[2] or last) from None


def _validation_set(
    source: SequenceSource, frames: int, settings: TrainSettings
) -> DataLoader[Tensor] | None:
    try:
        data = source.dataset("validation", num_frames=frames)
    except EmptySplitError:  # the public Moving MNIST file has none
        return None
    except ShortSplitError as error:
        if is_first_process():
            print(f"training without validation: {error}", file=sys.stderr)
        return None
    chosen = range(min(settings.validation_sequences, len(data)))
    return DataLoader(torch.utils.data.Subset(data, chosen), batch_size=32)
