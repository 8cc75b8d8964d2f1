"""The pictures of a report, as data URIs that stand inside the page."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from pyro_afslvm import plots
from pyro_afslvm.report.runs import Array, Run

_FLOW_COLUMNS, _STRIP_COLUMNS, _SAMPLES, _SEQUENCES = 10, 20, 3, 2  # that fit on a page


class Picture(NamedTuple):
    """An image: its data URI, its width on the page in pixels and what it shows."""

    source: str
    width: int
    text: str


def curves(runs: Sequence[Run]) -> Picture | None:
    """Validation (and, thin, training) against seconds and steps; ``None`` without metrics."""
    panels: dict[str, plots.Curves] = {}
    faint: dict[str, plots.Curves] = {}
    trained = [run for run in runs if _has_values(run) and _is_gaussian(run)]
    if not trained:
        return None
    for column, label in (("seconds", "training seconds"), ("step", "training steps")):
        panels[label] = {run.label: _curve(run, column, "validation") for run in trained}
        faint[label] = {run.label: _curve(run, column, "train") for run in trained}
    others = {
        f"{run.label} (test)": float(run.results["nats_per_dim"])
        for run in runs
        if not _has_values(run) or not _is_gaussian(run)
    }
    figure = plots.training_curves(panels, faint=faint, baselines=others)
    return _png(figure, "Training curves of " + ", ".join(run.label for run in trained))


def flow(run: Run) -> Picture | None:
    """Frames, shift, scale and noise of one test sequence; ``None`` without them."""
    levels = [level[:, :_FLOW_COLUMNS] for level in _levels(run)]
    if "frames" not in run.pictures or not levels:
        return None
    frames = run.pictures["frames"][0, :_FLOW_COLUMNS]
    figure = plots.flow_figure(frames, [plots.FlowLevel(*level) for level in levels])
    return _png(figure, f"{run.label}: frames, shift, scale and noise over time")


def rollout(run: Run) -> tuple[Picture, Picture] | None:
    """An animation and a strip of stills of what follows the given frames."""
    if not {"rollout_context", "rollout_truth", "rollout_samples"} <= run.pictures.keys():
        return None
    context = int(run.pictures["rollout_context"])
    truth = run.pictures["rollout_truth"][:_SEQUENCES]  # (N, T, C, H, W)
    samples = run.pictures["rollout_samples"][:, :_SEQUENCES]  # (S, N, T, C, H, W)
    panels = {"truth": truth}
    panels |= {f"sample {i}": sample for i, sample in enumerate(samples[:_SAMPLES], 1)}
    if len(samples) > 1:
        panels[f"mean of {len(samples)}"] = samples.mean(0)
    gif = plots.animation(panels, context=context)
    shown = np.arange(0, truth.shape[1], -(-truth.shape[1] // _STRIP_COLUMNS))
    strip = plots.frame_strip(
        {label: panel[0, shown] for label, panel in panels.items()},
        context=int((shown < context).sum()),
        times=[int(time) + 1 for time in shown],
    )
    about = f"{run.label}: truth and samples after {context} given frames"
    width = int.from_bytes(gif[6:8], "little")  # the GIF's own header
    return Picture(_uri("image/gif", gif), width, about), _png(strip, about + ", as stills")


def _is_gaussian(run: Run) -> bool:
    """Whether its curves are of the paper's noise: curves of two protocols share no axis."""
    training = run.settings.get("training") if isinstance(run.settings, dict) else None
    return not isinstance(training, dict) or training.get("noise", "gaussian") == "gaussian"


def _has_values(run: Run) -> bool:
    return bool(np.isfinite(run.metrics.get("validation_nats_per_dim", np.nan)).any())


def _curve(run: Run, column: str, kind: str) -> tuple[Array, Array]:
    return run.metrics[column], run.metrics[f"{kind}_nats_per_dim"]


def _levels(run: Run) -> Iterator[Array]:  # each (3, T, C, H, W): shift, scale, noise
    for number in count(1):
        names = [f"{part}_{number}" for part in plots.FlowLevel._fields]
        if not all(name in run.pictures for name in names):
            return
        yield np.stack([run.pictures[name][0] for name in names])


def _png(figure: Figure, text: str) -> Picture:
    width = round(96 * figure.get_figwidth())
    return Picture(_uri("image/png", plots.to_png(figure, dpi=160)), width, text)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"
