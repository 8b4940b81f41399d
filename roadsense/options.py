"""The options of verbs, read from a command line; every mistake is one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tyro

from roadsense.errors import EXIT_OK, UsageError, nearest

_Asked = TypeVar("_Asked")


def parse(options: type[_Asked], verb: str, arguments: list[str], **kwargs: Any) -> _Asked:
    """The options of a verb.

    Raises:
        UsageError: an option is unknown, missing, or has an impossible value; one sentence.
    """
    known = [f"--{name}" for name in _flags(options)]
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag.replace("--no-", "--", 1) not in (*known, "--help"):
            raise UsageError(f"{verb} has no option {argument!r}; {nearest(flag, known)}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, args=arguments, prog=f"roadsense {verb}", **kwargs)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        told = _told(said.getvalue()).removeprefix("Error parsing ").rstrip(".")
        raise UsageError(f"{verb}: {told}; `roadsense {verb} --help` shows all options.") from None


def subset(kind: type[_Asked], asked: Any) -> _Asked:
    """The part of a verb's options that is a configuration of its own."""
    options: Any = kind
    return kind(**{one.name: getattr(asked, one.name) for one in dataclasses.fields(options)})


def _told(frame: str) -> str:
    """What stands between the title and the next rule of a frame that tyro drew, on one line.

    Its edges are lines, | and -, or blanks, as the terminal allows.
    """
    lines = [line.strip("│|╭╮╰╯+ ") for line in frame.splitlines()]
    lines = [line for line in lines if line][1:]
    text = itertools.dropwhile(_is_rule, lines)
    return " ".join(itertools.takewhile(lambda line: not _is_rule(line), text))


def _is_rule(line: str) -> bool:
    return not line.strip("─-")


def _flags(options: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(options):
        nested: Any = field.default_factory
        if isinstance(nested, type) and dataclasses.is_dataclass(nested):
            yield from _flags(nested, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}".replace("_", "-")


def parted(options: Any, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments that are flags of ``options``, with their values, wherever they stand; and all others."""
    fields = {one.name: one for one in dataclasses.fields(options)}
    own: list[str] = []
    others: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, equals, _ = word.partition("=")
        field = fields.get(name.removeprefix("--").replace("-", "_")) if name.startswith("--") else None
        if field is None:
            others.append(word)
            continue
        own.append(word)
        if not equals and field.type != "bool":
            own += left[:1]
            del left[:1]
    return own, others


def part_of(verb: str, parts: dict[str, Callable[[list[str]], int | None]], arguments: list[str]) -> int | None:
    """Runs one of the parts that a verb consists of."""
    asked = arguments[0] if arguments else ""
    if asked in ("-h", "--help"):
        shown = "\n".join(f"  {name:7} {part.__doc__}" for name, part in parts.items())
        print(
            f"usage: roadsense {verb} {{{','.join(parts)}}} …; --help after one of them shows its options.\n\n{shown}"
        )
        return EXIT_OK
    if asked not in parts:
        raise UsageError(f"{verb} needs to be told what to do, not {asked!r}; {nearest(asked, parts)}")
    return parts[asked](arguments[1:])
