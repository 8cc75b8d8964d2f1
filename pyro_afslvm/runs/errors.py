"""Error of a run folder."""


class RunError(ValueError):
    """A run folder is missing, in the way, damaged, or of another version."""
