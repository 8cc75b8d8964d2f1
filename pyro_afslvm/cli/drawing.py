"""Pictures of the samples of a run, in files of its folder."""

from pathlib import Path
from typing import Any

import numpy as np

from pyro_afslvm.runs.run import Run
from pyro_afslvm.utils.files import write_atomically


def draw_samples(run: Run, arrays: dict[str, Any]) -> tuple[Path, Path]:
    """Write an animation and a strip of frames; lines and a table of vectors; grids of images.

    Args:
        run: whose folder the files go into.
        arrays: from :func:`pyro_afslvm.evaluation.pictures.pictures`.

    Returns:
        the two files.
    """
    if "images" in arrays:
        return _draw_images(run, arrays)
    if arrays["rollout_truth"].ndim == 3:  # (N, T, D)
        return _draw_vectors(run, arrays)
    return _draw_frames(run, arrays)


def _draw_frames(run: Run, arrays: dict[str, Any]) -> tuple[Path, Path]:
    from pyro_afslvm.plots import animation, blank_after, frame_strip, to_png

    given, samples = int(arrays["rollout_context"]), arrays["rollout_samples"]
    truth = blank_after(arrays["rollout_truth"].clip(0, 1), samples.shape[2], axis=1)
    panels = {"truth": truth} | {f"sample {i}": s for i, s in enumerate(samples, 1)}
    gif, png = run.path / "rollout.gif", run.path / "rollout.png"
    write_atomically(gif, animation(panels, context=given))
    strip = {label: panel[0] for label, panel in panels.items()}
    write_atomically(png, to_png(frame_strip(strip, context=given)))
    return gif, png


def _draw_images(run: Run, arrays: dict[str, Any]) -> tuple[Path, Path]:
    from pyro_afslvm.plots import image_grid, to_png

    beside, samples = run.path / "reconstructions.png", run.path / "samples.png"
    pairs = {name: arrays[name] for name in ("images", "reconstructions")}
    write_atomically(beside, to_png(image_grid(pairs)))
    write_atomically(samples, to_png(image_grid({"samples": arrays["samples"]})))
    return beside, samples


def _draw_vectors(run: Run, arrays: dict[str, Any]) -> tuple[Path, Path]:
    from pyro_afslvm.plots import forecast_lines, to_png

    truth, samples = arrays["rollout_truth"], arrays["rollout_samples"]  # (N, T, D), (S, ...)
    table, png = run.path / "rollout.csv", run.path / "rollout.png"
    figure = forecast_lines(truth[0], samples[:, 0], context=int(arrays["rollout_context"]))
    write_atomically(png, to_png(figure))
    lines = ["sample,sequence,time," + ",".join(f"feature_{j + 1}" for j in range(truth.shape[-1]))]
    for i, sequences in enumerate([truth, *samples]):
        for n, t in np.ndindex(*sequences.shape[:2]):
            values = ",".join(map(_number, sequences[n, t]))
            lines.append(f"{i or 'truth'},{n + 1},{t + 1},{values}")
    write_atomically(table, ("\n".join(lines) + "\n").encode())
    return table, png


def _number(value: Any) -> str:
    """As few digits as tell a number in single precision from all others, in double nine."""
    return str(value) if value.dtype == np.float32 else f"{value:.9g}"
