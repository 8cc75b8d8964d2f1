"""Protocols of reported numbers, and the most that a number can be."""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib import metadata
from typing import Literal

from pyro_afslvm.data.dequantize import Dequantization, dequantization
from pyro_afslvm.data.splits import SPLITS
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.renamed import renamed_keyword

# what results in one table share
COMPARABLE = ("data", "split", "windows", "scored_frames", "noise")

_PACKAGES = ("pyro-afslvm", "torch", "pyro-ppl", "numpy", "lightning")


def software_versions() -> dict[str, str]:
    """Find the versions of Python and of the packages a result depends on, as far as installed.

    Example:
        >>> "torch" in software_versions()
        True
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Record of how a reported log-likelihood was measured; travels with every stored result.

    Args:
        data: Settings of the data set, from :meth:`SequenceSource.describe`.
        split: The split that was scored.
        context_frames: Frames given first and not scored.
        scored_frames: Frames scored after them.
        noise: Name of the dequantization; stored results call it so.
        num_samples: Posterior samples per sequence.
        bound: What was computed, such as ``"exact"`` or ``"ELBO"``; of a bound of more frames
            than those that are scored, which of its terms.
        seed: Seed of the dequantization and of the samples.
        versions: Software versions, from :func:`software_versions`.
        windows: Which crops of each sequence are scored: ``"one"``, ``"all"`` that do not
            overlap, or the ``"whole"`` sequence (``scored_frames`` are then those of the longest);
            ``None`` in results of earlier releases, which do not say.

    Raises:
        ValueError: A field is out of range, or ``data`` holds something else than JSON
            values.

    Example:
        >>> protocol = Protocol(
        ...     data={"name": "moving_digits"}, split="test", context_frames=3,
        ...     scored_frames=10, noise="gaussian", num_samples=1, bound="ELBO", seed=0,
        ...     versions={},
        ... )
        >>> Protocol.from_json(protocol.to_json()) == protocol
        True
    """

    data: dict[str, object]
    split: str
    context_frames: int
    scored_frames: int
    noise: str  # the dequantization's name; stored results keep this key
    num_samples: int
    bound: str
    seed: int
    versions: dict[str, str]
    windows: Literal["all", "one", "whole"] | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}: expected one of {', '.join(SPLITS)}")
        check_minimum(
            context_frames=(self.context_frames, 0),
            scored_frames=(self.scored_frames, 1),
            num_samples=(self.num_samples, 1),
            seed=(self.seed, 0),
        )
        dequantization(self.noise)
        if self.windows not in ("all", "one", "whole", None):
            raise ValueError(f"windows must be 'all', 'one' or 'whole', got {self.windows!r}")
        try:  # as it will be read back, so that a stored protocol equals the live one
            data = json.loads(json.dumps(self.data, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"data must hold JSON values only: {error}") from error
        object.__setattr__(self, "data", data)

    def to_json(self) -> str:
        """Write the protocol as JSON text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Protocol":
        """Read the protocol that :meth:`to_json` wrote.

        Raises:
            ValueError: The text is no JSON, or its fields are not a protocol's.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            values = None
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(values, Mapping) or not needed <= set(values) <= names:
            raise ValueError(f"expected a protocol with the fields {', '.join(sorted(names))}")
        return cls(**values)


@renamed_keyword("noise", "dequantization")
def check_ceiling(
    nats_per_dim: float,
    *,
    num_values: int,
    dequantization: Dequantization,
) -> None:
    r"""Check that a result does not exceed what any model can reach.

    The density q of the dequantization gives :math:`E[p(x) / q(x)] \le 1` for every density p,
    and for unbiased estimates of it, so :math:`\log p` exceeds :math:`\log q` by 20 nats with
    probability below :math:`e^{-20}`; :math:`\log q` itself fluctuates by
    ``dequantization.spread`` per value.

    Args:
        nats_per_dim: The result, from :meth:`Dequantization.to_nats`.
        num_values: Number of values it is the mean of, each dequantized by itself.
        dequantization: Of x.

    Raises:
        ValueError: The result is NaN, or above the ceiling by more than five standard
            errors.

    Example:
        >>> check_ceiling(-1.3, dequantization=dequantization("gaussian"), num_values=10**6)
        Traceback (most recent call last):
        ValueError: -1.3000 nats/dim is above the negative entropy of the ...: a bug
    """
    if math.isnan(nats_per_dim):
        raise ValueError("nats/dim is NaN: a bug or a diverged model")
    if math.isinf(dequantization.ceiling) and nats_per_dim == math.inf:
        raise ValueError("nats/dim is infinite: the data repeat a value exactly, or a bug")
    tolerance = 5 * dequantization.spread / math.sqrt(num_values) + 20 / num_values
    if nats_per_dim > dequantization.ceiling + tolerance:
        raise ValueError(
            f"{nats_per_dim:.4f} nats/dim is above the negative entropy of the "
            f"dequantization, {dequantization.ceiling:.4f} ({dequantization.name}): a bug"
        )
