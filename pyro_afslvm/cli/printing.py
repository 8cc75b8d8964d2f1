"""Printing that never fails, whatever the encoding of a terminal or of a file."""

import codecs
import sys
from io import TextIOWrapper

_PLAIN = {
    "─": "-",
    "━": "-",
    "–": "-",
    "−": "-",
    "×": "x",
    "±": "+-",
    "μ": "mu",
    "σ": "sigma",
    "²": "^2",
}


def _written(error: UnicodeError) -> tuple[str | bytes, int]:
    """Give what is written in place of characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    if "\udc80" <= sign <= "\udcff":  # a byte of a file's name
        return sign.encode("ascii", "surrogateescape"), error.start + 1
    return _PLAIN.get(sign, "?"), error.start + 1


codecs.register_error("afslvm", _written)


def print_always() -> None:
    """Let printing put ``?``, or what comes near, where an encoding lacks a character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors != "afslvm":
            stream.reconfigure(errors="afslvm")
