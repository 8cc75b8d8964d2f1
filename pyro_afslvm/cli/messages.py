"""Errors of options in the words of a command line, without the types of its parser."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
_VALUE = re.compile(r"(?:Given value|Got value): (.*?)(?:$| - |\n)", re.DOTALL)
_NESTED = re.compile(r"NestedArg\(key='([\w.]+)'")


def plain(
    message: str, *, options: Iterable[str] = (), within: str = "", commands: Iterable[str] = ()
) -> str:
    """Say what is wrong with an option as its user typed it, in one line.

    Args:
        message: of the parser.
        options: names of the options there are, to guess a misspelt one.
        within: the option whose settings were parsed, such as ``data``.
        commands: names of the commands there are, of which the parser lists only a few.

    Example:
        >>> plain('Parser key "steps": Expected a <class \\'int\\'>. Got value: 1e5')
        '--steps: expected a whole number, got 1e5: write 100000'
    """
    prefix = f"{within}." if within else ""
    if found := re.match(r'Parser key "([\w.]+)":\s*(.*)', message, re.DOTALL):
        return _of_value(prefix + found[1], found[2])
    if found := re.match(r"the following arguments are required: (.*)", message, re.DOTALL):
        return _missing(found[1], prefix, {*options})
    refused = (
        r"(?:Option '([^']+)' is not accepted|Subcommand '\w+' does not accept option '([^']+)')"
    )
    if found := re.match(refused, message):
        name = found[1] or found[2]
        return _unknown(f"--{prefix}{name}", _typed(prefix, options))
    if found := re.match(r"[Uu]nrecognized arguments: (.*)", message, re.DOTALL):
        return _unknown(found[1].split()[0], _typed(prefix, options), found[1])
    if found := re.match(r'expected "[\w.]*" to be one of \{(.*?)\}, but it was not', message):
        names = found[1].split(",")
        names = [*commands] if names[-1].strip() == "..." else names
        return f"expected one of the commands {', '.join(names)}"
    if found := re.match(r"argument \w+: invalid choice: '([^']*)' \(choose from (.*)\)", message):
        return _no_command(found[1], re.findall(r"[\w-]+", found[2]))
    return _one_line(message)


def _no_command(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return f"there is no command {given}, but {', '.join(known)}{guess}"


def _of_value(name: str, problem: str) -> str:
    """What an option expects, and what it got."""
    if nested := _NESTED.search(problem):
        return (
            f"--{name}.{nested[1]} is a setting of what --{name} names, which is not given: add "
            f"--{name} NAME"
        )
    wanted, given = _expected(problem), _VALUE.search(problem)
    if not wanted or given is None:
        return f"--{name}: {_one_line(problem)}"
    value = given[1].strip()
    return f"--{name}: expected {wanted}, got {value}{_whole(wanted, value)}"


def _expected(problem: str) -> str:
    """The types a problem names, in words; nothing where one is not known."""
    found: list[str] = []
    for kind in re.findall(r"Expected a (<class '[\w.]+'>|typing\.Literal\[[^\]]*\])", problem):
        if choices := re.findall(r"'([^']*)'", kind) if kind.startswith("typing") else []:
            found += choices
        elif "NoneType" not in kind:
            name = re.sub(r"<class '(.*)'>", r"\1", kind)
            found += [_TYPES.get(name, "")]
    words = list(dict.fromkeys(found))
    return " or ".join(words) if all(words) else ""


def _whole(wanted: str, value: str) -> str:
    """How to write a whole number that was given as another number."""
    if wanted != _TYPES["int"] or not re.fullmatch(r"[+-]?\d+(\.\d*)?([eE]\+?\d{1,2})?", value):
        return ""
    return f": write {float(value):.0f}" if float(value).is_integer() else ""


def _missing(names: str, prefix: str, options: set[str]) -> str:
    """Required arguments, without the name of their command."""
    typed = []
    for name in re.split(r",\s*", names.strip()):
        last = name.rpartition(".")[-1]
        typed.append(f"--{prefix}{last}" if prefix or name in options else last)
    return f"the following arguments are required: {', '.join(typed)}"


def _unknown(name: str, options: Iterable[str], all_of_it: str = "") -> str:
    option = name.partition("=")[0]
    near = get_close_matches(option, list(options), n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    if not option.startswith("-"):
        return f"unrecognized arguments: {_one_line(all_of_it)}"
    return f"there is no option {option}{guess}"


def _typed(prefix: str, options: Iterable[str]) -> list[str]:
    """Options as they are typed, without the names of their commands."""
    names = [name.rpartition(".")[-1].lstrip("-") for name in options]
    return list(dict.fromkeys(f"--{prefix}{name}" for name in names if name not in ("h", "help")))


def _one_line(text: str) -> str:
    return " ".join(text.split())
