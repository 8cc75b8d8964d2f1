"""A figure beside those of simple models on the same frames."""

from collections.abc import Mapping

COPY = "copy of the last frame"


def verdict(name: str, value: float, simple: Mapping[str, float]) -> str:
    """Say in a sentence which simple model another does not beat; empty if it beats all.

    Args:
        name: of the model.
        value: its nats/dim, higher is better.
        simple: those of simple models on the same frames, by name.

    Example:
        >>> verdict("SLVM", -3.0, {"copy of the last frame": -2.5, "VAR(2)": -3.5})
        'SLVM does not beat a copy of the last frame (-3.000 against -2.500 nats/dim)'
    """
    better = {other: score for other, score in simple.items() if not value > score}
    if not better:
        return ""
    best = COPY if COPY in better else max(better, key=lambda other: better[other])
    article = "" if best.startswith("VAR") else "a "
    return f"{name} does not beat {article}{best} ({value:.3f} against {better[best]:.3f} nats/dim)"


def figures(simple: Mapping[str, float]) -> str:
    """Write figures in a line.

    Example:
        >>> figures({"copy of the last frame": -2.5, "VAR(2)": -3.5})
        'copy of the last frame -2.500, VAR(2) -3.500'
    """
    return ", ".join(f"{name} {value:.3f}" for name, value in simple.items())
