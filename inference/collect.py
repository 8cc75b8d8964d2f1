"""Runs that were trained apart, in one table: metrics, curves and paired differences as JSON.

    python -m inference.collect runs/af1 runs/slvm runs/slvm_af1 --json moving_mnist_64.json

All must have been evaluated on the same sequences; differences are paired over these.
"""

import math
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from inference.seeds import metric_text
from inference.table1 import summary
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.metrics.uncertainty import difference
from pyro_afslvm.report import table_text
from pyro_afslvm.runs.run import Run
from pyro_afslvm.utils.files import write_json
from pyro_afslvm.utils.tables import table_text as plain_table

NATS = "nats_per_dim"


def differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Differences of nats/dim between every two runs, with standard errors paired by unit.

    Of fewer than five units there is none.

    Raises:
        ValueError: if they were evaluated under different protocols.
    """
    results = [run.read_results() for run in runs]
    found = []
    for better, worse in combinations(results, 2):
        first, second = (dict(r["protocol"], versions=None, bound=None) for r in (better, worse))
        if first != second:
            raise ValueError(f"{better['name']} and {worse['name']} have different protocols")
        values = [result["per_sequence"][NATS] for result in (better, worse)]
        units = (better["per_sequence"]["unit"], worse["per_sequence"]["unit"])
        weights = (better["per_sequence"].get("frames"), worse["per_sequence"].get("frames"))
        estimate = difference(*values, units=units, weights=weights)
        found.append(
            {
                "of": better["name"],
                "less": worse["name"],
                "mean": estimate.mean,
                "error": None if math.isnan(estimate.error) else estimate.error,
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, print, write."""
    parser = Parser(prog="collect", description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=str, nargs="+", help="run folders, evaluated")
    parser.add_argument("--json", type=str | None, help="write metrics and differences here")
    options = parser.parse_args(arguments)

    def collect() -> None:
        runs = [Run.open(path) for path in options.runs]
        pairs = differences(runs)
        print(table_text([run.path for run in runs]))
        rows = [[p["of"], p["less"], metric_text(p, 4, sign=True)] for p in pairs]
        print(plain_table(rows, head=["nats/dim of", "less those of", "paired difference"]))
        if options.json:
            write_json(Path(options.json), summary([runs]) | {"differences": pairs})

    return run_program("collect", collect)


if __name__ == "__main__":
    sys.exit(main())
