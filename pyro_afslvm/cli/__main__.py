"""``python -m pyro_afslvm.cli``, as launchers such as torchrun want it."""

import sys

from pyro_afslvm.cli.main import main

sys.exit(main())
