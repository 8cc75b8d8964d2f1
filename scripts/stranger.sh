#!/usr/bin/env bash
# The first hour of somebody who has the package and data of their own, at smoke size: clips as
# folders of pictures and a table of dates, from nothing to frames and values that follow, and back
# in Python. Nothing of the repository is used.
#   scripts/stranger.sh ENVIRONMENT    a virtual environment with the wheel in it
set -euo pipefail

env=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export PATH=$env/bin:$PATH HOME=$work
unset PYTHONPATH

say() { echo "\$ $*"; "$@" >log.txt 2>&1 || { cat log.txt >&2; exit 1; }; }
there() { for file in "$@"; do test -s "$file" || { echo "stranger: no $file" >&2; exit 1; }; done; }

python - <<'PY'
import datetime
import math
import pathlib

import numpy as np
from PIL import Image

for clip in range(6):  # a disc that swings
    folder = pathlib.Path(f"films/clip_{clip}")
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:32, :32]
    for t in range(24):
        middle = 16 + 8 * math.sin(0.4 * t + clip)
        disc = (rows - middle) ** 2 + (columns - 16) ** 2 < 25
        Image.fromarray((40 + 180 * disc).astype(np.uint8)).save(folder / f"{t:03d}.png")

rng, start = np.random.default_rng(0), datetime.date(2020, 1, 1)
lines = ["date,wind,rain"]
for day in range(400):
    wind = 10 + 3 * math.sin(2 * math.pi * day / 7) + rng.normal()
    rain = 5 + math.cos(2 * math.pi * day / 7) + 0.5 * rng.normal()
    lines.append(f"{start + datetime.timedelta(day)},{wind:.3f},{rain:.3f}")
pathlib.Path("weather.csv").write_text("\n".join(lines) + "\n")
PY

say afslvm data inspect --data Videos --data.path films --data.size 32
say afslvm train slvm_af1 --data films --data.size 32 --steps 3 --validate_every 3 --scored_frames 4 --out runs/film
say afslvm evaluate runs/film
say afslvm sample runs/film
there runs/film/results.json runs/film/rollout.gif

say afslvm train auto --data weather.csv --seconds 5 --out runs/weather
say afslvm forecast runs/weather --horizon 7 --num_samples 20
there runs/weather/forecast.csv

say afslvm report runs/film runs/weather
there report.html

python - <<'PY'
import torch

import pyro_afslvm
from pyro_afslvm import Pair, rollout

model, guide = Pair.load("runs/film")
future = rollout(model, guide, torch.rand(1, 6, *model.frame_shape), horizon=3, num_samples=2)
assert future.x_future.shape[:3] == (2, 1, 3), future
print("loaded back, and rolled out:", *future.x_future.dims)
PY
