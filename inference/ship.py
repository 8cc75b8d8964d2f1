"""Ship the weights of an evaluated run with the package.

python -m inference.ship runs/slvm_mix moving_mnist_64_slvm_mix
"""

import sys
from collections.abc import Sequence

from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.shipped import ship


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, ship, print."""
    parser = Parser(prog="ship", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=str, help="run folder, evaluated")
    parser.add_argument("name", type=str, help="of the model")
    options = parser.parse_args(arguments)

    def put() -> None:
        folder = ship(Run.open(options.run), options.name, source={"path": None})
        print(f"wrote {folder}")

    return run_program("ship", put)


if __name__ == "__main__":
    sys.exit(main())
