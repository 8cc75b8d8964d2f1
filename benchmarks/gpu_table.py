"""The figures of `benchmarks/gpu.py` as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu_steps import SEQUENTIAL
from benchmarks.targets import NAMES

PAPER_BATCH = "16"
RATIO = 10.0  # times the sequential program, at the paper's batch
ITERATIONS = {"af1": (100_000, 10.0), "slvm_af1": (200_000, 20.0)}  # and the minutes aimed at
HEADER = f"{'':<50}{'ms':>9}{'ratio':>8}{'TFLOP/s':>9}{'of conv':>8}{'of mm':>7}{'GB':>8}"


def table(found: Mapping[str, Any]) -> list[str]:
    """Every figure that was measured, and whether targets are met."""
    lines = [" ".join(f"{key} {value}" for key, value in found["device"].items())]
    versions = found["versions"]
    lines.append(" ".join(f"{k} {versions[k]}" for k in ("torch", "pyro-ppl") if k in versions))
    lines += _checks(found.get("checks"))
    for name, rates in found.get("ceilings", {}).items():
        each = ", ".join(f"{kind} {rate / 1e12:.3g} TFLOP/s" for kind, rate in rates.items())
        lines.append(f"ceiling {name}: {each}")
    if "steps" in found:
        lines += ["float32 of steps and rollouts is TF32 where the device has it", HEADER]
        for name, batch, one in _each(found["steps"]):
            lines += _steps(f"{_title(name)}, {batch}: ", one, found["ceilings"])
    for name, batch, one in _each(found.get("rollouts", {})):
        lines += _rollouts(f"rollout {_title(name)}, {batch}: ", one)
    return lines + _targets(found.get("steps", {}))


def _title(name: str) -> str:
    return NAMES.get(name, name)


def _each(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for name, batches in found.items():
        for batch, one in batches.items():
            yield name, batch, one


def _checks(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["correctness: not checked in this run"]
    return [
        f"error of {_title(name)}, {kind}: " + _figures(errors)
        for name, kinds in found.items()
        for kind, errors in kinds.items()
    ]


def _figures(errors: Mapping[str, Any]) -> str:
    units = {"loss": " nats/dim"}
    texts = {k: f"{v:.2g}" if isinstance(v, float) else str(v) for k, v in errors.items()}
    return ", ".join(f"{what} {text}{units.get(what, '')}" for what, text in texts.items())


def _steps(title: str, found: Mapping[str, Any], ceilings: Mapping[str, Any]) -> Iterator[str]:
    reference = found["ways"].get(SEQUENTIAL, {}).get("seconds")
    for way, one in found["ways"].items():
        if "reason" in one:
            yield f"{title + way:<50}  {one['reason']}"
            continue
        seconds = one["seconds"]
        rate = found["flops"] / seconds if "library" in way else None
        ratio = f"{reference / seconds:.1f}x" if reference else ""
        memory = f"{one['bytes'] / 1e9:.2f}" if "bytes" in one else ""
        yield (
            f"{title + way:<50}{1e3 * seconds:>9.2f}{ratio:>8}{_rate(rate, way, ceilings)}"
            f"{memory:>8}"
        ).rstrip()


def _rate(rate: float | None, way: str, ceilings: Mapping[str, Any]) -> str:
    if rate is None:
        return f"{'':>24}"
    kind = "bf16" if "bf16" in way else "tf32" if "tf32" in ceilings else "float32"
    shares = [rate / ceilings[kind].get(what, float("nan")) for what in ("convolution", "product")]
    return f"{rate / 1e12:>9.3g}{shares[0]:>8.0%}{shares[1]:>7.0%}"


def _rollouts(title: str, found: Mapping[str, Any]) -> Iterator[str]:
    reference = found[SEQUENTIAL].get("frames_per_second")
    for way, one in found.items():
        if "reason" in one:
            yield f"{title + way:<50}  {one['reason']}"
            continue
        rate = one["frames_per_second"]
        ratio = f" {rate / reference:.1f}x" if reference else ""
        yield f"{title + way:<50}{rate:>12.1f} frames/s{ratio}"


def _targets(found: Mapping[str, Any]) -> list[str]:
    """Of the fastest way of the library, at the paper's batch."""
    lines = []
    for name, batches in found.items():
        ways = batches.get(PAPER_BATCH, {}).get("ways", {})
        times = {way: one["seconds"] for way, one in ways.items() if "seconds" in one}
        library = [(seconds, way) for way, seconds in times.items() if "library" in way]
        seconds, best = min(library, default=(0.0, ""))
        title = f"{_title(name)}, batch {PAPER_BATCH}, {best}"
        if best and SEQUENTIAL in times:
            ratio = times[SEQUENTIAL] / seconds
            what = f"{title}: {ratio:.1f} x sequential"
            lines.append(_verdict(what, f">= {RATIO:g}", ratio >= RATIO))
        if best and name in ITERATIONS:
            count, most = ITERATIONS[name]
            minutes = count * seconds / 60
            what = f"{title}: {minutes:.1f} minutes for {count:,} iterations"
            lines.append(_verdict(what, f"<= {most:g}", minutes <= most))
    return lines


def _verdict(what: str, target: str, met: bool) -> str:
    return f"{what}  {target}: {'yes' if met else 'NO'}"
