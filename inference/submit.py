"""Any ``afslvm`` command as a job of SLURM, through submitit; on this machine where there is none.

    python -m inference.submit --devices 4 --num_nodes 2 --timeout_min 600 \
        --parameters.slurm_partition gpu -- train models/slvm_af1.py --out runs/slvm_af1

A job that is preempted, or whose time is up, is queued again and goes on from its last checkpoint;
so does the same command later. Needs the extra ``sweep``.
"""

import sys
from collections.abc import Sequence
from typing import Any

import submitit
from jsonargparse import Namespace
from submitit.helpers import Checkpointable, TorchDistributedEnvironment

from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.cli.main import build_parser, out_folder
from pyro_afslvm.cli.main import main as afslvm
from pyro_afslvm.utils.checks import check_minimum


class Job(Checkpointable):
    """A command as each task of the job runs it, every task one process of the training."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)

    def __call__(self) -> None:
        """Meet the other tasks and run the command with them."""
        environment = TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False, overwrite=True)
        if code := afslvm(going_on(self.command)):
            raise RuntimeError(f"afslvm {' '.join(self.command)} ended with {code}")


def going_on(command: list[str]) -> list[str]:
    """The command, with ``--resume`` for a training that has begun."""
    options = build_parser().parse_args(command)
    if options.subcommand != "train" or options.train.resume:
        return command
    begun = (out_folder(options.train) / "settings.json").exists()
    return [*command, "--resume"] if begun else command


def submit(options: Namespace, command: list[str]) -> None:
    """Queue the command, and wait for it where there is no queue."""
    check_minimum(devices=(options.devices, 1), num_nodes=(options.num_nodes, 1))
    executor = submitit.AutoExecutor(
        options.folder, cluster=options.cluster, slurm_max_num_timeout=options.requeues
    )
    executor.update_parameters(**parameters(options))
    job = executor.submit(Job(command))
    print(f"job {job.job_id}; its output is in {job.paths.folder}", flush=True)
    if options.wait or executor.cluster != "slurm":
        job.results()


def parameters(options: Namespace) -> dict[str, Any]:
    """Parameters of the job: a task and a GPU for each process."""
    asked = {
        "name": "afslvm",
        "nodes": options.num_nodes,
        "tasks_per_node": options.devices,
        "gpus_per_node": options.devices,
        "cpus_per_task": 4,
        "timeout_min": options.timeout_min,
        "slurm_srun_args": ["--kill-on-bad-exit=1"],  # or the others would wait for the failed one
    }
    return asked | options.parameters


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options up to ``--``, check the command after it, queue it."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    parser = Parser(prog="submit", description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=1, help="processes of each node")
    parser.add_argument("--num_nodes", type=int, default=1, help="machines")
    parser.add_argument("--timeout_min", type=int, default=60, help="minutes until it is requeued")
    parser.add_argument("--requeues", type=int, default=10, help="times that its time may be up")
    parser.add_argument("--cluster", type=str | None, help="slurm, local or debug")
    parser.add_argument("--folder", type=str, default="runs/jobs", help="of the jobs' output")
    parser.add_argument("--wait", action="store_true", help="until the job has ended")
    parser.add_argument(
        "--parameters", type=dict[str, Any], default={}, help="more of submitit's, slurm_account"
    )
    split = given.index("--") if "--" in given else len(given)
    options, command = parser.parse_args(given[:split]), given[split + 1 :]
    if not command:
        parser.error("give an afslvm command after --, such as: -- train models/slvm_af1.py")
    build_parser().parse_args(command)
    return run_program("submit", lambda: submit(options, command))


if __name__ == "__main__":
    sys.exit(main())
