"""Errors of others in one line."""


def reason(error: BaseException) -> str:
    """Say what an error says, on its first line; its kind where it says nothing.

    >>> reason(ValueError("no\\nmore")), reason(EOFError())
    ('no', 'EOFError')
    """
    return (str(error) or type(error).__name__).splitlines()[0]


def named_reason(error: BaseException) -> str:
    """Say of which kind an error is, and what it says on its first line.

    >>> named_reason(ValueError("no\\nmore"))
    'ValueError: no'
    """
    return f"{type(error).__name__}: {error}".splitlines()[0]
