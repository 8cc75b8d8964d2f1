"""Speed and memory of the data path: loading, streaming a large store, preparing videos.

    python -m benchmarks.data --videos '[film.avi]' --json benchmarks/results/data.json

Times that are compared are measured in turn, so that whatever else the machine does
meets them alike, and are medians.
"""

import math
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jsonargparse import ArgumentParser

from benchmarks.graphs import TrainingStep
from benchmarks.streaming import CROP, SIDE, endless, loader, streaming, take
from benchmarks.targets import Row, rows_text
from inference.table1 import hardware
from pyro_afslvm.cli.console import run_program
from pyro_afslvm.data import Videos, dequantization, software_versions
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.files import write_json

LOADER_TARGET, MEMORY_TARGET, PREPARE_TARGET = 3.0, 1e9, 0.8


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Args:
        repeats: of every measurement; the median counts.
        recipe: the model whose training the loader must outrun.
        batch_size: sequences of a training step.
        batches: that the loader delivers for one measurement.
        film: frames of the generated video, 160x120.
        gigabytes: of frames in the store that is streamed; 0 leaves it out.
        files: that the store is made of.
        shuffled: batches of the shuffled part of the stream.
    """

    repeats: int = 5
    recipe: str = "models/slvm_af1.py"
    batch_size: int = 16
    batches: int = 40
    film: int = 3000
    gigabytes: float = 10.0
    files: int = 40
    shuffled: int = 300

    def __post_init__(self) -> None:
        names = ("repeats", "batch_size", "batches", "film", "files", "shuffled")
        check_minimum(**{name: (getattr(self, name), 1) for name in names})


# ---- loading against training ----


def loading(videos: Path, folder: Path, sizes: Sizes) -> dict[str, float]:
    """Frames a second of the loader, with both kinds of crop, and of a training step."""
    sources = {
        crop: Videos(path=str(videos), size=SIDE, crop=crop, cache=str(folder / "loading"))
        for crop in ("centre", "random")
    }
    data = {f"loader_{c}": s.dataset("train", num_frames=CROP) for c, s in sources.items()}
    streams = {name: endless(loader(found, sizes.batch_size)) for name, found in data.items()}
    step = training_step(sizes)
    actions = {name: lambda s=s: take(s, sizes.batches) for name, s in streams.items()}
    return rates(actions | {"training": step}, sizes.repeats)


def training_step(sizes: Sizes) -> Callable[[], int]:
    """A step of training on random frames; gives the frames it consumed."""
    torch.manual_seed(0)
    recipe = load_recipe(sizes.recipe)
    pair: Pair = build_pair(recipe, (1, SIDE, SIDE))
    bound, dequantize = BoundLoss(pair), dequantization("gaussian")
    frames = torch.randint(256, (sizes.batch_size, CROP, 1, SIDE, SIDE), dtype=torch.uint8)
    step = TrainingStep(bound, lambda: bound(dequantize(frames)), "float32")

    def consumed() -> int:
        step()
        return math.prod(frames.shape[:2])

    return consumed


def rates(actions: Mapping[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Frames a second of actions that give their frames: medians, measured in turn.

    Beside ``name`` stands ``name_cpu``, the processor's microseconds for a frame, which other
    work on the machine hardly changes.
    """
    for action in actions.values():
        action()  # once unmeasured: caches fill
    found: dict[str, list[float]] = {f"{name}{end}": [] for name in actions for end in ("", "_cpu")}
    for _ in range(repeats):
        for name, action in actions.items():
            start, used = time.perf_counter(), time.process_time()
            count = action()
            found[f"{name}_cpu"].append(1e6 * (time.process_time() - used) / count)
            found[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in found.items()}


# ---- preparing against decoding ----


def preparing(film: Path, folder: Path, sizes: Sizes) -> dict[str, float]:
    """Frames a second of preparing a video into a new store, and of PyAV decoding it."""

    def prepare() -> int:
        source = Videos(path=str(film), size=SIDE, cache=str(folder / "preparing"))
        count = sum(file.frames.shape[0] for file in source.prepare().files)
        return int(count)

    def fresh() -> int:
        shutil.rmtree(folder / "preparing", ignore_errors=True)
        return prepare()

    return rates({"decode": lambda: decode(film), "prepare": fresh}, sizes.repeats)


def decode(film: Path) -> int:
    with av.open(str(film)) as container:
        return sum(1 for _ in container.decode(video=0))


def write_film(path: Path, count: int) -> Path:
    """An MPEG-4 video of KTH's size and rate: a disc moves over a still scene, with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :160]
    noise = rng.normal(scale=6, size=(64, 120, 160))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.bit_rate = 800_000  # 4 kB a frame
        for t in range(count):
            disc = (x - 20 - 2 * t % 120) ** 2 + (y - 60) ** 2 < 225
            picture = np.where(disc, 220, 60 + x // 2) + noise[t % 64]
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# ---- the program ----


def measure(videos: list[Path], folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Measure everything."""
    film = write_film(folder / "generated.avi", sizes.film)
    found: dict[str, Any] = {
        "hardware": {**hardware(), "threads": torch.get_num_threads()},
        "versions": software_versions() | {"av": av.__version__},
        "system": platform.system(),
        "sizes": {field.name: getattr(sizes, field.name) for field in fields(sizes)},
        "loading": loading(film, folder, sizes),
        "preparing": {path.name: preparing(path, folder, sizes) for path in [film, *videos]},
    }
    if sizes.gigabytes:
        found["streaming"] = streaming(
            folder,
            gigabytes=sizes.gigabytes,
            files=sizes.files,
            batch_size=sizes.batch_size,
            shuffled=sizes.shuffled,
        )
    return found


def table(found: dict[str, Any]) -> list[Row]:
    """The measurements beside what is aimed at."""
    load = found["loading"]
    rows = [Row("training step", f"{load['training']:.0f} frames/s")]
    for crop in ("centre", "random"):
        rate = load[f"loader_{crop}"]
        times = rate / load["training"]
        value = f"{rate:.0f} frames/s = {times:.0f} x training"
        rows.append(
            Row(f"loader, {crop} crops", value, f">= {LOADER_TARGET:g} x", times >= LOADER_TARGET)
        )
    for name, rate in found["preparing"].items():
        share = rate["prepare"] / rate["decode"]
        work = rate["prepare_cpu"] / rate["decode_cpu"]
        value = f"{rate['prepare']:.0f} frames/s = {share:.0%} of decoding ({work:.1f} x its work)"
        rows.append(
            Row(f"prepare {name}", value, f">= {PREPARE_TARGET:.0%}", share >= PREPARE_TARGET)
        )
    return rows + _streaming_rows(found.get("streaming"))


def _streaming_rows(found: dict[str, float] | None) -> list[Row]:
    if found is None:
        return []
    peak = found["memory_peak"]
    store = f"{found['bytes'] / 1e9:.1f} GB store"
    return [
        Row(f"{store}, shuffled", f"{found['shuffled']:.0f} frames/s"),
        Row(f"{store}, in order", f"{found['sequential']:.0f} frames/s"),
        Row(
            f"{store}, resident memory",
            f"{peak / 1e6:.0f} MB at most, {found['memory_before'] / 1e6:.0f} before",
            f"< {MEMORY_TARGET / 1e6:.0f} MB",
            peak < MEMORY_TARGET,
        ),
    ]


def main() -> int:
    """Read options, run, print."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=list[str], default=[], help="videos to prepare")
    parser.add_argument("--folder", type=str | None, help="where to write, for a while")
    parser.add_argument("--json", type=str | None, help="write the measurements here too")
    parser.add_class_arguments(Sizes, "sizes")
    options = parser.instantiate(parser.parse_args())
    return run_program("data", lambda: benchmark(options))


def benchmark(options: Any) -> None:
    """Measure in a folder of its own, print, write."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure([Path(path) for path in options.videos], Path(folder), options.sizes)
    print(rows_text(table(found)))
    if options.json:
        write_json(Path(options.json), found)


if __name__ == "__main__":
    sys.exit(main())
