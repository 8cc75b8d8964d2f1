"""The pictures of a report, as data URIs that stand inside the page."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from pyro_afslvm import plots
from pyro_afslvm.report.tables import EIGHT_BIT, nats_unit
from pyro_afslvm.runs.contents import Array, RunContents

_FLOW_COLUMNS, _STRIP_COLUMNS, _SAMPLES, _SEQUENCES = 10, 20, 3, 2  # that fit on a page
_FLOW_VECTORS = 50


class Picture(NamedTuple):
    """An image: its data URI, its width on the page in pixels and what it shows."""

    source: str
    width: int
    text: str


def curves(runs: Sequence[RunContents]) -> Picture | None:
    """Draw validation and (thin) training against seconds and steps; ``None`` without curves.

    A run without a validation split has its training alone.
    """
    panels: dict[str, plots.Curves] = {}
    faint: dict[str, plots.Curves] = {}
    trained = [run for run in runs if _has_values(run) and _is_of_protocol(run)]
    if not trained:
        return None
    for column, label in (("seconds", "training seconds"), ("step", "training steps")):
        panels[label] = {_curve_name(run): _curve(run, column, _watched(run)) for run in trained}
        faint[label] = {_curve_name(run): _curve(run, column, "train") for run in trained}
    others = {
        f"{run.label} (test)": float(run.results["nats_per_dim"])
        for run in runs
        if not _has_values(run) or not _is_of_protocol(run)
    }
    unit = nats_unit(runs[0].protocol)
    own: Any = {"ceiling": None, "ylabel": unit} if unit != EIGHT_BIT else {}
    figure = plots.training_curves(panels, faint=faint, baselines=others, **own)
    return _png(figure, "Training curves of " + ", ".join(run.label for run in trained))


def flow(run: RunContents) -> Picture | None:
    """Draw frames, shift, scale and noise of one test sequence; ``None`` without them.

    Of a flow that is not affine mean and standard deviation take the places of shift and scale.
    """
    steps = [*_flow_steps(run)]
    if "frames" not in run.pictures or not steps:
        return None
    frames = run.pictures["frames"][0]
    shown = _FLOW_VECTORS if frames.ndim == 2 else _FLOW_COLUMNS
    draw = plots.flow_lines if frames.ndim == 2 else plots.flow_figure
    figure = draw(frames[:shown], [step.until(shown) for step in steps])
    affine = all(isinstance(step, plots.FlowStep) for step in steps)
    rows = "shift, scale" if affine else "mean, standard deviation"
    return _png(figure, f"{run.label}: frames, {rows} and noise over time")


def images(run: RunContents) -> Picture | None:
    """Draw images with their reconstructions, then samples; ``None`` without them."""
    if not {"images", "reconstructions", "samples"} <= run.pictures.keys():
        return None
    shown = {name: run.pictures[name] for name in ("images", "reconstructions", "samples")}
    return _png(plots.image_grid(shown), f"{run.label}: test images, reconstructions and samples")


def rollout(run: RunContents) -> tuple[Picture | None, Picture] | None:
    """Draw what follows the given frames, as an animation and as stills; vectors as lines."""
    if not {"rollout_context", "rollout_truth", "rollout_samples"} <= run.pictures.keys():
        return None
    context = int(run.pictures["rollout_context"])
    truth = run.pictures["rollout_truth"][:_SEQUENCES]  # (N, T, C, H, W)
    samples = run.pictures["rollout_samples"][:, :_SEQUENCES]  # (S, N, T, C, H, W)
    about = f"{run.label}: truth and samples after {context} given frames"
    if truth.ndim == 3:
        return None, _png(plots.forecast_lines(truth[0], samples[:, 0], context=context), about)
    panels = {"truth": plots.blank_after(truth, samples.shape[2], axis=1)}
    panels |= {f"sample {i}": sample for i, sample in enumerate(samples[:_SAMPLES], 1)}
    if len(samples) > 1:
        panels[f"mean of {len(samples)}"] = samples.mean(0)
    gif = plots.animation(panels, context=context)
    shown = np.arange(0, samples.shape[2], -(-samples.shape[2] // _STRIP_COLUMNS))
    strip = plots.frame_strip(
        {label: panel[0, shown] for label, panel in panels.items()},
        context=int((shown < context).sum()),
        times=[int(time) + 1 for time in shown],
    )
    width = int.from_bytes(gif[6:8], "little")  # the GIF's own header
    return Picture(_uri("image/gif", gif), width, about), _png(strip, about + ", as stills")


def is_vectors(run: RunContents) -> bool:
    """Tell whether the pictures of a run are of vectors, not of frames."""
    return run.pictures["rollout_truth"].ndim == 3 if "rollout_truth" in run.pictures else False


def _is_of_protocol(run: RunContents) -> bool:
    """Tell whether a run was trained under the dequantization it is reported for."""
    trained = run.train_dequantization
    return trained is None or trained == run.protocol.get("noise")


def _has_values(run: RunContents, kinds: Sequence[str] = ("validation", "train")) -> bool:
    columns = [run.curves.get(f"{kind}_nats_per_dim", np.nan) for kind in kinds]
    return any(bool(np.isfinite(column).any()) for column in columns)


def _watched(run: RunContents) -> str:
    """What a run's curve is of: validation, or training where there was none."""
    return "validation" if _has_values(run, ["validation"]) else "train"


def _curve_name(run: RunContents) -> str:
    return run.label if _watched(run) == "validation" else f"{run.label} (training)"


def _curve(run: RunContents, column: str, kind: str) -> tuple[Array, Array]:
    return run.curves[column], run.curves[f"{kind}_nats_per_dim"]


def _flow_steps(run: RunContents) -> Iterator[plots.FlowStep | plots.MomentStep]:
    """The transforms of the first sequence, from the frames towards the noise."""
    for number in count(1):
        found = {
            name.removesuffix(f"_{number}"): array[0]
            for name, array in run.pictures.items()
            if name.endswith(f"_{number}")
        }
        if set(plots.FlowStep._fields) <= found.keys():
            yield plots.FlowStep(found["shift"], found["scale"], found["noise"])
        elif {"mean", "deviation", "noise"} <= found.keys():
            yield plots.MomentStep(**found)
        else:
            return


def _png(figure: Figure, text: str) -> Picture:
    width = round(96 * figure.get_figwidth())
    return Picture(_uri("image/png", plots.to_png(figure, dpi=160)), width, text)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"
