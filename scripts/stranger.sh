#!/usr/bin/env bash
# What a user does who has only the wheel: own video and own series, from nothing to a forecast.
#   scripts/stranger.sh        build the wheel, install it alone in a fresh environment, and go
#   scripts/stranger.sh ENV    go in an environment that has the wheel and its extra `video`
# Works in a folder of its own, outside the repository. Smoke size: a minute on two cores.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
env=${1:-}
unset PYTHONPATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache

if [ -z "$env" ]; then
  env=$work/env
  torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$root/constraints.txt")
  "$root/.venv/bin/python" -m build --no-isolation --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 ||
    { cat "$work/build.log" >&2; exit 1; }
  "$root/.venv/bin/python" -m venv "$env"
  install() { "$env/bin/python" -m pip --disable-pip-version-check -qq install --no-compile "$@"; }
  install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
  wheel=$(echo "$work"/dist/*.whl)
  install --constraint "$root/constraints.txt" "$wheel[video]"
fi
env=$(cd "$env" && pwd)
mkdir "$work/home"
cd "$work/home"

step() {  # step WHAT COMMAND...: run, show the output only where it fails
  echo "stranger: $1"
  shift
  "$@" >out.txt 2>&1 || { echo "stranger: failed: $*" >&2; cat out.txt >&2; exit 1; }
}
expect() {  # expect FILE...: what the last command was to leave
  for file in "$@"; do [ -s "$file" ] || { echo "stranger: no $file" >&2; cat out.txt >&2; exit 1; }; done
}
said() { grep -q -- "$1" out.txt || { echo "stranger: not said: $1" >&2; cat out.txt >&2; exit 1; }; }
afslvm=$env/bin/afslvm

step "a video and a table of its own" "$env/bin/python" - <<'PY'
import av
import numpy as np

rng = np.random.default_rng(0)
with av.open("ball.mp4", "w") as film:
    stream = film.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    for t in range(240):
        rows, columns = np.mgrid[:64, :64]
        place = 32 + 20 * np.array([np.sin(t / 9), np.cos(t / 7)])
        ball = 220 * np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 60)
        picture = np.repeat(ball[..., None], 3, -1).astype(np.uint8)
        for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
            film.mux(packet)
    for packet in stream.encode():
        film.mux(packet)
days = np.datetime64("2020-01-01") + np.arange(400)
values = np.c_[np.sin(np.arange(400) / 10), np.cos(np.arange(400) / 7)] + rng.normal(0, 0.1, (400, 2))
with open("weather.csv", "w") as table:
    table.write("date,wind,rain\n")
    table.writelines(f"{day},{a:.4f},{b:.4f}\n" for day, (a, b) in zip(days, values))
PY
expect ball.mp4 weather.csv

quick=(--steps 4 --validate_every 2 --validation_sequences 2 --batch_size 2)
step "series: train" "$afslvm" train series_linear --data weather.csv --out runs/series --steps 40
said "on the same frames: copy of the last frame"
step "series: evaluate" "$afslvm" evaluate runs/series
said "copy of the last frame"
step "series: sample" "$afslvm" sample runs/series
expect runs/series/rollout.png runs/series/rollout.csv
step "series: forecast" "$afslvm" forecast runs/series --horizon 5 --num_samples 8 --out ahead
[ -n "$(find ahead -name '*.csv' -size +0)" ] || { echo "stranger: no forecast" >&2; exit 1; }

step "video: train" "$afslvm" train slvm_af1 --data ball.mp4 --data.size 32 --out runs/film \
  --scored_frames 4 "${quick[@]}"
step "video: evaluate" "$afslvm" evaluate runs/film --limit 2
said "copy of the last frame"
step "video: sample" "$afslvm" sample runs/film --num_sequences 1 --num_samples 1 --context 4 --horizon 2
expect runs/film/rollout.png runs/film/rollout.gif
step "report of all that is there" "$afslvm" report runs/series runs/film weather.csv --out report.html
said "left out weather.csv"
expect report.html

step "loaded back in Python" "$env/bin/python" - "$root" <<'PY'
import math
import sys
from pathlib import Path

import pyro_afslvm
from pyro_afslvm import Pair
from pyro_afslvm.evaluation.metrics import evaluate
from pyro_afslvm.runs.run import Run

assert not Path(pyro_afslvm.__file__).resolve().is_relative_to(Path(sys.argv[1]).resolve() / "pyro_afslvm")
pair = Pair.load("runs/series")
again = evaluate(pair, Run.open("runs/series").load_source())
assert math.isclose(again["nats_per_dim"], Run.open("runs/series").read_results()["nats_per_dim"], abs_tol=1e-6)
assert Pair.load("runs/film").num_parameters > 0
PY
echo "stranger: all of it, without the repository: ${SECONDS} s"
