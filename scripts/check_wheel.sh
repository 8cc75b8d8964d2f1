#!/usr/bin/env bash
# Build the wheel (from the sdist), install it alone in a fresh environment outside the
# repository, and run there the command line's help, a stranger's first hour and the transform tests.
# Called by `make wheel`, which has set up .venv.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
constraints=$root/constraints.txt
torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$constraints")

echo "wheel 1/5: build"
"$root/.venv/bin/python" -m build --no-isolation --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; exit 1; }

echo "wheel 2/5: install it alone in a fresh environment (a minute or more)"
"$root/.venv/bin/python" -m venv "$work/env"
install() { "$work/env/bin/python" -m pip --disable-pip-version-check -qq install --no-compile "$@"; }
install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
install --constraint "$constraints" "$work"/dist/*.whl
install --constraint "$constraints" pytest pytest-xdist hypothesis  # only after: the wheel needs none of them

# pyproject.toml for pytest's settings; the library's sources stay behind.
mkdir "$work/elsewhere"
cp -r "$root/tests" "$root/pyproject.toml" "$work/elsewhere"
cd "$work/elsewhere"

echo "wheel 3/5: afslvm --help, afslvm recipes"
"$work/env/bin/python" - "$work/env" <<'PY'
import pathlib
import sys

import pyro_afslvm

where = pathlib.Path(pyro_afslvm.__file__).resolve()
assert where.is_relative_to(pathlib.Path(sys.argv[1]).resolve()), where
PY
"$work/env/bin/afslvm" --help >"$work/help.txt"
"$work/env/bin/afslvm" recipes >"$work/recipes.txt"
for recipe in "$root"/models/{small,series}/*.py; do
  grep -q "^$(basename "$recipe" .py) " "$work/recipes.txt" || { echo "wheel: no $recipe" >&2; exit 1; }
done
grep -q train "$work/help.txt" || { cat "$work/help.txt" >&2; exit 1; }

echo "wheel 4/5: a stranger's own video and series"
install --constraint "$constraints" "$(echo "$work"/dist/*.whl)[video]"
"$root/scripts/stranger.sh" "$work/env"

echo "wheel 5/5: the transform tests"
"$work/env/bin/python" -m pytest -q -n 2 --dist worksteal -p no:cacheprovider tests/transforms
