"""What an audit record says of a call's parameters, whoever keeps it."""

import base64
import binascii
import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from guestwire.contract.parameters import Audited, Rule
from guestwire.contract.text import to_bytes

LONGEST_TEXT: Final = 2000
"""Characters of one value; a command line may be longer, and nobody reads that."""

LONGEST_LIST: Final = 8000
"""Characters of a list's items, all together."""

MOST_ITEMS: Final = 100


def shown_parameters(known: Mapping[str, Rule], given: Mapping[str, Any], *, commands: bool) -> dict[str, Any]:
    """What the record says of a call's parameters: no secrets, and of content its size and SHA-256.

    Args:
        known: the rules of its parameters by their names.
        given: as the client gave them, not validated.
        commands: whether the command lines of exec are shown.
    """
    shown: dict[str, Any] = {}
    for name, rule in known.items():
        if name not in given or name == "node":
            continue
        shown |= _shown(rule, given, commands=commands)
    return shown


def _shown(rule: Rule, given: Mapping[str, Any], *, commands: bool) -> dict[str, Any]:
    value = given[rule.name]
    match rule.audited:
        case Audited.SHOWN:
            return {rule.name: _bounded(value)}
        case Audited.COMMAND:
            return {rule.name: _bounded(value)} if commands else {}
        case Audited.DIGEST if isinstance(value, str):
            content = _content(value, encoded=given.get("encode") in ("0", 0, False))
            return {f"{rule.name}-size": len(content), f"{rule.name}-sha256": hashlib.sha256(content).hexdigest()}
        case Audited.SIZE if isinstance(value, str):
            return {f"{rule.name}-size": len(to_bytes(value))}
        case _:
            return {}


def _content(text: str, *, encoded: bool) -> bytes:
    """The bytes that a guest's file gets."""
    content = (
        text.encode("utf-8", "surrogateescape") if "\udc80" <= max(text, default="") <= "\udcff" else to_bytes(text)
    )
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(content) if encoded else content
    return content


def _bounded(value: Any) -> Any:
    """Values as they are, but no longer than anybody reads: many records must fit into memory, whoever made them."""
    return _items(value) if isinstance(value, list) else _scalar(value)


def _items(values: list[Any]) -> list[Any]:
    shown: list[Any] = []
    left = LONGEST_LIST
    for value in values[:MOST_ITEMS]:
        shown.append(_scalar(value))
        left -= len(str(shown[-1]))
        if left < 0:
            return [*shown, "…"]
    return shown


def _scalar(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:LONGEST_TEXT] + "…"
    return value if isinstance(value, str | int | float | bool) else type(value).__name__
