"""Streaming a store that is larger than the memory it may take."""

import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.timing import status
from pyro_afslvm.data import SequenceDataset, Split
from pyro_afslvm.data.videos.decoding import Framing
from pyro_afslvm.data.videos.prepared import Part, PreparedSource
from pyro_afslvm.data.videos.store import StoredFrames, store_frames
from pyro_afslvm.training.sampler import StepBatches

CROP = 13  # frames, as the paper trains
SIDE = 64
LARGE = (3, 128, 128)  # a frame of the store that is streamed


def loader(data: SequenceDataset, batch_size: int) -> DataLoader[Any]:
    """Make a data loader as training does."""
    return DataLoader(data, batch_sampler=StepBatches(len(data), batch_size, seed=0))


def endless(batches: Any) -> Iterator[torch.Tensor]:
    while True:
        yield from batches


def take(batches: Iterator[torch.Tensor], count: int) -> int:
    """Frames in so many batches."""
    return sum(math.prod(batch.shape[:2]) for batch in islice(batches, count))


class Stored(PreparedSource):
    """Source of what lies in a store already."""

    name = "stored"

    def __init__(self, *, paths: list[Path]) -> None:
        self.framing, self.seed, self.random_crops = Framing(size=LARGE[1], color="rgb"), 0, False
        self.paths, self.skip_bad, self.cache = paths, False, None

    def files(self) -> list[Path]:
        return self.paths

    def parts(self, split: Split) -> list[Part]:
        stored = [StoredFrames(path) for path in self.paths]
        return [Part(frames, 0, frames.shape[0]) for frames in stored]

    def describe(self) -> dict[str, object]:
        return {"name": self.name, "files": len(self.paths)}


def patterns() -> np.ndarray:  # -> (256, 3, 128, 128)
    """Soft pictures that compress well, each of its own."""
    c, y, x = np.mgrid[: LARGE[0], : LARGE[1], : LARGE[2]]
    return np.stack([(k + 50 * c + x // 8 + y // 4) % 256 for k in range(256)]).astype(np.uint8)


def write_store(folder: Path, *, gigabytes: float, files: int) -> list[Path]:
    """Frame t of each file is pattern t % 256."""
    pictures = patterns()
    count = round(gigabytes * 1e9 / (math.prod(LARGE) * files))
    return [
        store_frames(
            folder, f"film{i}", lambda: (pictures[t % 256] for t in range(count)), about={}
        ).path
        for i in range(files)
    ]


def streaming(
    folder: Path, *, gigabytes: float, files: int, batch_size: int, shuffled: int
) -> dict[str, float]:
    """Frames a second, shuffled and in order, and the largest resident memory of the reader."""
    paths = write_store(folder / "large", gigabytes=gigabytes, files=files)
    on_disk = sum(StoredFrames(path).nbytes for path in paths)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(read_store, paths, batch_size, shuffled).result()
    return {**found, "bytes_on_disk": float(on_disk)}


def read_store(paths: list[Path], batch_size: int, shuffled: int) -> dict[str, float]:
    """Part of a shuffled epoch, then all frames in order, checked; in a process of its own."""
    source, before = Stored(paths=paths), largest_memory()
    train = source.dataset("train", num_frames=CROP)
    start = time.perf_counter()
    drawn = take(iter(loader(train, batch_size)), shuffled)
    middle = time.perf_counter()
    frames = 0
    for batch in DataLoader(source.dataset("test", num_frames=CROP), batch_size=64):
        check_batch(batch)
        frames += math.prod(batch.shape[:2])
    return {
        "frames": frames,
        "bytes": frames * math.prod(LARGE),
        "shuffled": drawn / (middle - start),
        "sequential": frames / (time.perf_counter() - middle),
        "memory_before": before,
        "memory_peak": largest_memory(),
    }


def check_batch(batch: torch.Tensor) -> None:
    """Frames follow each other as they were written."""
    first = batch[:, :, 0, 0, 0].long()
    if not bool(((first[:, 1:] - first[:, :-1]) % 256 == 1).all()):
        raise ValueError("frames were read in another order than they were written")


def largest_memory() -> float:
    """Bytes that were ever resident in this process."""
    try:
        return status("VmHWM")
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
