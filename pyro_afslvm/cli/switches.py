"""Switches that may be given alone or with a value, whichever the parser wants."""

from collections.abc import Collection, Sequence

_VALUES = {"true": True, "yes": True, "false": False, "no": False}


def with_alike_switches(
    arguments: Sequence[str], *, bare: Collection[str], valued: Collection[str]
) -> list[str]:
    """Let ``--resume true`` and ``--recompute`` mean what they say.

    Args:
        arguments: of a program.
        bare: options that the parser takes without a value.
        valued: options for which it wants ``true`` or ``false``.

    Example:
        >>> kinds = {"bare": {"--resume"}, "valued": {"--recompute"}}
        >>> with_alike_switches(["--resume", "true", "--recompute", "--steps", "3"], **kinds)
        ['--resume', '--recompute', 'true', '--steps', '3']
        >>> with_alike_switches(["--resume=false", "--recompute"], **kinds)
        ['--recompute', 'true']
    """
    written, given = list[str](), list(arguments)
    while given:
        name, equals, value = given.pop(0).partition("=")
        follows = value if equals else (given[0] if given else "")
        switch = _VALUES.get(follows.lower())
        if name in bare and switch is not None:
            written += [name] * switch
            given = given if equals else given[1:]
        elif name in valued and not equals and (not follows or follows.startswith("-")):
            written += [name, "true"]
        else:
            written.append(name + equals + value)
    return written
