"""A page of text and a contact sheet that say whether a flow would help on some data."""

import math
from pathlib import Path

import numpy as np

from pyro_afslvm.cli.prepare import prepare_source, prepared_text
from pyro_afslvm.data.inspection import Inspection, Stretch, inspect_source
from pyro_afslvm.data.outliers import Outlier
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import SPLITS
from pyro_afslvm.utils.files import write_atomically
from pyro_afslvm.utils.tables import table_text

_COPY_LOSS = 0.5 * math.log(2)  # the last frame has noise too: its variance comes twice
_CLEAR, _NEAR = 0.1, 0.1  # nats/dim
_ROWS = {"train": 3, "validation": 2, "test": 2}
_FAR = 10.0  # standard deviations
_VECTORS = 200  # frames of a line


def inspect_data(source: SequenceSource, sheet: Path, *, num_frames: int, limit: int) -> str:
    """Read a sample, write its contact sheet, and say in a page what was found.

    Args:
        source: where sequences come from; prepared here if need be.
        sheet: the PNG file to write.
        num_frames: frames of a crop.
        limit: crops to read from each split, at most.
    """
    prepared = prepare_source(source)
    found = inspect_source(source, num_frames=num_frames, limit=limit)
    write_sheet(found, sheet)
    text = inspection_text(found)
    about = [prepared_text(prepared), ""] if prepared else []
    return "\n".join([*about, text, "", f"wrote {sheet}"])


def write_sheet(found: Inspection, path: Path) -> None:
    """Draw a few sequences of each split into a PNG file."""
    from pyro_afslvm.plots import to_png
    from pyro_afslvm.plots.contact import contact_sheet

    frames = found.num_frames
    if len(found.source.frame_shape) == 1:
        shortest = [s.lengths.max() for s in found.stretches if s.read and s.lengths is not None]
        frames = min([_VECTORS, *map(int, shortest)])
    rows, kept = {}, found.source.standardization
    for stretch in found.stretches:
        if not stretch.read:
            continue
        data = found.source.dataset(stretch.split, num_frames=frames)
        count = min(_ROWS[stretch.split], len(data))
        for i in np.linspace(0, len(data) - 1, count).round().astype(int):
            shown = data.frames(int(i))
            rows[f"{stretch.split} {i + 1}"] = kept.restored(shown) if kept else shown
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_png(contact_sheet(rows, low=found.low, high=found.high)))


def inspection_text(found: Inspection) -> str:
    """Write the page: the data, their splits, and whether a flow would help."""
    return "\n".join(
        [
            *_data(found),
            "",
            *_splits(found),
            "",
            *_baselines(found),
            "",
            *_advice(found),
        ]
    )


_LONG = ("name", "content", "ranges")  # of a description: hashes say nothing to a reader


def _data(found: Inspection) -> list[str]:
    source, shape = found.source, found.source.frame_shape
    kind = "frames (channel, height, width)" if len(shape) == 3 else "vectors (feature)"
    digits = "0f" if found.dequantization.whole_numbers else "4g"
    about = ", ".join(f"{k} {v}" for k, v in source.describe().items() if k not in _LONG)
    return [
        f"{type(source).__name__}: {about}",
        f"{kind}: {shape}, {found.dtype}, values {found.low:.{digits}} to {found.high:.{digits}}",
        f"constant in the training crops: {found.constant} of {math.prod(shape)} entries of a "
        "frame",
    ]


def _splits(found: Inspection) -> list[str]:
    head = ["split", "sequences", "frames: min, median, max", f"crops of {found.num_frames}"]
    table = table_text(
        [_row(stretch) for stretch in found.stretches],
        head=[*head, "read", "corr x", ""],
        left=(0, len(head) + 2),
    )
    after = ", after dequantization" if found.dequantization.whole_numbers else ""
    return [table, f"corr x: temporal correlation at lag 1{after}"]


def _row(stretch: Stretch) -> list[str]:
    lengths = stretch.lengths
    count, spread = ("", "") if stretch.problem else ("generated", "any")
    if lengths is not None:
        count = str(len(lengths))
        spread = f"{lengths.min()}, {np.median(lengths):g}, {lengths.max()}"
    if stretch.problem:
        return [stretch.split, count, spread, "", "", "", stretch.problem]
    correlation = "" if math.isnan(stretch.correlation) else f"{stretch.correlation:.2f}"
    return [stretch.split, count, spread, str(stretch.crops), str(stretch.read), correlation]


def _baselines(found: Inspection) -> list[str]:
    dequantization, fitted = found.dequantization, found.baselines
    unit = "nats/dim, 8-bit units" if dequantization.whole_numbers else dequantization.unit
    rows = [
        (fitted.static, "fixed picture: a Normal with mean and scale of each entry"),
        (fitted.copy, "copy last frame, one scale a channel (the tables' baseline)"),
        (fitted.copy_local, "copy last frame, a scale of each entry"),
    ]
    if dequantization.whole_numbers:
        copying = f"{dequantization.ceiling - _COPY_LOSS:.3f}"
        rows.append(
            (dequantization.ceiling, f"ceiling: no model can exceed it (copying: {copying})")
        )
    return [
        "Would a flow help here?",
        f"fitted on train, expected on {found.scored_on}, {unit}, higher is better:",
        table_text([["", f"{value:.3f}", text] for value, text in rows], left=(2,)),
    ]


def _advice(found: Inspection) -> list[str]:
    best = max(found.baselines.copy, found.baselines.copy_local)
    gain = best - found.baselines.static
    lines = [
        f"The last frame explains {gain:+.2f} nats/dim beside a fixed picture. {_verdict(gain)}"
    ]
    dequantization = found.dequantization
    if dequantization.whole_numbers and best > dequantization.ceiling - _COPY_LOSS - _NEAR:
        lines.append("Frames hardly change: copying is close to the best that copying can be.")
    small = "small/vector_" if len(found.source.frame_shape) == 1 else "small/"
    lines.append(f"To see it: train models/{small}slvm_af1.py and a model without a flow, compare.")
    lines += [f"Note: {note}" for note in _notes(found)]
    return lines


def _verdict(gain: float) -> str:
    if gain > _CLEAR:
        return "Yes: a flow across time takes that over from the latent variables."
    if gain > -_CLEAR:
        return "Perhaps: a flow must do more than copy, such as follow motion."
    return "Not by copying: a flow must follow motion to be of use."


def _notes(found: Inspection) -> list[str]:
    notes = []
    if not found.dequantization.whole_numbers and found.farthest.distance > _FAR:
        notes.append(_outlier(found.farthest))
    by_name = {stretch.split: stretch for stretch in found.stretches}
    for split in SPLITS[1:]:
        if problem := by_name[split].problem:
            notes.append(f"the {split} split is {problem}.")
    if found.scored_on == "train":
        notes.append("nothing is held out: these values are of the training crops.")
    elif (read := by_name[found.scored_on].read) < 10:
        notes.append(f"{read} {found.scored_on} crops are few: these values are rough.")
    return notes


def _outlier(value: Outlier) -> str:
    place = f"({value.value:g}, in frame {value.frame} of sequence {value.sequence}, from 0 on) "
    return (
        f"a value {place if value.sequence >= 0 else ''}is {value.distance:.0f} standard "
        "deviations from the mean of its channel: outliers cost a Gaussian their square; a mixture "
        "or StudentTNoise bears them."
    )
