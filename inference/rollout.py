"""Forecasts of a trained model: how good they are, frame by frame ahead.

    python -m inference.rollout runs/slvm_af1 --horizon 10 --samples 20

Rolls test sequences out as the model samples (temperature 1) and along the centres of its
distributions (0), prints the scores beside those of copying the last frame, and writes the
forecasts and two pictures.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jsonargparse import Namespace
from torch import Tensor

from pyro_afslvm import Pair, rollout
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.cli.workflow import load_run, told_where
from pyro_afslvm.data import SequenceSource, choose_dequantization
from pyro_afslvm.data.standardization import Standardization
from pyro_afslvm.evaluation.pictures import longest
from pyro_afslvm.metrics import forecast_scores
from pyro_afslvm.models.base import context_length
from pyro_afslvm.plots import blank_after, forecast_lines, frame_strip, score_curves, to_png
from pyro_afslvm.runs.run import Run
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.files import write_atomically
from pyro_afslvm.utils.seeding import Stream, seed_step
from pyro_afslvm.utils.tables import table_text

COPY = "copy"
LEVEL = 0.9  # of the interval whose coverage is printed
TITLES = {
    "crps": "CRPS × 1000",
    "squared_error": "MSE of mean",
    "ssim_of_mean": "SSIM of mean",
    "psnr": "PSNR of best, dB",
    "ssim": "SSIM of best",
    "coverage": "coverage 90 %",
}
FACTORS = {"crps": 1000.0, "coverage": 100.0}
DIGITS = {"squared_error": 1, "ssim_of_mean": 3, "crps": 2, "psnr": 2, "ssim": 3, "coverage": 1}


def sequences(
    source: SequenceSource, *, split: Any, count: int, given: int, horizon: int, seed: int
) -> Tensor:
    """Take the first sequences of a split, dequantized: given frames, and the true future.

    That is as long as the horizon, or as the sequences go.
    """
    data, _ = longest(source, split, given + 1, given + horizon)
    if len(data) < count:
        raise ValueError(f"the {split} set holds {len(data)} sequences, fewer than {count}")
    seed_step(seed, 0, Stream.PROGRAM)
    return choose_dequantization(None, source)(torch.stack([data[i] for i in range(count)]))


def forecasts(
    pair: Pair,
    x: Tensor,
    *,
    given: int,
    temperatures: Sequence[float],
    horizon: int | None = None,
    **options: Any,
) -> xr.Dataset:
    """Roll out at each temperature, and keep the true future beside.

    Args:
        pair: model and guide.
        x: sequences (N, T, *frame).
        given: their first frames that are given.
        temperatures: factors of the draws.
        horizon: frames to forecast; as many as the true future has, by default.
        options: of :func:`~pyro_afslvm.rollout`.

    Returns:
        ``x_future`` (temperature, sample, sequence, time_future, ...), ``x_true``, NaN after its
        end, and ``x_given``.
    """
    device = next(pair.model.parameters()).device
    past, future = x[:, :given], x[:, given:]
    horizon = future.shape[1] if horizon is None else horizon
    rolled = xr.concat(
        [
            rollout(
                pair.model,
                pair.guide,
                past.to(device),
                horizon=horizon,
                temperature=temperature,
                **options,
            )
            for temperature in temperatures
        ],
        xr.Variable("temperature", list(temperatures)),
        combine_attrs="drop_conflicts",
    )[["x_future"]]
    frame = rolled.x_future.dims[4:]
    rolled["x_true"] = (
        ("sequence", "time_future", *frame),
        blank_after(future.numpy(), horizon, axis=1).astype(np.float32),
    )
    rolled["x_given"] = (("sequence", "time_context", *frame), past.numpy())
    return rolled


def in_data_units(found: xr.Dataset, standardization: Standardization | None) -> xr.Dataset:
    """Forecasts, truth and given frames in the units of the data."""
    if standardization is None:
        return found
    restored = {
        name: found[name].copy(data=standardization.restored(found[name].to_numpy()))
        for name in ("x_future", "x_true", "x_given")
    }
    return found.assign(restored)


def scored(found: xr.Dataset, *, whole_numbers: bool = True) -> xr.Dataset:
    """Scores of the forecasts and of copying the last frame, along ``forecast``.

    They go as far as the true future; real numbers have no peak, and so no PSNR and SSIM.
    """
    known = np.isfinite(found.x_true.to_numpy()).reshape(*found.x_true.shape[:2], -1).all((0, 2))
    found = found.isel(time_future=np.flatnonzero(known))
    truth = found.x_true.to_numpy()
    last = found.x_given.to_numpy()[None, :, -1:]
    rows = {
        name_of(float(temperature)): forecast_scores(
            found.x_future.sel(temperature=temperature).to_numpy(), truth, levels=(0.5, LEVEL)
        )
        for temperature in found.temperature
    }
    copied = np.repeat(np.repeat(last, truth.shape[1], 2), 2, 0)  # samples that agree: a point
    rows[COPY] = forecast_scores(copied, truth, levels=(0.5, LEVEL))
    names = xr.Variable("forecast", list(rows))
    scores = xr.concat(list(rows.values()), names, combine_attrs="drop_conflicts")
    return (
        scores
        if whole_numbers
        else scores.drop_vars(["psnr", "ssim", "ssim_of_mean"], errors="ignore")
    )


def calibrated(samples: int) -> float:
    """Coverage of a calibrated forecast, whose interval is between so many samples' quantiles."""
    return LEVEL * (samples - 1) / (samples + 1)


def name_of(temperature: float) -> str:
    """A temperature, as it is named in tables."""
    return f"T = {temperature:g}"


def columns(scores: xr.Dataset) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Title of a score to the means over sequences of each forecast, frame by frame ahead."""
    means = scores.sel(level=LEVEL).mean("sequence")
    return {
        TITLES[kind]: {
            str(name): means[kind].sel(forecast=name).to_numpy() * FACTORS.get(kind, 1.0)
            for name in scores.forecast.to_numpy()
            if not (kind == "coverage" and name == COPY)  # a point covers nothing
        }
        for kind in TITLES
        if kind in means
    }


def table(scores: xr.Dataset) -> str:
    """The scores, a row for every frame ahead and one for their mean."""
    found = columns(scores)
    head = ["\nahead"]
    for title, lines in found.items():
        for i, name in enumerate(lines):
            head.append(f"{title if i == 0 else ''}\n{name}")
    steps = scores.time_future.to_numpy()
    rows = [[str(step), *_cells(found, i)] for i, step in enumerate(steps)]
    rows.append(["mean", *_cells(found, slice(None))])
    return table_text(rows, head=head, rules=[len(steps) - 1], left=())


def _cells(
    found: Mapping[str, Mapping[str, np.ndarray[Any, Any]]], at: int | slice
) -> Iterator[str]:
    digits = {TITLES[kind]: count for kind, count in DIGITS.items()}
    for title, lines in found.items():
        for values in lines.values():
            yield f"{float(np.mean(values[at])):.{digits[title]}f}"


def pictures(found: xr.Dataset, scores: xr.Dataset) -> tuple[bytes, bytes]:
    """The first sequence with its forecasts, and the scores, as PNG."""
    given, truth = (found[name][0].to_numpy() for name in ("x_given", "x_true"))
    futures = found.x_future.isel(sequence=0)
    if truth.ndim == 2:
        path = np.concatenate([given, truth])
        samples = [np.concatenate([given, future]) for future in futures[0].to_numpy()]
        figure = forecast_lines(path, np.stack(samples), context=len(given))
    else:
        last = np.repeat(given[-1:], len(truth), 0)
        rows = {"truth": truth, COPY: last}
        for temperature in futures.temperature.to_numpy():
            samples = futures.sel(temperature=temperature).to_numpy()
            rows[f"T={temperature:g}, one"] = samples[0]
            if temperature > 0:
                rows[f"T={temperature:g}, mean"] = samples.mean(0)
        rows = {name: np.concatenate([given, future]) for name, future in rows.items()}
        low, high = (
            (0.0, 1.0) if "psnr" in scores else (np.nanmin(rows["truth"]), np.nanmax(rows["truth"]))
        )
        rows = {name: (row.clip(low, high) - low) / (high - low) for name, row in rows.items()}
        figure = frame_strip(rows, context=len(given))
    curves = score_curves(
        columns(scores),
        ahead=scores.time_future.to_numpy().tolist(),
        baseline=COPY,
        calibrated={TITLES["coverage"]: 100 * calibrated(found.sizes["sample"])},
    )
    return to_png(figure), to_png(curves)


def write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write a file that is whole or not there."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new = Path(folder) / "new"
        dataset.to_netcdf(new, engine="h5netcdf")
        os.replace(new, path)


# the program ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, roll out, print."""
    parser = Parser(prog="rollout", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument("--recipe", type=str | None, help="your copy of the recipe")
    parser.add_argument("--trust", action="store_true", help="execute the recipe in the folder")
    parser.add_argument("--split", type=str, default="test", help="train, validation or test")
    parser.add_argument("--sequences", type=int, default=16, help="that are rolled out")
    parser.add_argument("--samples", type=int, default=20, help="futures of each, at least 2")
    parser.add_argument("--given", type=int, default=6, help="frames that are given")
    parser.add_argument("--horizon", type=int, default=10, help="frames that are sampled")
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=[1.0, 0.0], help="factors of the draws"
    )
    parser.add_argument("--chunk", type=int, default=10, help="samples at a time")
    parser.add_argument("--seed", type=int, default=0, help="of dequantization and samples")
    parser.add_argument("--out", type=str | None, help="folder to write in (default: the run's)")
    parser.add_source("default: the run's data")
    options = parser.parse_args(arguments)
    return run_program("rollout", lambda: roll_out(parser.instantiate(options)))


def roll_out(options: Namespace) -> None:
    """Roll out, print the scores, write forecasts and pictures."""
    _check(options)
    run, access = Run.open(options.run), {"recipe": options.recipe, "trust": options.trust}
    with told_where(run, options.data):
        source = options.data or run.load_source(**access)
        pair, recipe, _ = load_run(run, source=source, **access)
        given = max(options.given, context_length(pair.model) + 1)
        found = _forecasts(options, source, pair, given=given)
    whole_numbers = choose_dequantization(None, source).whole_numbers
    scores = scored(found, whole_numbers=whole_numbers)
    print(
        f"{recipe.name}: {options.sequences} sequences, {given} frames given, "
        f"{options.samples} samples\n"
    )
    print(table(scores))
    expected = 100 * calibrated(options.samples)
    print("\nMSE is summed over a frame; best is the best of the samples, frame by frame")
    print(f"a calibrated forecast of {options.samples} samples covers {expected:.1f} %")
    _write(Path(options.out or run.path), found, scores)


def _check(options: Namespace) -> None:
    check_minimum(
        sequences=(options.sequences, 1),
        samples=(options.samples, 2),
        given=(options.given, 1),
        horizon=(options.horizon, 1),
        seed=(options.seed, 0),
    )
    if len({*options.temperatures}) < len(options.temperatures):
        raise ValueError(f"expected different temperatures, got {options.temperatures}")


def _forecasts(options: Namespace, source: SequenceSource, pair: Pair, *, given: int) -> xr.Dataset:
    chosen: dict[str, Any] = {"given": given, "seed": options.seed}
    x = sequences(
        source, split=options.split, count=options.sequences, horizon=options.horizon, **chosen
    )
    counts: dict[str, Any] = {"num_samples": options.samples, "chunk": options.chunk}
    counts |= {"horizon": options.horizon}
    found = forecasts(pair, x, temperatures=options.temperatures, **counts, **chosen)
    return in_data_units(found, source.standardization)


def _write(out: Path, found: xr.Dataset, scores: xr.Dataset) -> None:
    out.mkdir(parents=True, exist_ok=True)
    frames, curves = pictures(found, scores)
    names = out / "forecast.nc", out / "forecast.png", out / "forecast_scores.png"
    whole = xr.merge([found, scores], join="outer", combine_attrs="drop_conflicts")
    write_netcdf(whole, names[0])
    write_atomically(names[1], frames)
    write_atomically(names[2], curves)
    print(f"\nwrote {', '.join(map(str, names))}")


if __name__ == "__main__":
    sys.exit(main())
