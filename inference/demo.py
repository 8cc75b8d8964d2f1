"""The main job in five minutes: five models on moving digits over a photograph.

Trains copy-last-frame, 1-AF, 2-AF, SLVM and SLVM w/ 1-AF for equal seconds on frames of
32 x 32, prints the paper's Table 1 for them and writes ``report.html``.
"""

import argparse
import sys
import time
from pathlib import Path

from inference.table1 import SMALL_RECIPES, compare
from pyro_afslvm.cli.console import run_program
from pyro_afslvm.cli.workflow import report_runs
from pyro_afslvm.data import MovingDigits
from pyro_afslvm.runs.settings import TrainSettings


def main() -> int:
    """Run the demo; a second call goes on where the first was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=48.0, help="training time of each model")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="run folders")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the report")
    options = parser.parse_args()
    go_on = f"the same command goes on from here (the runs are in {options.runs})"
    return run_program("demo", lambda: demo(options), go_on=go_on)


def demo(options: argparse.Namespace) -> None:
    """Train, evaluate, report."""
    start = time.perf_counter()
    source = MovingDigits(size=32, background="photo", test_size=300)
    settings = TrainSettings(seconds=options.seconds, seed=options.seed, validate_every=25)
    runs = compare(SMALL_RECIPES, source, options.runs, settings)
    print(report_runs(runs, options.out))
    print(f"wrote {options.out} in {time.perf_counter() - start:.0f} s; open it in a browser")
    print(f"to start afresh, remove {options.runs}")


if __name__ == "__main__":
    sys.exit(main())
