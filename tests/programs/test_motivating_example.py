"""The motivating example (§3.1, Fig. 2): two differences explain a smooth path."""

import math
import sys
from pathlib import Path

import pyro.poutine as poutine
import pytest
import torch
from PIL import Image
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor

from inference.motivating_example import main, mean_correlation, noise_log_likelihood
from models.motivating_example import build, simulate
from pyro_afslvm.metrics import temporal_correlation
from pyro_afslvm.models.programs import no_guide
from tests.support.processes import run_python

FRAMES = 50


@pytest.fixture
def signals(float64: None) -> tuple[Tensor, Tensor, Tensor]:
    return simulate(300, FRAMES, seed=1)


def test_integration_is_the_definition(signals: tuple[Tensor, Tensor, Tensor]) -> None:
    x, u, w = signals
    assert x.shape == u.shape == w.shape == (300, FRAMES, 2)
    torch.testing.assert_close(u[:, 0], w[:, 0])
    torch.testing.assert_close(x[:, 0], w[:, 0])
    torch.testing.assert_close(u[:, 1:], u[:, :-1] + w[:, 1:])
    torch.testing.assert_close(x[:, 1:], x[:, :-1] + u[:, 1:])
    again, other = simulate(300, FRAMES, seed=1), simulate(300, FRAMES, seed=2)
    assert torch.equal(x, again[0])
    assert not torch.equal(x, other[0])


def test_two_differences_give_the_noise_back(signals: tuple[Tensor, Tensor, Tensor]) -> None:
    x, u, w = signals
    flow = build().model.flow
    near_frames, near_noise = flow.condition().intermediates(x)
    torch.testing.assert_close(near_frames.noise, u, rtol=0, atol=1e-12)
    torch.testing.assert_close(near_noise.noise, w, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.inv(x), w, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow(w), x, rtol=0, atol=1e-11)
    assert not flow.log_abs_det_jacobian(w, x).any()


def test_the_differences_go_on_after_a_prefix(signals: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, w = signals
    flow = build().model.flow
    for given in (1, 2, 20):
        rest = flow.condition(history=x[:, :given]).inv(x[:, given:])
        torch.testing.assert_close(rest, w[:, given:], rtol=0, atol=1e-12)


def test_the_frames_stay_on_their_device() -> None:
    """Without parameters there is nothing but the input to say which device it is."""
    w = torch.empty(3, 5, 2, device="meta")
    x = build().model.flow(w)
    assert x.device.type == "meta"
    assert x.shape == w.shape


def test_the_density_is_that_of_the_noise(signals: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, w = signals
    model = build().model
    assert list(model.parameters()) == []
    expected = -0.5 * w.square().sum(-1) - math.log(2 * math.pi)
    torch.testing.assert_close(model.log_prob(x), expected, rtol=1e-12, atol=1e-11)
    loss = Trace_ELBO().loss(model, no_guide, x)
    assert -loss == pytest.approx(expected.sum().item(), rel=1e-12)


@pytest.mark.parametrize("frame_shape", [(2,), (1, 8, 8)])
def test_the_model_samples_what_it_explains(frame_shape: tuple[int, ...]) -> None:
    model = build(frame_shape).model
    future = poutine.trace(model).get_trace(horizon=4).nodes["x_future"]["value"]
    assert future.shape == (1, 4, *frame_shape)
    x = 0.1 * simulate(3, 5, frame_shape=frame_shape)[0]
    samples = Predictive(model, num_samples=2000, parallel=True)(x, horizon=1)["x_future"][:, :, 0]
    straight_on = 2 * x[:, -1] - x[:, -2]  # the velocity stays, but for noise
    assert ((samples.mean(0) - straight_on).abs() < 5 / 2000**0.5).all()
    torch.testing.assert_close(samples.var(0), torch.ones_like(x[:, 0]), rtol=0.25, atol=0)


# ---- temporal correlation ----


def test_temporal_correlation_within_paths_falls(signals: tuple[Tensor, Tensor, Tensor]) -> None:
    x, u, w = (mean_correlation(values) for values in signals)
    assert x > u + 0.05
    assert u > w + 0.5
    assert abs(w) < 0.05
    falls = [
        temporal_correlation(a[None])
        > temporal_correlation(b[None])
        > temporal_correlation(c[None])
        for a, b, c in zip(*signals, strict=True)
    ]
    assert sum(falls) > 0.9 * len(falls)


def test_correlation_of_neighbours_falls(signals: tuple[Tensor, Tensor, Tensor]) -> None:
    """Pearson's, across sequences, at every time."""
    x, u, w = (torch.stack([neighbours(v, t) for t in range(2, FRAMES - 1)]) for v in signals)
    assert (x > u).all()
    assert (u > w.abs() + 0.3).all()
    assert w.abs().max() < 5 / 300**0.5
    t = torch.arange(3.0, FRAMES)
    assert (u - (t / (t + 1)).sqrt()[:, None]).abs().max() < 0.06


def neighbours(values: Tensor, t: int) -> Tensor:
    now, later = values[:, t] - values[:, t].mean(0), values[:, t + 1] - values[:, t + 1].mean(0)
    return (now * later).mean(0) / (now.square().mean(0) * later.square().mean(0)).sqrt()


def test_pooled_over_sequences_from_rest_eq_31_cannot_tell_x_from_u(float64: None) -> None:
    """The sum over t of E[x_t x_t+1] and of E[x_t²]: T / (T + 1), for both."""
    t = torch.arange(1.0, FRAMES + 1)
    variance = {"u": t, "x": t * (t + 1) * (2 * t + 1) / 6}
    step = {"u": torch.zeros(()), "x": t * (t + 1) / 2}  # E[x_t u_t+1], E[u_t w_t+1]
    measured = dict(zip("xu", map(temporal_correlation, simulate(4000, FRAMES)[:2]), strict=True))
    for name in ("x", "u"):
        neighbour = (variance[name] + step[name]).expand(FRAMES)[:-1].mean()
        assert neighbour / variance[name].mean() == pytest.approx(FRAMES / (FRAMES + 1))
        assert measured[name] == pytest.approx(FRAMES / (FRAMES + 1), abs=0.004)
    assert abs(temporal_correlation(simulate(4000, FRAMES)[2])) < 0.01


def test_the_simplest_model_fits_the_noise_best(signals: tuple[Tensor, Tensor, Tensor]) -> None:
    x, u, w = map(noise_log_likelihood, signals)
    assert x < u - 1 < w - 2
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert w == pytest.approx(-entropy, abs=0.02)


# ---- Fig. 2 ----


def test_the_program_draws_the_figure(tmp_path: Path) -> None:
    """From the repository root, as the README says."""
    out = tmp_path / "new" / "fig2.png"
    done = run_python("-m", "inference.motivating_example", "--out", str(out))
    assert done.stderr == ""
    figures = {line[0]: line.split() for line in done.stdout.splitlines() if line[0] in "xu"}
    assert float(figures["x"][1]) > float(figures["u"][1]) > 0.8
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "fig2.txt"], "expected a file name that ends in .png, got fig2.txt"),
        (["--frames", "1"], "expected at least 1 sequence of at least 4 frames"),
        (["--sequences", "0"], "expected at least 1 sequence of at least 4 frames"),
        (["--out", "FILE/fig2.png"], "cannot write"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("a file where a folder is expected")
    monkeypatch.setattr(sys, "argv", ["motivating_example", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".txt")] == []
