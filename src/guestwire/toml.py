"""Files in TOML, read strictly: what is unknown or wrong is refused with file, line, key, and what is allowed."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints

import msgspec

from guestwire.errors import ConfigurationError

T = TypeVar("T", bound=msgspec.Struct)

Refuse = Callable[[str, str, str], ConfigurationError]
"""Makes the error about a table (``, `server`, `vm[0]`), a key in it, and what is wrong with it."""


def read_toml(path: Path, shape: type[T]) -> tuple[T, Refuse]:
    """What the file says, and what refuses the parts of it that types can't judge.

    Args:
        path: the file.
        shape: a struct that forbids unknown fields; tables are structs, or lists of structs, in it.

    Raises:
        ConfigurationError: it can't be read, or says what `shape` does not know.
    """
    text = _read(path)
    try:
        found = msgspec.convert(_parse(path, text), shape)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(path, text, shape, str(error))) from error

    def refuse(table: str, key: str, what: str) -> ConfigurationError:
        return ConfigurationError(f"{path}, line {_line(text, table, key)}: '{key}': {what}")

    return found, refuse


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a file in TOML that you may read") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigurationError(f"{path}: nested too deeply") from error
    except ValueError as error:  # also a number or text that Python refuses to read
        end = f"at line {len(text.splitlines())}, the end"
        raise ConfigurationError(f"{path}: {str(error).replace('at end of document', end)}") from error


_at = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.DOTALL)
_field = re.compile(r"(unknown|required) field `([^`]+)`")
_item = re.compile(r"(?P<array>[^.\[]*)(?:\[\d+\])+")
_top = re.compile(r"(?P<name>[^.\[]*)(?:\[(?P<position>\d+)\])?(?:\.(?P<key>[^.\[]*))?")


def _explain(path: Path, text: str, shape: type[msgspec.Struct], problem: str) -> str:
    """What msgspec found wrong, with the line of the key they are about."""
    found = _at.fullmatch(problem)
    what, where = (found["what"], found["where"] or "") if found else (problem, "")
    if field := _field.search(what):
        table, key = where, field[2]
        known = ", ".join(field.name for field in msgspec.structs.fields(_table(shape, table)))
        what = f"unknown key '{key}'; known are {known}" if field[1] == "unknown" else f"the key '{key}' is missing"
        table, key = _written_in(table, key)
    else:
        table, _, key = where.rpartition(".")
        if item := _item.fullmatch(key):
            key = item["array"]
        what = f"'{key}': {_plain_words(what)}"
    return f"{path}, line {_line(text, table, key)}: {what}"


_KINDS: Final = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list",
    "object": "a table",
}  # fmt: skip


def _plain_words(what: str) -> str:
    """What is expected of a value, without msgspec's names: `int` >= 100 is a whole number of at least 100."""
    what = re.sub(r"`(\w+)`", lambda kind: _KINDS.get(kind[1], kind[0]), what)
    return what.replace("Expected", "expected").replace(" >= ", " of at least ").replace(" <= ", " of at most ")


def _table(shape: type[msgspec.Struct], name: str) -> type[msgspec.Struct]:
    """The struct of a table, `vm[0]` or `server`; the whole file's when it is none."""
    for part in name.split("."):
        shape = next(_structs(get_type_hints(shape).get(part.partition("[")[0])), shape)
    return shape


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for part in get_args(kind):
        yield from _structs(part)


def _written_in(table: str, key: str) -> tuple[str, str]:
    """What to look for in the file: an inline table, `guest[0].run[1]`, stands where the key does that holds it."""
    found = _top.match(table)
    return (table.partition(".")[0], found["key"]) if found and found["key"] else (table, key)


_header = re.compile(r"\s*\[{1,2}\s*([\w\"'-]+)")


def _line(text: str, table: str, key: str) -> int:
    """The line of `key` in the table `server`, `vm[0]`…; the table's own line when the key is not there, else the first."""
    found = _top.match(table)
    name, wanted, seen = (found["name"], int(found["position"] or 0), -1) if found else (table, 0, -1)
    inside, header = not table, 0
    for number, line in enumerate(text.splitlines(), 1):
        if found := _header.match(line):
            is_ours = found[1].strip("\"'") == (name or key)
            seen += is_ours
            inside = is_ours and seen == wanted
            header = number if inside else header
            if inside and not table:
                return number
        elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return header or _line_of_word(text, key) or 1


def _line_of_word(text: str, key: str) -> int:
    """Where `key` stands in a table that is written in one line; 0 when nowhere."""
    word = re.compile(rf"\b{re.escape(key)}\b")
    return next((number for number, line in enumerate(text.splitlines(), 1) if key and word.search(line)), 0)
