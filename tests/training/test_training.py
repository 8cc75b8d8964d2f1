"""Training: resumable to the bit, and robust."""

import math
import os
import signal
import textwrap
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch.optim.optimizer import register_optimizer_step_post_hook

from pyro_afslvm.data import GaussianDequantization, MovingDigits
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.checkpoint import RunError, load_checkpoint, save_checkpoint
from pyro_afslvm.runs.recipe import Recipe, load_recipe
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.errors import TrainingError
from pyro_afslvm.training.run import train
from pyro_afslvm.training.sampler import StepBatches
from pyro_afslvm.training.session import Session
from pyro_afslvm.utils.distributed import Processes
from pyro_afslvm.utils.seeding import seed_step
from tests.support.processes import run_python

ROOT = Path(__file__).parents[2]
TINY = """
from pyro_afslvm import SLVM, ConvConditioner, FilteringGuide, LSTMConditioner, Pair, TemporalAffine
from pyro_afslvm.networks import ConvDecoder, ConvEncoder

NAME = "tiny"
LEARNING_RATE = 1e-3
BATCH_SIZE = 2


def build(frame_shape=(1, 16, 16)):
    flow = TemporalAffine(ConvConditioner(1, hidden=4, norm="batch", residual=True, depth=1))
    model = SLVM(
        frame_shape,
        3,
        prior=TemporalAffine(LSTMConditioner(3, hidden=5)),
        decoder=ConvDecoder(3, frame_shape, width=4),
        flow=flow,
    )
    encoder = ConvEncoder(frame_shape, features=4, width=4)
    return Pair(model, FilteringGuide(model, encoder, hidden=5))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "tiny.py"
    path.write_text(textwrap.dedent(TINY))
    return load_recipe(path)


@pytest.fixture
def source() -> MovingDigits:
    return MovingDigits(size=16, train_size=9, validation_size=3, test_size=4)


def settings(**changes) -> TrainSettings:
    defaults = {"validate_every": 4, "validation_sequences": 3, "scored_frames": 3}
    return TrainSettings(**(defaults | changes))


def weights(run: Run) -> dict[str, torch.Tensor]:
    state = load_checkpoint(run.last)
    tensors = {
        f"{part}.{k}": v for part in ("model", "guide") for k, v in (state[part] or {}).items()
    }
    for i, moments in state["optimizer"]["state"].items():
        tensors |= {f"adam.{i}.{k}": v for k, v in moments.items()}
    return tensors


def assert_same(a: Run, b: Run) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def assert_same_curve(a: Run, b: Run) -> None:
    def rows(run: Run) -> list[list[str]]:
        lines = [line.split(",") for line in run.metrics.read_text().splitlines()]
        return [[line[0], *line[2:]] for line in lines]  # all but the seconds

    assert rows(a) == rows(b)


def test_resumed_equals_uninterrupted(recipe, source, tmp_path):
    whole = train(recipe, source, tmp_path / "whole", settings(steps=11))
    train(recipe, source, tmp_path / "parts", settings(steps=3))
    train(recipe, source, tmp_path / "parts", settings(steps=6), resume=True)
    parts = train(recipe, source, tmp_path / "parts", settings(steps=11), resume=True)
    assert load_checkpoint(parts.last)["step"] == 11
    assert_same(whole, parts)


def test_same_seed_same_run_other_seed_another(recipe, source, tmp_path):
    one = train(recipe, source, tmp_path / "one", settings(steps=3))
    two = train(recipe, source, tmp_path / "two", settings(steps=3))
    other = train(recipe, source, tmp_path / "other", settings(steps=3, seed=1))
    assert_same(one, two)
    with pytest.raises(AssertionError):
        assert_same(one, other)


def test_the_divergence_is_warmed_up(recipe, source, tmp_path, monkeypatch):
    seen = []
    original = BoundLoss.forward

    def watch(self, x):
        seen.append(self.latents.scale)
        return original(self, x)

    monkeypatch.setattr(BoundLoss, "forward", watch)
    whole = train(recipe, source, tmp_path / "whole", settings(steps=6, kl_warmup=4))
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    train(recipe, source, tmp_path / "parts", settings(steps=2, kl_warmup=4))
    parts = train(recipe, source, tmp_path / "parts", settings(steps=6, kl_warmup=4), resume=True)
    assert_same(whole, parts)
    plain = train(recipe, source, tmp_path / "plain", settings(steps=6))
    with pytest.raises(AssertionError):
        assert_same(whole, plain)


def test_the_learning_rate_follows_its_schedule(recipe, source, tmp_path):
    schedule = {"learning_rate": 1e-2, "warmup": 3, "decay": "cosine"}
    whole = train(recipe, source, tmp_path / "whole", settings(steps=6, **schedule))
    rate = load_checkpoint(whole.last)["optimizer"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 5 / 6)))
    train(recipe, source, tmp_path / "parts", settings(steps=6, seconds=1e-9, **schedule))
    parts = train(recipe, source, tmp_path / "parts", settings(steps=6, **schedule), resume=True)
    assert_same(whole, parts)
    with pytest.raises(RunError, match="steps"):  # they are part of the schedule
        train(recipe, source, tmp_path / "parts", settings(steps=8, **schedule), resume=True)
    plain = train(recipe, source, tmp_path / "plain", settings(steps=6, learning_rate=1e-2))
    with pytest.raises(AssertionError):
        assert_same(whole, plain)


def test_the_divergence_in_closed_form(recipe, source, tmp_path):
    plain = train(recipe, source, tmp_path / "plain", settings(steps=3))
    closed = train(recipe, source, tmp_path / "closed", settings(steps=3, divergence="closed"))
    # the same samples, and the same expectation
    first = [float(run.metrics.read_text().split()[1].split(",")[2]) for run in (plain, closed)]
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], abs=0.2)
    with pytest.raises(ValueError, match="free_bits are of a sampled divergence"):
        settings(divergence="closed", free_bits=1.0)


def test_a_run_starts_from_the_weights_of_another_that_fit(recipe, source, tmp_path, capsys):
    first = train(recipe, source, tmp_path / "first", settings(steps=2))
    start = {"start_from": str(first.path), "learning_rate": 1e-30}
    second = train(recipe, source, tmp_path / "second", settings(steps=1, **start))
    assert "are its, 0 are fresh" in capsys.readouterr().err
    before, after = (load_checkpoint(run.last)["model"] for run in (first, second))
    learned = [name for name in after if "running" not in name and "batches" not in name]
    assert all(torch.equal(before[name], after[name]) for name in learned)
    other = textwrap.dedent(TINY).replace("(3, hidden=5)", "(3, hidden=6)")
    (tmp_path / "wider.py").write_text(other)
    wider = load_recipe(tmp_path / "wider.py")
    third = train(wider, source, tmp_path / "third", settings(steps=1, **start))
    assert ", 0 are fresh" not in capsys.readouterr().err
    heads = "flow.conditioner.heads.weight"
    assert torch.equal(load_checkpoint(third.last)["model"][heads], before[heads])
    copy = load_recipe(ROOT / "models/small/copy_last_frame.py")
    with pytest.raises(RunError, match="no weights of that run"):
        train(copy, source, tmp_path / "fourth", settings(steps=1, **start))
    assert not (tmp_path / "fourth").exists()
    with pytest.raises(RunError, match="nowhere"):
        train(recipe, source, tmp_path / "fifth", settings(steps=1, start_from="nowhere"))


def test_weights_of_another_run_are_held_while_fresh_ones_learn(recipe, source, tmp_path):
    first = train(recipe, source, tmp_path / "first", settings(steps=2))
    (tmp_path / "wider.py").write_text(
        textwrap.dedent(TINY).replace("(3, hidden=5)", "(3, hidden=6)")
    )
    wider = load_recipe(tmp_path / "wider.py")
    start = {"start_from": str(first.path), "hold": 2, "validate_every": 1}
    held = train(wider, source, tmp_path / "held", settings(steps=2, **start))
    before = load_checkpoint(first.last)["model"]

    def moved(run):
        after = load_checkpoint(run.last)["model"]
        same = [k for k in after if before[k].shape == after[k].shape and "running" not in k]
        same = [k for k in same if "batches" not in k]
        return {k for k in same if not torch.equal(before[k], after[k])}, len(same)

    assert moved(held)[0] == set()
    assert moved(held)[1] > 0
    free = train(wider, source, held.path, settings(steps=4, **start), resume=True)
    assert len(moved(free)[0]) == moved(free)[1]
    whole = train(wider, source, tmp_path / "whole", settings(steps=4, **start))
    assert_same(whole, free)
    with pytest.raises(ValueError, match="hold keeps the weights of another run"):
        settings(hold=3)


def test_workers_change_nothing(recipe, source, tmp_path):
    one = train(recipe, source, tmp_path / "one", settings(steps=5))
    two = train(recipe, source, tmp_path / "two", settings(steps=5, workers=1))
    assert_same(one, two)


def test_interrupt_saves_and_resumes(recipe, source, tmp_path):
    whole = train(recipe, source, tmp_path / "whole", settings(steps=9))

    def interrupt(session: Session) -> None:
        if session.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(recipe, source, tmp_path / "cut", settings(steps=9), report=interrupt)
    assert load_checkpoint(tmp_path / "cut" / "last.ckpt")["step"] == 6
    cut = train(recipe, source, tmp_path / "cut", settings(steps=9), resume=True)
    assert_same(whole, cut)
    assert_same_curve(whole, cut)
    assert load_checkpoint(whole.best)["step"] == load_checkpoint(cut.best)["step"]


@pytest.mark.parametrize("when", ["while processes talk", "after a step", "after a period"])
def test_no_interrupt_is_lost(when, recipe, source, tmp_path, monkeypatch):
    """Whenever it comes: it ends this step or the next one, and a checkpoint is there."""
    whole = train(recipe, source, tmp_path / "whole", settings(steps=9))
    talk, after = Processes.largest, Session._after_step
    last = 4 if when == "after a period" else 3

    def interrupted_talk(self, *values):
        found = talk(self, *values)
        if when == "while processes talk" and len(talks) == last - 1:
            os.kill(os.getpid(), signal.SIGINT)
        talks.append(values)
        return found

    def interrupted_after(self, *arguments):
        over = after(self, *arguments)
        if when != "while processes talk" and self.step == last:
            os.kill(os.getpid(), signal.SIGINT)
        return over

    talks = []
    with monkeypatch.context() as patched:
        patched.setattr(Processes, "largest", interrupted_talk)
        patched.setattr(Session, "_after_step", interrupted_after)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, source, tmp_path / "cut", settings(steps=9))
    assert load_checkpoint(tmp_path / "cut" / "last.ckpt")["step"] == last + 1
    cut = train(recipe, source, tmp_path / "cut", settings(steps=9), resume=True)
    assert_same(whole, cut)
    assert_same_curve(whole, cut)


def test_an_interrupt_of_the_last_step_changes_nothing(recipe, source, tmp_path):
    def interrupt(session: Session) -> None:
        if session.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    run = train(recipe, source, tmp_path / "run", settings(steps=3), report=interrupt)
    assert load_checkpoint(run.last)["step"] == 3


def test_nan_stops_and_keeps_the_checkpoint(recipe, source, tmp_path):
    def poison(session: Session) -> None:
        if session.step == 6:
            next(session.loss.model.decoder.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"step 6, site 'x'.*last\.ckpt"):
        train(recipe, source, tmp_path / "run", settings(steps=9), report=poison)
    kept = load_checkpoint(tmp_path / "run" / "last.ckpt")
    assert kept["step"] == 4
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_curve_and_best(recipe, source, tmp_path):
    run = train(recipe, source, tmp_path / "run", settings(steps=10))
    lines = run.metrics.read_text().splitlines()
    names = "step,seconds,train_nats_per_dim,validation_nats_per_dim,train_correlation_y"
    assert lines[0] == names
    assert [line.split(",")[0] for line in lines[1:]] == ["4", "8", "10"]
    figures = [float(line.split(",")[3]) for line in lines[1:]]
    best = load_checkpoint(run.best)
    assert best["best"] == pytest.approx(max(figures), abs=1e-5)
    assert best["step"] == (4, 8, 10)[figures.index(max(figures))]


def test_correlation_of_the_noise_is_recorded_while_a_flow_trains(source, tmp_path):
    """Fig. 7: of the same training sequences every time, and of no model without a flow."""
    flow = load_recipe(ROOT / "models/small/af1.py")
    whole = train(flow, source, tmp_path / "whole", settings(steps=8))
    found = whole.read_curves()["train_correlation_y"]
    assert len(found) == 2
    assert np.isfinite(found).all()
    assert found[0] != found[1]
    train(flow, source, tmp_path / "parts", settings(steps=4))
    parts = train(flow, source, tmp_path / "parts", settings(steps=8), resume=True)
    assert_same(whole, parts)
    assert_same_curve(whole, parts)
    slvm = load_recipe(ROOT / "models/small/slvm.py")
    none = train(slvm, source, tmp_path / "none", settings(steps=1, batch_size=2))
    assert np.isnan(none.read_curves()["train_correlation_y"]).all()


def test_a_run_of_before_the_correlations_goes_on(source, tmp_path):
    flow = load_recipe(ROOT / "models/small/af1.py")
    run = train(flow, source, tmp_path / "run", settings(steps=4))
    checkpoint = load_checkpoint(run.last)
    del checkpoint["correlations"], checkpoint["format"]
    save_checkpoint(run.last, checkpoint)
    found = train(flow, source, tmp_path / "run", settings(steps=8), resume=True)
    assert np.isnan(found.read_curves()["train_correlation_y"]).tolist() == [True, False]


# ---- closed forms, and settings for each data set ----


def test_copying_the_last_frame_has_the_scale_of_highest_likelihood(source, tmp_path):
    copy = load_recipe(ROOT / "models/small/copy_last_frame.py")
    run = train(copy, source, tmp_path / "run", settings(steps=7, scored_frames=10))
    state = load_checkpoint(run.last)
    assert state["step"] == 1  # there is nothing to learn
    data = source.dataset("train", num_frames=13)
    x = GaussianDequantization()(torch.stack([data[i] for i in range(9)] * 50)).double()
    expected = (x[:, 3:] - x[:, 2:-1]).square().mean().sqrt().log()
    (scale,) = state["model"].values()
    assert scale.item() == pytest.approx(expected.item(), abs=0.02)
    again = train(copy, source, tmp_path / "again", settings(steps=1, scored_frames=10))
    assert_same(run, again)


def test_steps_and_batches_are_those_of_the_data(tmp_path, source):
    text = (ROOT / "models/small/af1.py").read_text()
    text = text.replace("BATCH_SIZE = 8", 'BATCH_SIZE = {"kth": 8, "moving_digits": 3}')
    text = text.replace("STEPS = 2000", 'STEPS = {"kth": 90_000, "moving_digits": 2}')
    (tmp_path / "recipe.py").write_text(text)
    run = train(load_recipe(tmp_path / "recipe.py"), source, tmp_path / "run", settings())
    assert load_checkpoint(run.last)["step"] == 2
    assert (run.settings.steps, run.settings.batch_size) == (2, 3)


def test_of_other_data_the_first_number_is_taken():
    constants = {"STEPS": {"moving_mnist": 100, "kth": 90}, "BATCH_SIZE": {"kth": 8}}
    for data, steps in (("kth", 90), ("moving_mnist", 100), ("videos", 100)):
        found = TrainSettings().resolved(constants, dequantization="gaussian", data=data)
        assert (found.steps, found.batch_size) == (steps, 8)
    with pytest.raises(ValueError, match="STEPS of the recipe is empty"):
        TrainSettings().resolved({"STEPS": {}}, dequantization="gaussian", data="kth")


def test_seconds_end_training(recipe, source, tmp_path):
    run = train(recipe, source, tmp_path / "run", settings(seconds=0.5, steps=10**6))
    state = load_checkpoint(run.last)
    assert 0.5 <= state["seconds"] < 5
    again = train(recipe, source, run.path, settings(seconds=0.5, steps=10**6), resume=True)
    assert load_checkpoint(again.last)["step"] == state["step"]  # the budget is spent


def test_seconds_may_be_those_of_the_processor(recipe, source, tmp_path):
    hook = register_optimizer_step_post_hook(lambda *_: time.sleep(0.1))  # others work
    try:
        spent = settings(seconds=0.2, clock="process", steps=10**6)
        run = train(recipe, source, tmp_path / "run", spent)
    finally:
        hook.remove()
    state = load_checkpoint(run.last)
    assert 0.2 <= state["seconds"] < 1
    assert state["step"] > 2  # as many as there would be by the wall's clock


def test_patience_ends_training(source, tmp_path):
    # nothing moves, batch norm's statistics neither: the first validation stays the best
    (tmp_path / "still.py").write_text(TINY.replace('norm="batch"', 'norm="group"'))
    recipe = load_recipe(tmp_path / "still.py")
    chosen = settings(steps=100, patience=2, learning_rate=1e-30)
    run = train(recipe, source, tmp_path / "run", chosen)
    assert load_checkpoint(run.last)["step"] == 12


def test_patience_is_still_spent_when_resumed(source, tmp_path):
    (tmp_path / "still.py").write_text(TINY.replace('norm="batch"', 'norm="group"'))
    recipe = load_recipe(tmp_path / "still.py")
    chosen = settings(steps=100, patience=2, learning_rate=1e-30)
    run = train(recipe, source, tmp_path / "run", chosen)
    train(recipe, source, run.path, chosen, resume=True)
    assert load_checkpoint(run.last)["step"] == 12


def test_gradients_are_clipped(recipe, source, tmp_path):
    norms = []

    def look(optimizer, *_):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    hook = register_optimizer_step_post_hook(look)
    try:
        train(recipe, source, tmp_path / "run", settings(steps=3, clip_norm=0.5))
    finally:
        hook.remove()
    assert norms == pytest.approx([0.5] * 3, rel=1e-3)


def test_every_process_draws_its_own_noise(recipe, source, tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(Fabric, "global_rank", property(lambda _: 5))
    monkeypatch.setattr("pyro_afslvm.training.session.seed_step", lambda *key: seeds.append(key))
    train(recipe, source, tmp_path / "run", settings(steps=2))
    assert (0, 0, 5) in seeds
    assert (0, 1, 5) in seeds


def test_nothing_is_left_of_a_run_that_never_began(recipe, source, tmp_path):
    def poison(session: Session) -> None:
        next(session.loss.model.decoder.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingError):
        train(recipe, source, tmp_path / "run", settings(steps=9), report=poison)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="tpuu"):
        train(recipe, source, tmp_path / "run", settings(steps=2, accelerator="tpuu"))
    assert not (tmp_path / "run").exists()


def test_bf16_trains_and_bounds_are_single_precision(recipe, source, tmp_path):
    seen = []

    def look(session: Session) -> None:
        seen.extend(loss.dtype for loss in session._losses)

    run = train(
        recipe, source, tmp_path / "run", settings(steps=5, precision="bf16-mixed"), report=look
    )
    assert set(seen) == {torch.float32}
    assert load_checkpoint(run.last)["step"] == 5


def test_tensorboard_files(recipe, source, tmp_path):
    pytest.importorskip("tensorboard")
    run = train(recipe, source, tmp_path / "run", settings(steps=4, tensorboard=True))
    assert list(run.path.glob("tensorboard/**/events.out.tfevents.*"))


def test_folder_in_the_way(recipe, source, tmp_path):
    train(recipe, source, tmp_path / "run", settings(steps=2))
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    with pytest.raises(RunError, match="not empty"):
        train(recipe, source, tmp_path / "run", settings(steps=4))
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before


def test_resume_refuses_what_differs(recipe, source, tmp_path):
    train(recipe, source, tmp_path / "run", settings(steps=2))
    changed = settings(steps=4, seed=3, precision="bf16-mixed")
    with pytest.raises(RunError, match="another seed, precision"):
        train(recipe, source, tmp_path / "run", changed, resume=True)
    with pytest.raises(RunError, match="other data"):
        train(recipe, MovingDigits(size=16), tmp_path / "run", settings(steps=4), resume=True)
    (tmp_path / "other.py").write_text(TINY + "\n# another\n")
    other = load_recipe(tmp_path / "other.py")
    with pytest.raises(RunError, match="another recipe"):
        train(other, source, tmp_path / "run", settings(steps=4), resume=True)
    with pytest.raises(RunError, match="holds no run"):
        train(recipe, source, tmp_path / "nowhere", settings(steps=4), resume=True)


class Exploit:
    def __reduce__(self):
        return os.system, ("touch exploited",)


@pytest.mark.parametrize("damage", ["truncated", "text", "code", "version", "missing"])
def test_bad_checkpoints(damage, recipe, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(recipe, source, tmp_path / "run", settings(steps=2))
    content = run.last.read_bytes()
    if damage == "truncated":
        run.last.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        run.last.write_text("no checkpoint")
    elif damage == "code":
        torch.save({"format": 1, "model": Exploit()}, run.last)
    elif damage == "version":
        torch.save({"format": 99}, run.last)
    else:
        run.last.unlink()
    with pytest.raises(RunError) as error:
        load_checkpoint(run.last)
    assert "last.ckpt" in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path("exploited").exists()


def test_step_batches_are_functions_of_the_step():
    batches = StepBatches(10, 3, seed=0, position=lambda: 5)
    assert list(islice(batches, 4)) == [batches.batch(step) for step in range(5, 9)]
    whole = [k for step in range(10) for k in batches.batch(step)]
    assert sorted(whole) == list(range(30))  # three epochs, each index once
    assert [k % 10 for k in whole[:10]] != [k % 10 for k in whole[10:20]]


def test_step_batches_share_out_between_ranks():
    ranks = [StepBatches(8, 2, seed=1, rank=r, world_size=2) for r in (0, 1)]
    one = StepBatches(8, 4, seed=1)
    for step in range(6):
        assert [k for rank in ranks for k in rank.batch(step)] == one.batch(step)


def test_ranks_and_steps_draw_different_noise():
    draws = set()
    for step in range(3):
        for rank in range(3):
            seed_step(0, step, rank)
            draws.add(torch.rand(()).item())
    assert len(draws) == 9


def _afslvm(folder: Path, *arguments: str) -> None:
    run_python("-m", "pyro_afslvm.cli", *arguments, cwd=folder)


@pytest.mark.slow
def test_two_processes_resume_exactly(recipe, tmp_path):
    options = ["train", str(recipe.path), "--data", "MovingDigits", "--data.size", "16"]
    options += ["--devices", "2", "--accelerator", "cpu", "--validate_every", "2"]
    options += ["--validation_sequences", "2", "--scored_frames", "3"]
    _afslvm(tmp_path, *options, "--out", "whole", "--steps", "5")
    _afslvm(tmp_path, *options, "--out", "parts", "--steps", "3")
    _afslvm(tmp_path, *options, "--out", "parts", "--steps", "5", "--resume")
    assert_same(Run(tmp_path / "whole"), Run(tmp_path / "parts"))
