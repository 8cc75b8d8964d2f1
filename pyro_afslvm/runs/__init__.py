"""Run folders: recipe, settings, checkpoints."""
