"""Names of dimensions."""

FRAME_DIMS = {1: ("feature",), 3: ("channel", "height", "width")}  # by rank
