"""Patterns for paths in a guest and for arguments of a program.

`*` and `?` match anything but a slash, `**` slashes too, `[a-c]` one of these characters. They are strict where a trick
could hide: what a wildcard matches never climbs (`..`), and where a pattern begins with a wildcard, it never matches an
option (`-x`).
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

REST: Final = "..."
"""At the end of a program's pattern: any more arguments."""

_vmid = re.compile(r"[1-9][0-9]*")
_unnamed = "\uffff" * 64
_STANDS_FOR: Final = {"?": ("\uffff",), "*": ("", _unnamed), "**": ("", f"/{_unnamed}")}
MOST_STARS: Final = 8
"""In a pattern that is compared with others: each of them doubles the work."""

_wildcard = re.compile(r"\*\*|\*|\?|\[(?P<not>!?)(?P<set>[^\]/]+)\]")
_climbs = re.compile(r"(?:^|[/\\=:,])\.\.(?:[/\\]|$)")
_odd = re.compile(r"//|(?:^|/)\.{1,2}(?:/|$)")


def _regex(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression.

    Raises:
        ValueError: it is not well formed.
    """
    parts, end = [], 0
    for found in _wildcard.finditer(pattern):
        parts += [_literal(pattern[end : found.start()], pattern), _regex_for(found)]
        end = found.end()
    parts.append(_literal(pattern[end:], pattern))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise ValueError(f"'{pattern}' is no pattern: {error}") from None


def _regex_for(found: re.Match[str]) -> str:
    if found["set"]:
        escaped = re.sub(r"([\\\[&~|^])", r"\\\1", found["set"])
        return f"[{'^/' if found['not'] else ''}{escaped}]"
    return {"**": ".*", "*": "[^/]*", "?": "[^/]"}[found[0]]


def _literal(text: str, pattern: str) -> str:
    if "[" in text:
        raise ValueError(f"'{pattern}' is no pattern: '[' without ']'")
    return re.escape(text)


@dataclass(frozen=True)
class PathPattern:
    """Paths in a guest; one that ends with a slash stands for everything below it."""

    text: str

    def __post_init__(self) -> None:
        if not self.text.startswith("/") or _odd.search(self.text) or "\0" in self.text:
            raise ValueError(f"'{self.text}' can never match: paths are absolute, without '.', '..' and double slashes")
        _ = self._regex

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return _regex(self.text + "**" if self.text.endswith("/") else self.text)

    def matches(self, path: str) -> bool:
        """True if this path, in which no link is left, is one of them."""
        return self._regex.fullmatch(path) is not None and not _odd.search(path)


@dataclass(frozen=True)
class ProgramPattern:
    """A program with its arguments, one pattern each; `...` at the end stands for any more.

    Attributes:
        argv: the patterns.
        input: whether it may be given standard input.
        env: the environment variables that it may be given.
    """

    argv: tuple[str, ...]
    input: bool = False
    env: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self._literal_parts or not self.argv[0]:
            raise ValueError("a program's pattern names a program")
        if REST in self._literal_parts:
            raise ValueError(f"'{REST}' stands at the end of {list(self.argv)}, or nowhere")
        _ = self._regex
        for text in self.argv:
            if "\0" in text or (_wildcard.search(text) and _climbs.search(text)):
                raise ValueError(f"'{text}' can never match: no argument has a NUL, and no wildcard stands beside '..'")
        for name in self.env:
            if not name or "=" in name:
                raise ValueError(f"'{name}' can never match: it is no name of an environment variable")

    @property
    def _literal_parts(self) -> tuple[str, ...]:
        return self.argv[:-1] if self.argv and self.argv[-1] == REST else self.argv

    @cached_property
    def _regex(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_regex, self._literal_parts))

    @property
    def has_wildcard(self) -> bool:
        """True if its arguments are not all fixed."""
        return self.has_rest or any(map(_wildcard.search, self.argv[1:]))

    @property
    def has_wildcard_program(self) -> bool:
        """True if it stands for more than one program."""
        return _wildcard.search(self.argv[0]) is not None

    @property
    def has_rest(self) -> bool:
        """True if any more arguments may follow."""
        return self.argv != self._literal_parts

    @property
    def has_path_wildcard(self) -> bool:
        """True if one of its arguments stands for more than one path."""
        return any("/" in text and _wildcard.search(text) for text in self.argv[1:])

    def matches(self, argv: list[str]) -> bool:
        """True if this argument list is one of them."""
        if len(argv) != len(self._literal_parts) and not (
            len(argv) > len(self._literal_parts) and self.argv[-1] == REST
        ):
            return False
        return all(map(_fits, self._literal_parts, self._regex, argv))

    def __str__(self) -> str:
        given = [*(["standard input"] if self.input else []), *self.env]
        return " ".join(self.argv) + (f" (may be given {', '.join(given)})" if given else "")


def _fits(pattern: str, compiled: re.Pattern[str], argument: str) -> bool:
    if pattern == argument and not _wildcard.search(pattern):
        return True
    tricky = _climbs.search(argument) or (argument.startswith("-") and _wildcard.match(pattern))
    return compiled.fullmatch(argument) is not None and not tricky


def _samples(pattern: str) -> Iterator[str]:
    """Names that it matches, with nothing, and with much of what no other pattern names, for each wildcard."""
    texts = [_STANDS_FOR.get(part, (part,)) for part in re.split(r"(\*\*|\*|\?)", pattern)]
    return map("".join, itertools.product(*texts))


@dataclass(frozen=True)
class GuestPattern:
    """Guests by the names of their VMs; a number means an id and no name."""

    text: str

    def __post_init__(self) -> None:
        if not self.text or (self.text.isdigit() and not _vmid.fullmatch(self.text)):
            raise ValueError(f"'{self.text}' can never match: it is neither a name nor an id")
        _ = self._regex

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return _regex(self.text)

    def covers(self, other: "GuestPattern") -> bool:
        """True if it surely matches all that the other one does.

        Patterns that both have sets (`[a-c]`) are not compared so closely.
        """
        if self.text in ("*", "**", other.text):
            return True
        if self.text.isdigit() or other.text.isdigit() or "[" in other.text or other.text.count("*") > MOST_STARS:
            return False
        if not _wildcard.search(other.text):
            return self.matches(0, other.text)
        return "[" not in self.text and all(self.matches(0, name) for name in _samples(other.text))

    def matches(self, vmid: int, name: str) -> bool:
        """True if this VM is one of them."""
        if self.text.isdigit():
            return self.text == str(vmid)
        return self.text == "*" or self._regex.fullmatch(name) is not None
