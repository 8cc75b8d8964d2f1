"""Processes of a distributed run: how many there are, and how they exchange values."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that work on one thing together, as this one of them sees it.

    They talk over the CPU, so that nothing waits for a GPU.

    Args:
        rank: of this process.
        size: how many there are.
        group: of ``torch.distributed``, on gloo.

    >>> Processes(rank=1, size=3).share([*"abcdefg"])
    ['b', 'e']
    >>> Processes().largest(2.0, 3.0)
    [2.0, 3.0]
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @classmethod
    def running(cls) -> "Processes":
        """All of them, if ``torch.distributed`` runs, or else this one alone."""
        if not _is_running():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))

    def share(self, things: list[T]) -> list[T]:
        """Share things out: those for this process, each for one, none padded."""
        return things[self.rank :: self.size]

    def largest(self, *values: float) -> list[float]:
        """Reduce each value to the largest that any process has."""
        if self.size == 1:
            return [*values]
        found = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX, self.group)
        return [float(value) for value in found]

    def collect(self, results: Mapping[int, T], *, everywhere: bool = True) -> list[T]:
        """Collect the numbered results of all processes in order; none where they do not go.

        Args:
            results: of this process, by number.
            everywhere: to every process, or else to the first one only.
        """
        found: list[Any] = [results]
        if self.size > 1:
            found = [{}] * self.size
            if everywhere:
                dist.all_gather_object(found, results, self.group)
            else:
                dist.gather_object(results, None if self.rank else found, group=self.group)
        together = {i: result for some in found for i, result in some.items()}
        return [together[i] for i in sorted(together)]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier(self.group)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Give the processes of this run, which leave together; a launcher's are made to meet.

    The first one's files are there for all afterwards.
    """
    meet = not _is_running() and launched() is not None
    if meet:
        dist.init_process_group("gloo")
    try:
        processes = Processes.running()
        yield processes
        processes.wait()
    finally:
        if meet:
            dist.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process writes and prints; the others of a distributed run do not."""
    if _is_running():
        return dist.get_rank() == 0
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return int(next((os.environ[name] for name in names if name in os.environ), 0)) == 0


def launched() -> tuple[int, int] | None:
    """Count processes of each node, and nodes, that ``torchrun`` or the like has started."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return None
    total, on_node = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return (on_node, total // on_node) if total > 1 else None


def own_device() -> str:
    """The GPU of this process, if there are any, else the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


def _is_running() -> bool:
    return dist.is_available() and dist.is_initialized()
