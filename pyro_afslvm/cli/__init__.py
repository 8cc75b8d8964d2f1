"""The ``afslvm`` command."""
