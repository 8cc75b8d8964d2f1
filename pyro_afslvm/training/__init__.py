"""Training: one loop, in notebooks and on the command line."""
