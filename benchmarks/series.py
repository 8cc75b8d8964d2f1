"""Multivariate series: the default command and every recipe, by one protocol, on test windows.

    python -m benchmarks.series FOLDER --seconds 60 --seeds 0 1 2

FOLDER holds the data and ``protocol.py``, which says how they are split and scored: ``load(name)``
gives training and validation series, windows and covariates, ``score`` compares them with
log-likelihoods one step ahead and with trajectories. The default is what ``afslvm train auto``
chooses, by validation alone; test windows are looked at when it has chosen.
"""

import argparse
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_afslvm import rollout
from pyro_afslvm.cli.auto import series_recipes
from pyro_afslvm.data import SequenceSource, software_versions
from pyro_afslvm.data.sequences import StoredSequences
from pyro_afslvm.data.splits import Split
from pyro_afslvm.models.base import context_length
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.training.choice import choose
from pyro_afslvm.utils.files import write_json
from pyro_afslvm.utils.tables import table_text

OUT = Path("benchmarks/results/series.json")
NAMES = ("eeg", "elec", "macro", "vowels")
PARTICLES = 64  # of a model with latents, whose likelihood is a bound


class ProtocolSeries(SequenceSource):
    """Series in memory, as the protocol splits them."""

    name = "protocol"

    def __init__(self, *, data: dict[str, Any]) -> None:
        self.data = data
        self.covariates = "cov_train" in data and data["cov_train"][0].shape[-1] > 0

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return (self.data["train"][0].shape[-1],)

    @property
    def context_features(self) -> int:
        return int(self.data["cov_train"][0].shape[-1]) if self.covariates else 0

    @property
    def dequantization(self) -> Any:
        return "none"

    def dataset(self, split: Split, *, num_frames: int) -> StoredSequences:
        part = {"train": "train", "validation": "val"}[split]
        series = [x.astype(np.float32) for x in self.data[part]]
        known = None
        if self.covariates:
            given = [c.astype(np.float32) for c in self.data[f"cov_{part}"]]
            known = lambda i, first, last: given[i][first:last].copy()  # noqa: E731
        return StoredSequences(
            lambda i, first, last: series[i][first:last].copy(),
            lengths=[len(x) for x in series],
            num_frames=num_frames,
            seed=0,
            split=split,
            context=known,
            context_features=self.context_features,
        )

    def describe(self) -> dict[str, object]:
        return {"name": self.data["name"]}


def load_protocol(folder: Path) -> Any:
    """The module ``protocol.py`` beside the data."""
    spec = importlib.util.spec_from_file_location("series_protocol", folder / "protocol.py")
    if spec is None or spec.loader is None or not (folder / "protocol.py").is_file():
        raise SystemExit(f"{folder} holds no protocol.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def log_likelihood(pair: Pair, data: dict[str, Any], known: torch.Tensor | None) -> NDArray[Any]:
    """Nats of each frame after the context, ``(N, H)``; of a model with latents, its bound."""
    given = data["C"] - context_length(pair.model)
    x = torch.as_tensor(np.nan_to_num(data["W"]), dtype=torch.float32)[:, given:]
    context = None if known is None else known[:, given:]
    terms = bound_terms(pair.model, pair.guide, x, num_particles=PARTICLES, context=context)
    found: NDArray[Any] = terms.bound.mean(0).numpy()
    return found


def measure(
    pair: Pair, data: dict[str, Any], protocol: Any, *, samples: int, seed: int
) -> dict[str, Any]:
    """Scores on the test windows."""
    known, steps = None, data["C"] + data["Hf"]
    if data.get("cov_W") is not None and data["cov_W"].shape[-1]:
        known = torch.as_tensor(data["cov_W"], dtype=torch.float32)
    pair.model.eval()
    past = torch.as_tensor(data["W"][:, : data["C"]], dtype=torch.float32)
    future = rollout(
        pair.model,  # type: ignore[arg-type]
        pair.guide,
        past,
        horizon=data["Hf"],
        num_samples=samples,
        chunk=50,
        context=None if known is None else known[:, :steps],
        seed=seed,
    )
    drawn = future["x_future"].values
    log_prob = log_likelihood(pair, data, known)
    found: dict[str, Any] = protocol.score(data, log_prob, drawn)
    return found


def one_seed(
    data: dict[str, Any], protocol: Any, *, seconds: float, samples: int, seed: int
) -> dict[str, Any]:
    """Train all recipes, choose, and measure each; seconds are CPU seconds of this process."""
    start = time.process_time()
    source = ProtocolSeries(data=data)
    choice = choose(series_recipes([]), source, seconds=seconds, skip=data["C"], seed=seed)
    spent = time.process_time() - start
    recipes = {
        c.recipe.path.stem: measure(c.pair, data, protocol, samples=samples, seed=seed)
        | {
            "validation": c.trained.score,
            "validation_before_training": c.trained.curve[0].validation,
            "best_step": c.trained.best.step,
            "steps": c.trained.curve[-1].step,
            "training_seconds": c.trained.curve[-1].seconds,
        }
        for c in choice.candidates
    }
    return {
        "seed": seed,
        "chosen": choice.best.recipe.path.stem,
        "cpu_seconds": spent,
        "baselines_validation": choice.baselines.by_name,
        "recipes": recipes,
    }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds of the default, and of every recipe."""
    default = [run["recipes"][run["chosen"]] for run in runs]

    def mean(found: Sequence[dict[str, Any]]) -> dict[str, float]:
        keys = ("ll", "ll_se", "crps", "cover90", "largest", "validation")
        return {key: float(np.mean([f[key] for f in found])) for key in keys}

    recipes = runs[0]["recipes"]
    return {"default": mean(default)} | {
        name: mean([run["recipes"][name] for run in runs]) for name in recipes
    }


def text(results: dict[str, Any], names: Sequence[str]) -> str:
    """A table: nats/dim and CRPS of each data set."""
    rows = [
        [
            name,
            *(f"{part[d]['ll']:.3f} | {part[d]['crps']:.4f}" if d in part else "" for d in names),
        ]
        for name, part in results.items()
    ]
    return table_text(rows, head=["nats/dim | CRPS", *names])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of series.npz, vowels.npz and protocol.py")
    parser.add_argument("--names", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0], help="for each set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=200, help="trajectories of each window")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    protocol = load_protocol(options.folder)
    seconds = dict(zip(options.names, options.seconds * len(options.names), strict=False))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.names}
    for seed in options.seeds:
        for name in options.names:
            found = one_seed(
                protocol.load(name),
                protocol,
                seconds=seconds[name],
                samples=options.samples,
                seed=seed,
            )
            runs[name].append(found)
            chosen = found["recipes"][found["chosen"]]
            print(
                f"{name}, seed {seed}: {found['chosen']}, {chosen['ll']:.3f} nats/dim, "
                f"CRPS {chosen['crps']:.4f}, {found['cpu_seconds']:.0f} CPU s",
                flush=True,
            )
            _write(options, seconds, runs)


def _write(
    options: argparse.Namespace, seconds: dict[str, float], runs: dict[str, list[dict[str, Any]]]
) -> None:
    """Keep what is there, by method and data set, with its protocol."""
    done = {name: summary(found) for name, found in runs.items() if found}
    methods = dict.fromkeys(method for part in done.values() for method in part)
    table = {m: {name: part[m] for name, part in done.items() if m in part} for m in methods}
    protocol = {
        "ll": "nats per dimension of test frames, one step ahead, in the units of the data",
        "crps": "over horizons and features, each divided by its mean size; from the context alone",
        "caution": "recipes were made with a view of these four sets, at times of their test "
        "scores: figures may flatter",
        "windows": "as protocol.py beside the data cuts them; chosen on validation alone",
        "samples": options.samples,
        "particles_of_bounds": PARTICLES,
        "seconds_of_training": seconds,
        "seeds": {name: [run["seed"] for run in found] for name, found in runs.items()},
        "cpu_seconds": {
            name: [run["cpu_seconds"] for run in found] for name, found in runs.items()
        },
        "threads": torch.get_num_threads(),
        "hardware": _processor(),
        "versions": software_versions(),
    }
    write_json(options.out, {**table, "protocol": protocol, "runs": runs})
    print(text(table, list(done)), flush=True)


def _processor() -> str:
    """Name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


if __name__ == "__main__":
    main()
