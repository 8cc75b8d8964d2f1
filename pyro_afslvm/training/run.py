"""Training a recipe into a run folder: resumable to the bit, on Lightning Fabric."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyro
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from pyro_afslvm.data import (
    Dequantization,
    EmptySplitError,
    SequenceDataset,
    SequenceSource,
    ShortSplitError,
    choose_dequantization,
)
from pyro_afslvm.data.sequences import with_context
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives.loss import check_discrete
from pyro_afslvm.runs.checkpoint import RunError, load_checkpoint, load_what_fits
from pyro_afslvm.runs.recipe import Recipe, build_pair, remember
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings, as_launched
from pyro_afslvm.training.acceleration import keep_freed_memory
from pyro_afslvm.training.interrupt import interruptible, quiet
from pyro_afslvm.training.sampler import StepBatches
from pyro_afslvm.training.session import Session
from pyro_afslvm.training.validation import Watched
from pyro_afslvm.utils.distributed import is_first_process
from pyro_afslvm.utils.seeding import Stream, seed_step

ESTIMATED = 1000  # training sequences of which a recipe computes what has a closed form


def train(
    recipe: Recipe,
    source: SequenceSource,
    out: Any,
    settings: TrainSettings,
    *,
    resume: bool = False,
    report: Callable[[Session], None] | None = None,
) -> Run:
    """Train a recipe on a data set into a run folder.

    Args:
        recipe: what to train.
        source: where sequences come from.
        out: the run folder; new, or with ``resume`` an earlier run's.
        settings: how to train.
        resume: go on with an earlier run, exactly as if it had not been interrupted.
        report: called after every step with the :class:`~pyro_afslvm.training.session.Session`.

    Raises:
        RunError: if the folder is in the way, or was trained otherwise.
        TrainingError: if the loss becomes NaN; the last good checkpoint is kept.
        KeyboardInterrupt: on Ctrl-C, after the step has ended and a checkpoint was written.
    """
    if resume and (Path(out) / "settings.json").is_file():
        Run.open(out).take(source)
    dequantization = choose_dequantization(settings.dequantization, source)
    resolved = settings.resolved(
        recipe.constants, dequantization=dequantization.name, data=source.name
    )
    settings = as_launched(resolved)
    seed_step(settings.seed, 0, Stream.PARAMETERS)
    pair = build_pair(recipe, source.frame_shape, source.context_features)
    frames = crop_length(pair.model, settings.scored_frames, most=source.num_frames)
    data = _training_set(source, frames, settings)
    if dequantization.name == "binary":
        check_discrete(pair.model, dequantization(data[0][None]))
    watched = Watched(_validation_set(source, frames, settings), _first(data, settings))
    if not list(pair.model.parameters()):
        raise RunError(f"the model of {recipe.path} has no parameters to train")
    taken = []
    if settings.start_from is not None and not resume:
        taken = _start_from(settings.start_from, pair)
    run = _folder(recipe, source, out, settings, resume=resume)
    try:
        if recipe.estimate is not None and not (resume and run.last.exists()):
            recipe.estimate(pair, _in_batches(data, dequantization, settings.seed))
        with quiet(), _one_line_errors():
            fabric = launch(settings, run)
            session = Session(
                pair,
                recipe,
                settings,
                run,
                dequantization=dequantization,
                fabric=fabric,
                watched=watched,
                report=report or (lambda session: None),
            )
            session.taken = frozenset(taken)
            if resume and run.last.exists():
                session.restore(load_checkpoint(run.last))
            if not session.is_done:
                _train(session, data)
    except BaseException:
        if not resume and is_first_process() and not run.last.exists():
            shutil.rmtree(run.path)  # this call made it, and nothing came of it
        raise
    return run


def _start_from(folder: str, pair: Pair) -> list[str]:
    """Take over the weights of another run that fit; give their names."""
    put, fresh = load_what_fits(pair, load_checkpoint(Run.open(folder).best))
    if is_first_process():
        said = f"starting from {folder}: {len(put)} tensors are its, {fresh} are fresh"
        print(said, file=sys.stderr)
    return put


def _train(session: Session, data: SequenceDataset) -> None:
    settings, fabric = session.settings, session.fabric
    if fabric.device.type == "cpu" and not settings.recompute:
        keep_freed_memory()
    batches = StepBatches(
        len(data),
        settings.batch_size or 1,
        seed=settings.seed,
        position=lambda: session.step,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    loader = DataLoader(
        with_context(data),
        batch_sampler=batches,
        num_workers=settings.workers,
        pin_memory=fabric.device.type == "cuda",  # copied while the device works
    )
    with interruptible(session), watched(fabric.device):
        session.train(loader)


def launch(settings: TrainSettings, run: Run) -> Fabric:
    """Start the processes that the settings ask for, each on its device."""
    loggers: list[Any] = []
    if settings.tensorboard:
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        loggers = [TensorBoardLogger(run.path, name="tensorboard", version="")]
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy="ddp" if settings.devices * settings.num_nodes > 1 else "auto",
        loggers=loggers,
    )
    fabric.launch()
    return fabric


def watched(device: torch.device) -> AbstractContextManager[None]:
    """Turn Pyro's validation off on an accelerator, which it would wait for several times a step.

    There NaN is found at the next validation.
    """
    if device.type == "cpu":
        return nullcontext()
    off: AbstractContextManager[None] = pyro.validation_enabled(False)
    return off


def _folder(
    recipe: Recipe, source: SequenceSource, out: Any, settings: TrainSettings, *, resume: bool
) -> Run:
    """The run's folder, which the first process makes for all."""
    if not is_first_process():
        return Run(Path(out))
    if resume:
        run = Run.open(out)
        run.check_resumable(recipe, settings, source)
        run.update_settings(settings, source, recipe)
    else:
        run = Run.create(out, recipe, settings, source)
    remember(recipe)
    return run


def _training_set(source: SequenceSource, frames: int, settings: TrainSettings) -> SequenceDataset:
    try:
        return source.dataset("train", num_frames=frames)
    except ShortSplitError as error:
        raise ShortSplitError(
            f"{error}: the model is given {frames - settings.scored_frames} and then scores "
            f"{settings.scored_frames}: choose fewer scored_frames"
        ) from None


def _validation_set(
    source: SequenceSource, frames: int, settings: TrainSettings
) -> DataLoader[Any] | None:
    try:
        data = source.dataset("validation", num_frames=frames)
    except EmptySplitError:  # the public Moving MNIST file has none
        return None
    except ShortSplitError as error:
        if is_first_process():
            print(f"training without validation: {error}", file=sys.stderr)
        return None
    return DataLoader(_first(data, settings), batch_size=32)


def _first(data: SequenceDataset, settings: TrainSettings) -> Subset[Any]:
    return Subset(with_context(data), range(min(settings.validation_sequences, len(data))))


def _in_batches(
    data: SequenceDataset, dequantization: Dequantization, seed: int
) -> Iterator[Tensor]:
    """Dequantized training sequences from all over an epoch or, of few, from several ones."""
    size = max(ESTIMATED, len(data))
    chosen = Subset(data, [i * size // ESTIMATED for i in range(ESTIMATED)])
    for i, batch in enumerate(DataLoader(chosen, batch_size=32)):
        seed_step(seed, i, Stream.ESTIMATE)
        yield dequantization(batch)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Shorten what is said of a device that is not there, or by a worker of damaged data."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(str(error).split("\n")[0]) from None
    except (ValueError, OSError) as error:
        if "DataLoader worker" not in str(error):
            raise
        last = str(error).strip().splitlines()[-1]  # after the worker's traceback: "Kind: reason"
        raise ValueError(last.partition(": ")[2] or last) from None
