"""Metrics of a trained model on a data set, with the protocol they were got under."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pyro_afslvm.data import (
    Dequantization,
    EmptySplitError,
    Protocol,
    SequenceSource,
    ShortSplitError,
    Split,
    choose_dequantization,
    software_versions,
)
from pyro_afslvm.data.dequantize import BinaryPixels, UniformDequantization
from pyro_afslvm.data.sequences import Windows, parted
from pyro_afslvm.evaluation.beside import simple_models
from pyro_afslvm.evaluation.bounds import Likelihood, Progress, is_conditional, likelihood
from pyro_afslvm.evaluation.correlation import Correlations, frame_correlations
from pyro_afslvm.evaluation.correlation import correlations as correlations  # its home before
from pyro_afslvm.evaluation.crops import Crops, cut, training_crops
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.runs.trained import TrainedPair
from pyro_afslvm.utils.distributed import ALONE, Processes

_BITS = (
    "bits_per_dim",
    "bits_per_dim_error",
    "bits_per_dim_floor",
    "whole_bits_per_dim",
    "whole_bits_per_dim_error",
    "protocol_bits",
)


def evaluate(
    pair: Pair,
    source: SequenceSource,
    *,
    split: Split = "test",
    scored_frames: int = 10,
    num_samples: int = 1,
    seed: int = 0,
    limit: int | None = None,
    windows: Windows | None = None,
    progress: Progress = lambda done, total: None,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Compute all metrics of a model on one split.

    Args:
        pair: model and guide; those of a run take the frames as in its training.
        source: where sequences come from.
        split: of the data.
        scored_frames: the last frames of each sequence, which are reported.
        num_samples: samples of the guide.
        seed: of dequantization and samples.
        limit: use only so many sequences.
        windows: ``"one"`` crop of each stored sequence, its first, ``"all"`` that do not
            overlap, or the ``"whole"`` of it, where each frame counts once, in sequences of any
            lengths; by default as the data have it.
        progress: called with sequences done and their number.
        processes: that share the work and all call this; correlations go to the first only.

    Returns:
        as JSON values, for 8-bit data nats/dim under the paper's protocol and bits/dim under
        the discrete one, for real numbers nats/dim in their own units, with standard errors
        over independent units; where these are but the last terms of a bound of more frames,
        that bound too, ``whole_...``; the values ``per_sequence``; temporal correlations, the
        number of parameters, and the protocols; for binary images nats/image too; ``baselines``,
        nats/dim of a copy of the last frame, and of other simple models of series.

    Raises:
        ValueError: for data that have no more than one crop of each sequence, if all are asked
            for.
    """
    if isinstance(pair, TrainedPair):  # its frames are standardized as they were in training
        pair.run.take(source)
    crops = cut(
        pair.model, source, split, scored_frames=scored_frames, limit=limit, windows=windows
    )
    shared: dict[str, Any] = {"scored_frames": crops.scored, "seed": seed, "processes": processes}
    dequantizations = _reported(source)
    results: dict[str, Any] = dict.fromkeys(_BITS)  # real numbers have none
    per_sequence: dict[str, list[float]] = {}
    for k, dequantization in enumerate(dequantizations):
        found = likelihood(
            pair,
            crops.data,
            dequantization=dequantization,
            num_samples=num_samples,
            batch_size=crops.batch_size,
            progress=_share_of(progress, k, len(dequantizations)),
            **shared,
        )
        protocol = _protocol(pair, source, crops, dequantization.name, num_samples, seed)
        results |= _metrics(found, dequantization, protocol)
        results |= _image_metrics(found, dequantization, math.prod(source.frame_shape))
        name = _name(dequantization)
        per_sequence[name] = [dequantization.to_report(float(v)) for v in found.per_sequence]
        if isinstance(dequantization, UniformDequantization):
            results["bits_per_dim_floor"] = _floor(dequantization, crops)
    results |= {
        "num_sequences": len(crops.data),
        "num_left_out": crops.left_out,
        "num_units": found.num_units,
        "unit": source.unit,
        "whole_frames": None if found.whole is None else crops.given + crops.scored - crops.context,
        "per_sequence": per_sequence | _unit_numbers(found),
    }
    results |= _correlations(pair, source, crops, dequantizations[0], **shared)
    results["baselines"] = _simple_models(source, crops, dequantizations[0])
    return results | {"parameters": pair.num_parameters}


def _simple_models(
    source: SequenceSource, crops: Crops, dequantization: Dequantization
) -> dict[str, float]:
    """Give what a copy of the last frame reaches on the same crops, and others for series."""
    if crops.windows == "whole":  # of lengths of their own
        return {}
    try:
        return simple_models(
            source, crops.data, dequantization=dequantization, scored_frames=crops.scored
        )
    except (EmptySplitError, ShortSplitError):  # nothing to fit them to
        return {}


def _share_of(progress: Progress, part: int, parts: int) -> Progress:
    """Report the progress of one of several equal parts as that of the whole."""
    return lambda done, total: progress(part * total + done, parts * total)


def _reported(source: SequenceSource) -> list[Dequantization]:
    """Choose the protocols: both for 8-bit data, real numbers as they are."""
    needed = choose_dequantization(None, source)
    discrete = [choose_dequantization("uniform", source)] if needed.whole_numbers else []
    return [needed, *discrete]


def _number(value: float | None) -> float | None:
    """Give ``None`` for NaN, which JSON does not know."""
    return None if value is None or math.isnan(value) else value


def _name(dequantization: Dequantization) -> str:
    return "bits_per_dim" if dequantization.name == "uniform" else "nats_per_dim"


def _metrics(
    found: Likelihood, dequantization: Dequantization, protocol: dict[str, Any]
) -> dict[str, Any]:
    """Give the metrics of one protocol by their names in results."""
    name, whole = _name(dequantization), found.whole
    nats = name == "nats_per_dim"
    factor = 1.0 if nats else 1 / math.log(2)
    results = {
        name: dequantization.to_report(found.mean),
        f"{name}_error": _number(factor * found.error),
        f"whole_{name}": None if whole is None else dequantization.to_report(whole.mean),
        f"whole_{name}_error": None if whole is None else _number(factor * whole.error),
        "protocol" if nats else "protocol_bits": protocol,
    }
    if nats:
        results["nats_per_dim_unit"] = _in_units_of_the_model(found.mean, dequantization)
    return results


def _in_units_of_the_model(mean: float, dequantization: Dequantization) -> float | None:
    """Give the value in the model's units, where the data have others."""
    return None if dequantization.to_nats(0.0) == 0.0 else mean


def _image_metrics(found: Likelihood, dequantization: Dequantization, dims: int) -> dict[str, Any]:
    """Give the log-probability of whole images, if they are binary."""
    if dequantization.data != BinaryPixels.data:
        return {}
    error = _number(dims * found.error)
    return {"nats_per_image": dims * found.mean, "nats_per_image_error": error}


def _unit_numbers(found: Likelihood) -> dict[str, list[int]]:
    """Give the unit of each sequence, and how many frames of it count where these differ."""
    units = np.arange(len(found.per_sequence)) if found.units is None else found.units
    weights = {} if found.frames is None else {"frames": [*found.frames.tolist()]}
    return {"unit": [*units.tolist()]} | weights


def _floor(dequantization: UniformDequantization, crops: Crops) -> float:
    """The floor of models of Gaussian noise, on the pixels that are scored."""
    # frames from the first that is scored on, whatever a sequence's length
    scored = [x[crops.given :] for x, _ in map(parted, _each(crops.data))]
    floors = [dequantization.floor_of_gaussian(x) for x in scored]
    return float(np.average(floors, weights=[len(x) for x in scored]))


def _each(data: Any) -> Iterator[Any]:
    return (data[i] for i in range(len(data)))


def _correlations(
    pair: Pair,
    source: SequenceSource,
    crops: Crops,
    dequantization: Dequantization,
    **shared: Any,
) -> dict[str, float | None]:
    """Give the correlations of the split, and those of as many training sequences (Table 4)."""
    none = Correlations(None, None)
    held = train = none
    if crops.scored > 1:
        held = frame_correlations(pair, crops.data, dequantization=dequantization, **shared)
        training = training_crops(pair.model, source, crops)
        if training is not None:
            train = frame_correlations(pair, training, dequantization=dequantization, **shared)
    results: dict[str, float | None] = {}
    for of in ("x", "y"):
        found, in_training = getattr(held, of), getattr(train, of)
        results |= {
            f"correlation_{of}": found and _number(found.signed),
            f"absolute_correlation_{of}": found and _number(found.absolute),
            f"moving_correlation_{of}": found and _number(found.moving),
            f"train_correlation_{of}": in_training and _number(in_training.signed),
        }
    return results | {"absolute_correlation_of_noise": held.x and held.x.absolute_of_noise}


def _protocol(
    pair: Pair,
    source: SequenceSource,
    crops: Crops,
    dequantization: str,
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Give the protocol of a result as JSON values."""
    protocol = Protocol(
        data=described(source),
        split=crops.split,
        context_frames=crops.given,
        scored_frames=crops.scored,
        noise=dequantization,
        num_samples=num_samples if pair.guide is not None else 1,
        bound=_bound(pair, crops),
        seed=seed,
        versions=software_versions(),
        windows=crops.windows,
    )
    return dict(json.loads(protocol.to_json()))


def described(source: SequenceSource) -> dict[str, object]:
    """Describe the data of a result, and the units of its nats where the model has others."""
    if source.standardization is None or not source.of_data:
        return source.describe()
    return source.describe() | {"likelihood_units": "as stored"}


def _bound(pair: Pair, crops: Crops) -> str:
    if pair.guide is None:
        return "exact"
    if not is_conditional(pair, crops.given + crops.scored, crops.scored):
        return "ELBO"
    return f"last {crops.scored} of {crops.given + crops.scored - crops.context} terms of an ELBO"
