"""Whether a flow would help on some data, in one page of text and a contact sheet."""

import math
from pathlib import Path

import numpy as np

from pyro_afslvm.cli.prepare import prepare_source, prepared_text
from pyro_afslvm.data.inspection import Inspection, Stretch, inspect_source
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import SPLITS

_COPY_LOSS = 0.5 * math.log(2)  # the last frame has noise too: its variance comes twice
_CLEAR, _NEAR = 0.1, 0.1  # nats/dim
_ROWS = {"train": 3, "validation": 2, "test": 2}
_VECTORS = 200  # frames of a line


def inspect_data(source: SequenceSource, sheet: Path, *, num_frames: int, limit: int) -> str:
    """Read a sample, write its contact sheet, and say in a page what was found.

    Arguments:
        source: Where sequences come from; prepared here if need be.
        sheet: The PNG file to write.
        num_frames: Frames of a crop.
        limit: Crops to read from each split, at most.
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
    from pyro_afslvm.utils.files import write_atomically

    frames = found.num_frames
    if len(found.source.frame_shape) == 1:
        shortest = [s.lengths.max() for s in found.stretches if s.read and s.lengths is not None]
        frames = min([_VECTORS, *map(int, shortest)])
    rows = {}
    for stretch in found.stretches:
        if not stretch.read:
            continue
        data = found.source.dataset(stretch.split, num_frames=frames)
        count = min(_ROWS[stretch.split], len(data))
        for i in np.linspace(0, len(data) - 1, count).round().astype(int):
            rows[f"{stretch.split} {i + 1}"] = data.frames(int(i))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_png(contact_sheet(rows, low=found.low, high=found.high)))


def inspection_text(found: Inspection) -> str:
    """The page."""
    shape, source = found.source.frame_shape, found.source
    entries = math.prod(shape)
    whole = found.dequantization.whole_numbers
    kind = "frames (channel, height, width)" if len(shape) == 3 else "vectors (feature)"
    digits = "0f" if whole else "4g"
    about = ", ".join(f"{k} {v}" for k, v in source.describe().items() if k not in _LONG)
    return "\n".join(
        [
            f"{type(source).__name__}: {about}",
            f"{kind}: {shape}, {found.dtype}, values {found.low:.{digits}} to "
            f"{found.high:.{digits}}",
            f"constant in the training crops: {found.constant} of {entries} entries of a frame",
            "",
            *_table(found),
            "corr x: temporal correlation at lag 1" + (", after dequantization" if whole else ""),
            "",
            *_scores(found),
            "",
            *_advice(found),
        ]
    )


_LONG = ("name", "content", "ranges")  # of a description: hashes say nothing to a reader


def _table(found: Inspection) -> list[str]:
    head = f"{'split':<11}{'sequences':>10}  {'frames: min, median, max':>24}"
    head += f"{f'crops of {found.num_frames}':>13}{'read':>7}{'corr x':>8}"
    return [head, *(_row(stretch) for stretch in found.stretches)]


def _row(stretch: Stretch) -> str:
    lengths = stretch.lengths
    if lengths is None:
        count, spread = "generated", "any"
    else:
        count = str(len(lengths))
        spread = f"{lengths.min()}, {np.median(lengths):g}, {lengths.max()}"
    if stretch.problem:
        count, spread = (count, spread) if lengths is not None else ("", "")
        return f"{stretch.split:<11}{count:>10}  {spread:>24}  {stretch.problem}"
    correlation = "" if math.isnan(stretch.correlation) else f"{stretch.correlation:.2f}"
    return (
        f"{stretch.split:<11}{count:>10}  {spread:>24}{stretch.crops:>13}{stretch.read:>7}"
        f"{correlation:>8}"
    )


def _scores(found: Inspection) -> list[str]:
    dequantization, figures = found.dequantization, found.baselines
    unit = "nats/dim, 8-bit units" if dequantization.whole_numbers else dequantization.unit
    lines = [
        "Would a flow help here?",
        f"fitted on train, expected on {found.scored_on}, {unit}, higher is better:",
        f"  {figures.static:8.3f}  fixed picture: a Normal with mean and scale of each entry",
        f"  {figures.copy:8.3f}  copy last frame, one scale a channel (the tables' baseline)",
        f"  {figures.copy_local:8.3f}  copy last frame, a scale of each entry",
    ]
    if dequantization.whole_numbers:
        ceiling = dequantization.ceiling
        lines.append(
            f"  {ceiling:8.3f}  ceiling: no model can exceed it (copying: "
            f"{ceiling - _COPY_LOSS:.3f})"
        )
    return lines


def _advice(found: Inspection) -> list[str]:
    figures = found.baselines
    best = max(figures.copy, figures.copy_local)
    gain = best - figures.static
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
    by_name = {stretch.split: stretch for stretch in found.stretches}
    for split in SPLITS[1:]:
        if problem := by_name[split].problem:
            notes.append(f"the {split} split is {problem}.")
    if found.scored_on == "train":
        notes.append("nothing is held out: figures are of the training crops.")
    elif (read := by_name[found.scored_on].read) < 10:
        notes.append(f"{read} {found.scored_on} crops are few: these figures are rough.")
    return notes
