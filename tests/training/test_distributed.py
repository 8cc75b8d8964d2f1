"""Two processes under torchrun: their gradients, their clocks, their resumption, their figures."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine
from pyro_afslvm.cli.workflow import evaluate_run
from pyro_afslvm.data import GaussianDequantization, MovingDigits
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings, as_launched
from pyro_afslvm.training.run import train
from pyro_afslvm.training.sampler import StepBatches
from pyro_afslvm.utils.distributed import Processes, is_first_process, launched
from pyro_afslvm.utils.seeding import Stream, seed_step
from tests.support.processes import ROOT, run_python

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch has no gloo here"
)

SLVM = """
from pyro_afslvm import SLVM, ConvConditioner, FilteringGuide, LSTMConditioner, Pair, TemporalAffine
from pyro_afslvm.networks import ConvDecoder, ConvEncoder

BATCH_SIZE, LEARNING_RATE, AVERAGE = 2, 1e-3, 0.9


def build(frame_shape):
    flow = TemporalAffine(ConvConditioner(1, hidden=4, norm="batch", residual=True, depth=1))
    prior = TemporalAffine(LSTMConditioner(3, hidden=5))
    decoder = ConvDecoder(3, frame_shape, width=4)
    model = SLVM(frame_shape, 3, prior=prior, decoder=decoder, flow=flow)
    encoder = ConvEncoder(frame_shape, features=4, width=4)
    return Pair(model, FilteringGuide(model, encoder, hidden=5))
"""
FLOW = """
from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine

BATCH_SIZE = 3


def build(frame_shape):
    flow = TemporalAffine(ConvConditioner(1, hidden=4, norm="group", residual=True, depth=1))
    return Pair(FlowModel(flow, frame_shape), None)
"""
PROGRAM = """
import os, signal, time
from pyro_afslvm.data import MovingDigits
from pyro_afslvm.runs.recipe import load_recipe
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.run import train
from pyro_afslvm.training.session import Session

def run(name, out, *, report=None, **changes):
    chosen = {"validate_every": 4, "validation_sequences": 3, "scored_frames": 3} | changes
    settings = TrainSettings(accelerator="cpu", **chosen)
    train(load_recipe(f"{name}.py"), MovingDigits(size=16), out, settings, report=report)

def interrupt(training):
    if training.step == 6 and training.fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGINT)

def dawdle(training):
    if training.fabric.global_rank == 1:
        training.seconds += 0.2

run("flow", "gradients", steps=1, clip_norm=1e9)
run("slvm", "seconds", steps=10**6, seconds=1.0, report=dawdle)
run("slvm", "whole", steps=9)
def interrupted(name, **options):
    try:
        run("slvm", name, steps=9, **options)
    except KeyboardInterrupt:
        print("interrupted", flush=True)

interrupted("cut", report=interrupt)

end_period = Session._end_period

def end_and_interrupt(session):  # between two decisions, in one process only
    end_period(session)
    if session.step == 4 and session.fabric.global_rank == 0:
        os.kill(os.getpid(), signal.SIGINT)

Session._end_period = end_and_interrupt
interrupted("late")
"""


GRADIENTS = """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.training.test_distributed import flow_loss

dist.init_process_group("gloo")
rank = dist.get_rank()
loss, x = flow_loss()
parallel = DistributedDataParallel(loss)
parallel(x[2 * rank : 2 * rank + 2]).backward()
if rank == 0:
    torch.save([p.grad for p in loss.parameters()], "gradients")
del parallel  # after the group its end would wait for gloo's thread, and that for the GIL
dist.destroy_process_group()
"""


def torchrun(folder: Path, *arguments: str, **variables: str) -> str:
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return run_python(
        *two, *arguments, cwd=folder, timeout=240, OMP_NUM_THREADS="1", **variables
    ).stdout


def curve(run: Run) -> list[list[str]]:
    rows = [line.split(",") for line in run.metrics.read_text().splitlines()]
    return [[row[0], *row[2:]] for row in rows]  # all but the seconds


def gradient_of_the_doubled_batch(recipe_path: Path) -> list[torch.Tensor]:
    seed_step(0, 0, Stream.PARAMETERS)
    loss = BoundLoss(build_pair(load_recipe(recipe_path), (1, 16, 16)))
    data, halves = MovingDigits(size=16).dataset("train", num_frames=6), []
    for rank in range(2):
        indices = StepBatches(len(data), 3, seed=0, rank=rank, world_size=2).batch(0)
        noise = GaussianDequantization()
        seed_step(0, 0, rank)
        halves.append(noise(torch.stack([data[i] for i in indices])))
    loss(torch.cat(halves)).backward()
    return [parameter.grad for parameter in loss.parameters()]


def flow_loss() -> tuple[BoundLoss, torch.Tensor]:
    torch.manual_seed(0)
    flow = TemporalAffine(ConvConditioner(1, hidden=4, norm="group"))
    loss = BoundLoss(Pair(FlowModel(flow, (1, 8, 8)), None)).double()
    return loss, torch.rand(4, 6, 1, 8, 8, dtype=torch.float64)


@pytest.mark.slow
@needs_gloo
def test_ddp_gives_the_gradient_of_the_doubled_batch(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(GRADIENTS)
    torchrun(tmp_path, "program.py", PYTHONPATH=str(ROOT))
    loss, x = flow_loss()
    loss(x).backward()
    gradients = torch.load(tmp_path / "gradients", weights_only=True)
    for mine, theirs in zip(loss.parameters(), gradients, strict=True):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
@needs_gloo
def test_training_by_torchrun(tmp_path: Path) -> None:
    for name, text in (("slvm", SLVM), ("flow", FLOW)):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "program.py").write_text(PROGRAM)
    assert torchrun(tmp_path, "program.py").count("interrupted") == 4

    adam = load_checkpoint(tmp_path / "gradients" / "last.ckpt")["optimizer"]["state"]
    for moments, gradient in zip(
        adam.values(), gradient_of_the_doubled_batch(tmp_path / "flow.py"), strict=True
    ):
        scale = gradient.abs().max().item()  # after one step, the mean of gradients is 0.1 of it
        torch.testing.assert_close(moments["exp_avg"] / 0.1, gradient, rtol=1e-4, atol=1e-5 * scale)

    limited = load_checkpoint(tmp_path / "seconds" / "last.ckpt")  # by the slower clock
    assert limited["seconds"] >= 1.0
    assert limited["step"] <= 5

    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    assert load_checkpoint(cut.last)["step"] == 6
    assert load_checkpoint(tmp_path / "late" / "last.ckpt")["step"] == 5
    options = ["--data", "MovingDigits", "--data.size", "16", "--accelerator", "cpu"]
    options += ["--validate_every", "4", "--validation_sequences", "3", "--scored_frames", "3"]
    options += ["--steps", "9", "--out", "cut", "--resume"]
    said = torchrun(tmp_path, "-m", "pyro_afslvm.cli", "train", "slvm.py", *options)
    assert said.count("trained into cut") == 1
    assert cut.settings.devices == whole.settings.devices == 2
    assert curve(whole) == curve(cut)
    one, other = load_checkpoint(whole.last), load_checkpoint(cut.last)
    for part in ("model", "guide"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name
    for a, b in zip(one["trained"], other["trained"], strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@needs_gloo
def test_evaluation_by_torchrun_has_the_figures_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "slvm.py").write_text(SLVM)
    source = MovingDigits(size=16, test_size=60)  # batches of 25, 25 and 10
    settings = TrainSettings(steps=2, accelerator="cpu", scored_frames=3)
    run = train(load_recipe(tmp_path / "slvm.py"), source, tmp_path / "run", settings)
    alone = evaluate_run(run)
    run.results.unlink()
    said = torchrun(tmp_path, "-m", "pyro_afslvm.cli", "evaluate", "run")
    assert said.count("Protocol of bits/dim") == 1
    together = json.loads(run.results.read_text())
    assert together["num_sequences"] == 60
    assert together.keys() == alone.keys()
    for name, values in alone.pop("per_sequence").items():
        assert together["per_sequence"][name] == pytest.approx(values, rel=1e-5), name
    for name, value in alone.items():
        if isinstance(value, float):
            assert together[name] == pytest.approx(value, rel=1e-5), name
        else:
            assert together[name] == value, name


def start(monkeypatch: pytest.MonkeyPatch, *, rank: int, total: int, on_node: int) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", total), ("LOCAL_WORLD_SIZE", on_node)):
        monkeypatch.setenv(name, str(value))


def test_the_launcher_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainSettings()
    assert as_launched(settings) is settings
    start(monkeypatch, rank=5, total=8, on_node=4)
    assert launched() == (4, 2)
    assert not is_first_process()
    taken = as_launched(settings)
    assert (taken.devices, taken.num_nodes) == (4, 2)
    assert as_launched(taken) is taken
    with pytest.raises(ValueError, match="4 processes on each of 2 nodes, but devices is 3"):
        as_launched(TrainSettings(devices=3))
    start(monkeypatch, rank=0, total=1, on_node=1)
    assert launched() is None
    assert is_first_process()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_batch_is_for_one_process(size: int) -> None:
    things = [*range(7)]
    shares = [Processes(rank, size).share(things) for rank in range(size)]
    assert sorted(thing for share in shares for thing in share) == things
