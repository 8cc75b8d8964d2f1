"""The measurements of `benchmarks/speed.py` beside what is aimed at."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyro_afslvm.utils.tables import table_text

FASTER = {"af1": (2.0, 4.0), "slvm_af1": (2.0, 4.0), "slvm": (1.3, 2.0)}  # float32, bf16
NAMES = {
    "af1": "1-AF",
    "af2": "2-AF",
    "slvm": "SLVM",
    "slvm_af1": "SLVM w/ 1-AF",
    "slvm_af2": "SLVM w/ 2-AF",
}
CONVOLUTION_SHARE = 0.6
OVERHEAD, OVERHEAD_MS = 1.05, 2.0
ROLLOUT = (3.0, 5.0)
KEPT = ", freed memory kept"  # in place of the system's allocator
MEMORY = {"library": 0.6, f"library{KEPT}": 0.6, "library, bf16, recomputed": 0.3}
IMPORT = 1.15
STRAIGHT = 0.1  # largest distance from a straight line
FLAT = 1.1  # the largest of things that should be equal, over the smallest
NATS = 0.002  # per dimension


class Row(NamedTuple):
    """A measurement: of what, its value, its target, and whether it is met."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None


def rows_text(rows: Sequence[Row]) -> str:
    """Rows as a table, the verdict last."""
    verdicts = {None: "", True: ": yes", False: ": NO"}
    cells = [[row.what, row.value, row.target + verdicts[row.met]] for row in rows]
    return table_text(cells, left=(0, 1, 2))


def table(found: Mapping[str, Any]) -> list[Row]:
    """Everything that was measured."""
    rows = {
        "steps": _steps,
        "overhead": _overhead,
        "options": _options,
        "rollout": _rollout,
        "memory": _memory,
        "growth": _growth,
        "import": _imports,
        "numerics": _numerics,
        "training": _training,
    }
    return [row for name, of in rows.items() if name in found for row in of(found[name])]


def _steps(found: Mapping[str, Any]) -> list[Row]:
    return [row for name, one in found.items() for row in _recipe(name, one)]


def _recipe(name: str, found: Mapping[str, Any]) -> list[Row]:
    title, seconds = NAMES[name], found["seconds"]
    reference = seconds["sequential"]
    rows = [Row(f"{title} step, sequential", f"{reference:.3f} s")]
    for way, target in zip(("library", "library, bf16"), FASTER[name], strict=True):
        note = f" ({seconds[way]:.3f} s)"
        rows.append(_at_least(f"{title} step, {way}", reference / seconds[way], target, note=note))
    if name != "slvm":  # which is not made of these convolutions
        rows += [_share(title, found, end) for end in ("", ", bf16")]
    of_pyro = seconds["library"] / seconds["bare"]
    rows.append(_at_most(f"{title} step, library / bare", of_pyro, OVERHEAD))
    in_bf16 = seconds["sequential, bf16"] / seconds["library, bf16"]
    return [*rows, Row(f"{title} step, both in bf16", f"{in_bf16:.2f} x")]


def _share(title: str, found: Mapping[str, Any], end: str) -> Row:
    seconds = found["seconds"]
    rate = found["flops"] / seconds[f"library{end}"]
    ceiling = found["convolution_flops"] / seconds[f"convolution{end}"]
    note = f" of {ceiling / 1e9:.0f} GFLOP/s"
    what = f"{title} step{end}, share of convolution's rate"
    return _at_least(what, rate / ceiling, CONVOLUTION_SHARE, note=note, unit="")


def _overhead(found: Mapping[str, float]) -> list[Row]:
    extra = 1e3 * (found["library"] - found["bare"])
    note = f" on {1e3 * found['bare']:.2f} ms"
    return [_at_most("Pyro, smallest model", extra, OVERHEAD_MS, note=note, unit="ms")]


def _options(found: Mapping[str, float]) -> list[Row]:
    reference = found["library"]
    return [
        Row(f"1-AF step in bf16, {way}", f"{seconds / reference:.2f} x ({seconds:.3f} s)")
        for way, seconds in found.items()
    ]


def _rollout(found: Mapping[str, float]) -> list[Row]:
    rows = [Row("rollout, sequential", f"{found['sequential']:.1f} frames/s")]
    for way, target in zip(("library", "library, bf16"), ROLLOUT, strict=True):
        note = f" ({found[way]:.1f} frames/s)"
        rows.append(
            _at_least(f"rollout, {way}", found[way] / found["sequential"], target, note=note)
        )
    return rows


def _memory(found: Mapping[str, float]) -> list[Row]:
    rows = []
    for way, value in found.items():
        if way.startswith("sequential"):
            rows.append(Row(f"1-AF memory, {way}", f"{value / 1e6:.0f} MB"))
            continue
        reference = found["sequential" + (KEPT if way.endswith(KEPT) else "")]
        share, note = value / reference, f" ({value / 1e6:.0f} MB)"
        if way in MEMORY:
            rows.append(_at_most(f"1-AF memory, {way}", share, MEMORY[way], note=note))
        else:
            rows.append(Row(f"1-AF memory, {way}", f"{share:.2f} x{note}"))
    return rows


def _growth(found: Mapping[str, Any]) -> list[Row]:
    rows = []
    for name, line in found["lines"].items():
        what = f"{name}: distance from a line"
        each = _amount(line["slope"], name.split()[0])
        rows.append(_at_most(what, line["error"], STRAIGHT, note=f", {each} each", unit=""))
    for name, values in found["flat"].items():
        ratio = max(values.values()) / min(values.values())
        note = " over " + ", ".join(values)
        rows.append(_at_most(f"{name}: largest / smallest", ratio, FLAT, note=note))
    return rows


def _amount(value: float, of: str) -> str:
    return f"{value / 1e6:.0f} MB" if of == "memory" else f"{1e3 * value:.0f} ms"


def _imports(found: Mapping[str, float]) -> list[Row]:
    reference = found["torch and pyro"]
    note = f" on {reference:.2f} s of torch and pyro"
    alone = found["library"] / reference
    every = _at_most("import, every name", found["library, every name"] / reference, IMPORT)
    return [Row("import, nothing of it used yet", f"{alone:.3g} x{note}"), every]


def _numerics(found: Mapping[str, Any]) -> list[Row]:
    return [
        _at_most(f"bf16 bound after {steps} steps, {NAMES[name]}", error, NATS, unit="nats/dim")
        for name, errors in found["errors"].items()
        for steps, error in errors.items()
    ]


def _training(found: Mapping[str, Any]) -> list[Row]:
    difference, error = found["difference"], found["error"]
    value = f"{difference:+.4f} ± {error:.4f} nats/dim, seeds ± {found['seeds']:.4f}"
    met = abs(difference) <= min(max(NATS, 2 * error), found["seeds"])
    target = f"<= seeds, and {NATS} or 2 errors"
    return [Row(f"bf16 training, {found['steps']} steps", value, target, met)]


def _at_least(what: str, value: float, target: float, *, note: str = "", unit: str = "x") -> Row:
    return Row(what, f"{value:.2f} {unit}".rstrip() + note, f">= {target:g}", value >= target)


def _at_most(what: str, value: float, target: float, *, note: str = "", unit: str = "x") -> Row:
    return Row(what, f"{value:.3g} {unit}".rstrip() + note, f"<= {target:g}", value <= target)
