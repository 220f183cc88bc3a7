"""What an audit record keeps of a call's parameters, by their roles: no secrets, and of content its size and SHA-256."""

import base64
import binascii
import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from guestwire.contract.parameters import Role, Rule
from guestwire.contract.text import to_bytes

LONGEST_TEXT: Final = 2000
"""Characters of one value; a command line may be longer, and nobody reads that."""

LONGEST_LIST: Final = 8000
"""Characters of a list's items, all together."""

MOST_ITEMS: Final = 100


def audit_fields(known: Mapping[str, Rule], given: Mapping[str, Any], *, commands: bool) -> dict[str, Any]:
    """The parameters of a call as a record keeps them.

    Args:
        known: the rules of its parameters by their names; others are left out.
        given: as the client gave them, not validated.
        commands: False leaves argument lists out.
    """
    fields: dict[str, Any] = {}
    for name, rule in known.items():
        if name not in given or rule.role is Role.NODE or (rule.role is Role.ARGUMENTS and not commands):
            continue
        value = given[name]
        if not rule.is_secret:
            fields[name] = _shorten(value)
        elif rule.role is Role.CONTENT and isinstance(value, str):
            content = _content(value, encoded=given.get("encode") in ("0", 0, False))
            fields |= {f"{name}-size": len(content), f"{name}-sha256": hashlib.sha256(content).hexdigest()}
        elif rule.role in (Role.CHUNK, Role.STANDARD_INPUT) and isinstance(value, str):
            fields[f"{name}-size"] = len(_bytes(value))
    return fields


def _content(text: str, *, encoded: bool) -> bytes:
    """The bytes that a guest's file gets."""
    content = _bytes(text)
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(content) if encoded else content
    return content


def _bytes(text: str) -> bytes:
    """As `to_bytes`, and the bytes of a text that is none: its call is refused, and that leaves a record, too."""
    try:
        return to_bytes(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def _shorten(value: Any) -> Any:
    """The value, no longer than a reader needs: many records must fit into memory, whatever was sent."""
    if not isinstance(value, list):
        return _bounded_scalar(value)
    items: list[Any] = []
    left = LONGEST_LIST
    for item in value[:MOST_ITEMS]:
        items.append(_bounded_scalar(item))
        left -= len(str(items[-1]))
        if left < 0:
            return [*items, "…"]
    return items


def _bounded_scalar(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:LONGEST_TEXT] + "…"
    return value if isinstance(value, str | int | float | bool) else type(value).__name__
