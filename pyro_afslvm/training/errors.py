"""Why training stops."""


class TrainingError(RuntimeError):
    """Training cannot go on."""
