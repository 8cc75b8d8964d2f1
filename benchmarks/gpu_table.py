"""The measurements of `benchmarks/gpu.py` as text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu_steps import SEQUENTIAL
from benchmarks.targets import NAMES, Row, rows_text
from pyro_afslvm.runs.recipe import load_recipe
from pyro_afslvm.runs.settings import of_data
from pyro_afslvm.utils.tables import table_text

PAPER_BATCH = "16"
RATIO = 10.0  # times the sequential program, at the paper's batch
MINUTES = 10.0  # aimed at, for the paper's iterations on Moving MNIST
TIMED = ("af1", "slvm_af1")
MODELS = Path(__file__).parents[1] / "models"
STEPS_HEAD = ("", "ms", "ratio", "TFLOP/s", "of conv", "of mm", "GB", "")
ROLLOUTS_HEAD = ("rollout", "frames/s", "ratio", "")


def table(found: Mapping[str, Any]) -> str:
    """Everything that was measured, and whether targets are met."""
    versions = found["versions"]
    pages = [
        " ".join(f"{key} {value}" for key, value in found["device"].items()),
        " ".join(f"{k} {versions[k]}" for k in ("torch", "pyro-ppl") if k in versions),
        _checks(found.get("checks")),
    ]
    if ceilings := found.get("ceilings"):
        pages.append(_ceilings(ceilings))
    if steps := found.get("steps"):
        note = "float32 of steps and rollouts is TF32 where the device has it"
        pages += [note, _steps(steps, ceilings)]
    if rollouts := found.get("rollouts"):
        pages.append(_rollouts(rollouts))
    if targets := [*_targets(found.get("steps", {}))]:
        pages.append(rows_text(targets))
    return "\n".join(pages)


def _title(name: str) -> str:
    return NAMES.get(name, name)


def _each(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, batches in found.items():
        for batch, one in batches.items():
            yield f"{_title(name)}, {batch}", one


def _checks(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "correctness: not checked in this run"
    rows = [
        [f"error of {_title(name)}, {kind}", _errors(errors)]
        for name, kinds in found.items()
        for kind, errors in kinds.items()
    ]
    return table_text(rows, left=(0, 1))


def _errors(errors: Mapping[str, Any]) -> str:
    units = {"loss": " nats/dim"}
    texts = {k: f"{v:.2g}" if isinstance(v, float) else str(v) for k, v in errors.items()}
    return ", ".join(f"{what} {text}{units.get(what, '')}" for what, text in texts.items())


def _ceilings(found: Mapping[str, Any]) -> str:
    rows = [
        [f"ceiling {name}", *(f"{kind} {rate / 1e12:.3g} TFLOP/s" for kind, rate in rates.items())]
        for name, rates in found.items()
    ]
    return table_text(rows, left=(0, 1, 2))


def _steps(found: Mapping[str, Any], ceilings: Mapping[str, Any]) -> str:
    rows = []
    for title, one in _each(found):
        reference = one["ways"].get(SEQUENTIAL, {}).get("seconds")
        for way, measured in one["ways"].items():
            cells = _step(way, measured, reference, one["flops"], ceilings)
            rows.append([f"{title}: {way}", *cells])
    return table_text(rows, head=STEPS_HEAD, left=(0, len(STEPS_HEAD) - 1))


def _step(
    way: str,
    measured: Mapping[str, Any],
    reference: float | None,
    flops: float,
    ceilings: Mapping[str, Any],
) -> list[str]:
    if "reason" in measured:
        return [*[""] * 6, measured["reason"]]
    seconds = measured["seconds"]
    return [
        f"{1e3 * seconds:.2f}",
        f"{reference / seconds:.1f}x" if reference else "",
        *(_rates(flops / seconds, way, ceilings) if "library" in way else [""] * 3),
        f"{measured['bytes'] / 1e9:.2f}" if "bytes" in measured else "",
    ]


def _rates(rate: float, way: str, ceilings: Mapping[str, Any]) -> list[str]:
    kind = "bf16" if "bf16" in way else "tf32" if "tf32" in ceilings else "float32"
    shares = (rate / ceilings[kind].get(what, float("nan")) for what in ("convolution", "product"))
    return [f"{rate / 1e12:.3g}", *(f"{share:.0%}" for share in shares)]


def _rollouts(found: Mapping[str, Any]) -> str:
    rows = []
    for title, one in _each(found):
        reference = one[SEQUENTIAL].get("frames_per_second")
        for way, measured in one.items():
            rate = measured.get("frames_per_second")
            ratio = f"{rate / reference:.1f}x" if rate and reference else ""
            text = f"{rate:.1f}" if rate else ""
            rows.append([f"{title}: {way}", text, ratio, measured.get("reason", "")])
    return table_text(rows, head=ROLLOUTS_HEAD, left=(0, len(ROLLOUTS_HEAD) - 1))


def _targets(found: Mapping[str, Any]) -> Iterator[Row]:
    """Of the fastest way of the library, at the paper's batch."""
    for name, batches in found.items():
        ways = batches.get(PAPER_BATCH, {}).get("ways", {})
        times = {way: one["seconds"] for way, one in ways.items() if "seconds" in one}
        library = [(seconds, way) for way, seconds in times.items() if "library" in way]
        if not library:
            continue
        seconds, best = min(library)
        title = f"{_title(name)}, batch {PAPER_BATCH}, {best}"
        if SEQUENTIAL in times:
            ratio = times[SEQUENTIAL] / seconds
            yield Row(title, f"{ratio:.1f} x sequential", f">= {RATIO:g}", ratio >= RATIO)
        if name in TIMED:
            count = iterations(name)
            minutes = count * seconds / 60
            text = f"{minutes:.1f} minutes for {count:,} iterations"
            yield Row(title, text, f"<= {MINUTES:g}", minutes <= MINUTES)


def iterations(name: str, data: str = "moving_mnist") -> int:
    """The paper's iterations of a model on a data set, as its recipe has them."""
    constants = load_recipe(MODELS / f"{name}.py").constants
    return of_data(constants, "STEPS", 0, data)
