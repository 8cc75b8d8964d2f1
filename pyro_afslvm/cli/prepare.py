"""Preparing of data with a progress bar, and the text that says how it went."""

from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.videos.prepared import Prepared, PreparedSource
from pyro_afslvm.utils.progress import counting_bar


def prepare_source(source: SequenceSource) -> Prepared | None:
    """Decode what is not in the store yet; ``None`` for a source that needs no preparing."""
    if not isinstance(source, PreparedSource):
        return None
    with counting_bar(f"preparing {source.name:<15}") as progress:
        return source.prepare(progress)


def prepared_text(prepared: Prepared) -> str:
    """Say what was prepared, where it lies, and what was left out."""
    frames = sum(file.frames.shape[0] for file in prepared.files)
    size = sum(file.frames.nbytes for file in prepared.files)
    lines = [
        f"prepared {len(prepared.files)} files, {frames} frames, {size / 1e6:.1f} MB, "
        f"in {prepared.folder}"
    ]
    if prepared.left_out:
        lines.append(f"left out {len(prepared.left_out)} (train with --data.skip_bad true):")
    lines.extend(f"  {line}" for line in prepared.left_out)
    lines.extend(f"note: {line}" for line in prepared.notes)
    return "\n".join(lines)
