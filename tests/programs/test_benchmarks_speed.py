"""What speed is measured against computes the same, and the program runs at smoke size."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from benchmarks import growth, memory, numerics
from benchmarks import speed as program
from benchmarks.bare import bare_loss, networks_of
from benchmarks.ceilings import Convolution
from benchmarks.sequential import Sequential
from benchmarks.sizes import Sizes
from benchmarks.targets import table
from benchmarks.timing import fit_line, interleaved, peak_memory
from pyro_afslvm import Pair
from pyro_afslvm.models.base import simulate
from pyro_afslvm.runs.recipe import build_pair, load_recipe

RECIPES = ("af1", "af2", "slvm", "slvm_af1", "slvm_af2")
MEGABYTES, RECIPE = 60, "models/af1.py"


def settled(recipe: str) -> Pair:
    """A pair in float64 and evaluation mode, whose batch norms have seen something."""
    torch.manual_seed(0)
    pair = build_pair(load_recipe(f"models/{recipe}.py"), (1, 16, 16))
    for part in pair.parts:
        for name, buffer in part.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    return pair.to(torch.float64).eval()


def library_loss(pair: Pair, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """-log p(x, z) + log q(z) at the latents of some noise, which is returned too."""
    if pair.guide is None:
        return -pair.model.log_prob(x).sum(), None
    q = poutine.trace(pair.guide).get_trace(x)
    z = q.nodes["z"]["value"]
    context = pair.guide.context(pair.model.batch(x))
    noise = pair.guide.posterior.condition(context=context).inv(z).detach()
    p = poutine.trace(poutine.condition(pair.model, {"z": z})).get_trace(x)
    return q.log_prob_sum() - p.log_prob_sum(), noise


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_three_ways_give_the_same_loss_and_gradients(recipe: str) -> None:
    pair, x = settled(recipe), torch.rand(2, 9, 1, 16, 16, dtype=torch.float64)
    loss, noise = library_loss(pair, x)
    networks = networks_of(pair)
    losses = [loss, Sequential(networks).loss(x, noise), bare_loss(networks, x, noise)]
    parameters = [p for part in pair.parts for p in part.parameters()]
    gradients = [torch.autograd.grad(value, parameters) for value in losses]
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-11, atol=0)
    for found in gradients[1:]:
        for a, b in zip(found, gradients[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_bare_loss_is_the_librarys_with_batch_statistics_too() -> None:
    pair, x = settled("af1"), torch.rand(2, 9, 1, 16, 16, dtype=torch.float64)
    pair.model.train()
    expected = -pair.model.log_prob(x).sum()
    torch.testing.assert_close(bare_loss(networks_of(pair), x), expected, rtol=1e-11, atol=0)


def test_a_sequential_rollout_is_the_librarys() -> None:
    pair, x = settled("af2"), torch.rand(3, 8, 1, 16, 16, dtype=torch.float64)
    sequential = Sequential(networks_of(pair))
    torch.manual_seed(0)
    noise = torch.stack([torch.randn(3, 1, 16, 16, dtype=torch.float64) for _ in range(4)], 1)
    torch.manual_seed(0)
    found = sequential.sample(sequential.past(x), 4)
    with torch.no_grad():
        expected = pair.model.flow.condition(history=x)(noise)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_sequential_rollout_of_latents_is_the_librarys(monkeypatch: Any) -> None:
    pair, x = settled("slvm_af1"), torch.rand(2, 4, 1, 16, 16, dtype=torch.float64)
    model, guide = pair.model, pair.guide
    of_z = torch.randn(2, 4, 256, dtype=torch.float64)  # the first is that of the given frame
    of_y = torch.randn(2, 3, 256, dtype=torch.float64)
    order = [of_z[:, 0]]
    for t in range(3):
        order += [of_y[:, t].unflatten(-1, (1, 16, 16)), of_z[:, t + 1]]
    sequential = Sequential(networks_of(pair))
    monkeypatch.setattr(torch, "randn_like", lambda _: order.pop(0))
    found = sequential.sample(sequential.past(x), 3)
    with torch.no_grad():
        context = guide.context(model.batch(x))
        z = guide.posterior.condition(context=context)(of_z[:, :1])
        state = model.initial_state(torch.Size([2]), given=model.given(x), z=z)
        expected = simulate(model, torch.cat([of_z[:, 1:], of_y], -1), state).x
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_only_filtering_pairs_are_taken_apart() -> None:
    with pytest.raises(TypeError, match="expected a filtering guide, got SmoothingGuide"):
        networks_of(build_pair(load_recipe("models/small/slvm_af1_smoothing.py"), (1, 16, 16)))


# measuring -----------------------------------------------------------------------------------


def test_every_way_of_which_the_memory_is_measured_runs(monkeypatch: Any) -> None:
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: True)  # of this whole process
    found = []
    monkeypatch.setattr(memory, "peak_memory", lambda _, sizes, way: found.append(way) or 1.0)
    memory.memory(Sizes(**SMALL))
    assert len(found) == 7
    for way in found:
        first, second = memory.two_steps(Sizes(**SMALL), way)()
        assert torch.isfinite(torch.stack([first, second])).all()


def test_options_are_timed(monkeypatch: Any) -> None:
    monkeypatch.setattr(program, "compile_networks", lambda _: None)
    monkeypatch.setattr(program.shutil, "which", lambda _: None)
    sizes = Sizes(**SMALL)
    assert {*program.with_options(sizes)} == {"library", "recomputed"}
    monkeypatch.setattr(program.shutil, "which", lambda _: "a compiler")
    found = program.with_options(sizes)
    assert {*found} == {"library", "recomputed", "compiled"}
    assert all(seconds > 0 for seconds in found.values())
    assert [row.met for row in table({"options": found})] == [None] * 3


def test_imports_are_timed(monkeypatch: Any) -> None:
    lines: list[str] = []
    monkeypatch.setattr(program.subprocess, "run", lambda command, **_: lines.append(command[-1]))
    found = program.imports(Sizes(**SMALL))
    assert {line.split()[1] for line in lines} == {"torch,", "pyro_afslvm"}
    assert all(seconds > 0 for seconds in found.values())


def test_actions_are_timed_in_turn() -> None:
    order: list[str] = []
    actions = {name: (lambda name=name: order.append(name)) for name in "ab"}
    found = interleaved(actions, repeats=3, warmup=2)
    assert order == [*"ab"] * 5
    assert [len(found[name]) for name in "ab"] == [3, 3]


def allocate() -> Any:
    return lambda: torch.ones(MEGABYTES * 250_000)


def test_peak_memory_is_what_an_action_takes() -> None:
    assert peak_memory(allocate, processes=1) == pytest.approx(MEGABYTES * 1e6, rel=0.1)


def test_memory_grows_with_the_frames_and_not_with_particles() -> None:
    few, many = (peak_memory(growth.step, 2, frames, 32, processes=1) for frames in (6, 16))
    assert 1.3 < many / few < 13 / 3  # of scored frames; the gradient does not grow
    few, many = (peak_memory(growth.weighted, particles, 32, processes=1) for particles in (8, 32))
    assert many < 1.3 * few


def test_a_stream_is_timed_early_and_late(monkeypatch: Any) -> None:
    monkeypatch.setattr(growth, "STREAM", 30)
    (times,) = growth.stream(16).values()
    assert [*times] == ["first half", "second half"]
    assert min(times.values()) > 0


def test_a_curve_is_no_line() -> None:
    assert fit_line([1, 2, 3, 4], [1, 4, 9, 16]).error > 0.5
    assert fit_line([1, 2, 3, 4], [5, 7, 9, 11]).error == pytest.approx(0)


def test_bf16_moves_the_bound_and_not_by_much(monkeypatch: Any) -> None:
    monkeypatch.setattr(numerics, "SETTLING", (1, 2))
    errors = numerics.bound_errors("models/slvm_af1.py", side=16)
    assert [*errors] == [1, 2]
    assert all(0 < error < 0.1 for error in errors.values())
    pyro.clear_param_store()


# the program ---------------------------------------------------------------------------------

SMALL = {"repeats": 1, "batch": 2, "frames": 8, "side": 16, "horizon": 2, "steps": 4}


def test_program(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(numerics, "RECIPES", (RECIPE,))
    monkeypatch.setattr(numerics, "SETTLING", (1,))
    bound_errors = functools.partial(numerics.bound_errors, side=16)
    monkeypatch.setattr(numerics, "bound_errors", bound_errors)
    sections = [
        "steps",
        "overhead",
        "rollout",
        "numerics",
        "training",
    ]  # the others start processes
    out = tmp_path / "speed.json"
    options = [f"--sizes.{name}={value}" for name, value in SMALL.items()]
    monkeypatch.setattr(
        "sys.argv", ["speed", *options, "--json", str(out), "--only", str(sections)]
    )
    assert program.main() == 0
    page, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["sizes"] == SMALL
    assert set(program.SECTIONS) & set(found) == {*sections}
    for recipe in found["steps"].values():
        assert all(seconds > 0 for seconds in recipe["seconds"].values())
        assert recipe["flops"] > 1e8
    assert len(page.splitlines()) == len(table(found))
    assert page.count(": yes") + page.count(": NO") == sum(r.met is not None for r in table(found))


def test_program_refuses_sizes_of_nothing(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["speed", "--sizes.batch", "0"])
    assert program.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "batch" in line


def test_measurements_of_another_machine_are_not_mixed_in(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out = tmp_path / "speed.json"
    options = [f"--sizes.{name}={value}" for name, value in SMALL.items()]
    command = ["speed", *options, "--json", str(out), "--only", "['overhead']"]
    monkeypatch.setattr("sys.argv", command)
    assert program.main() == 0
    rollout = {"sequential": 1.0, "library": 2.0, "library, bf16": 6.0}
    found = json.loads(out.read_text()) | {"rollout": rollout}
    out.write_text(json.dumps(found))
    assert program.main() == 0
    found = json.loads(out.read_text())
    assert found["rollout"] == rollout
    found["hardware"]["cores"] = 77
    out.write_text(json.dumps(found))
    capsys.readouterr()
    assert program.main() == 2
    assert "measurements of other hardware" in capsys.readouterr().err
    assert json.loads(out.read_text()) == found


def test_table_says_no() -> None:
    seconds = {"sequential": 10.0, "bare": 4.9, "library": 5.1, "library, bf16": 2.4}
    seconds |= {"sequential, bf16": 4.0, "convolution": 1.0, "convolution, bf16": 0.1}
    steps = {"af1": {"seconds": seconds, "flops": 4.0e12, "convolution_flops": 1e12}}
    rows = {row.what: row for row in table({"steps": steps})}
    assert not rows["1-AF step, library"].met  # 1.96
    assert rows["1-AF step, library, bf16"].met  # 4.17
    assert rows["1-AF step, share of convolution's rate"].met  # 0.78
    assert not rows["1-AF step, bf16, share of convolution's rate"].met  # 0.17
    assert rows["1-AF step, library / bare"].met  # 1.04
    flat = {"lines": {}, "flat": {"memory": {"8": 1.0, "32": 1.2}}}
    assert [row.met for row in table({"growth": flat})] == [False]
    curves = {"difference": -0.03, "error": 0.01, "seeds": 0.1, "steps": 5}
    numbers = {"errors": {"af1": {400: 0.003}}}
    found = {"numerics": numbers, "training": curves}
    assert [row.met for row in table(found)] == [False, False]


def test_convolutions_are_counted_as_torch_counts_them() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    convolution = Convolution(2, 8, torch.float32, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        convolution()
    assert (
        counter.get_total_flops() == convolution.flops == 3 * 2 * 9 * 64 * 64 * math.prod((2, 8, 8))
    )


def test_sizes_are_the_papers() -> None:
    sizes = Sizes()
    assert (sizes.batch, sizes.frames, sizes.side) == (16, 13, 64)
