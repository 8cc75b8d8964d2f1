"""The paper's Fig. 2: two differences turn a smooth path into noise.

    python -m inference.motivating_example --out fig2.png

Prints, for positions x, first differences u and second differences w, the temporal
correlation and what a model of independent Gaussian noise reaches on them: since differences
leave volumes as they are, all three are log-likelihoods of the same x.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from models.motivating_example import build, simulate
from pyro_afslvm.cli.printing import print_always
from pyro_afslvm.metrics import temporal_correlation
from pyro_afslvm.plots import motivating_example, to_png
from pyro_afslvm.utils.tables import table_text


def mean_correlation(x: Tensor) -> float:  # (N, T, D) ->
    r"""Eq. 31 within each sequence, around its own mean, averaged over sequences.

    Pooled over many sequences that all start from rest, Eq. 31 is T / (T + 1) for u and for x
    alike: it then measures how the variance grows, not how smooth a path is.
    """
    return sum(temporal_correlation(path[None]) for path in x) / len(x)


def noise_log_likelihood(x: Tensor) -> float:
    """Nats per number of the best N(0, s²) with independent entries."""
    variance = x.square().mean()
    return float(-0.5 * (2 * torch.pi * torch.e * variance).log())


def main() -> int:
    """Simulate, difference, print, draw."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.motivating_example", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("fig2.png"), help="the picture, a PNG")
    parser.add_argument("--sequences", type=int, default=100, help="of which 3 are drawn")
    parser.add_argument("--frames", type=int, default=50, help="of each sequence")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print_always()
    if options.sequences < 1 or options.frames < 4:
        parser.error("expected at least 1 sequence of at least 4 frames")
    if options.out.suffix.lower() != ".png":
        parser.error(f"--out: expected a file name that ends in .png, got {options.out}")
    x, _, _ = simulate(options.sequences, options.frames, options.seed)
    near_frames, near_noise = build().model.flow.condition().intermediates(x)
    signals = {"x": x, "u": near_frames.noise, "w": near_noise.noise}
    correlations = [mean_correlation(values) for values in signals.values()]
    rows = [
        [name, f"{correlation:.2f}", f"{noise_log_likelihood(values):.2f}"]
        for (name, values), correlation in zip(signals.items(), correlations, strict=True)
    ]
    head = ["", "temporal correlation", "nats per number as independent noise"]
    print(table_text(rows, head=head))
    drawn = [values[:3].numpy() for values in signals.values()]
    figure = motivating_example(*drawn, correlations=correlations)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(to_png(figure))
    except OSError as error:
        parser.error(f"--out: cannot write {options.out}: {error.strerror}")
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
