"""Parameters as texts: what is decided about must be what is done.

Source: Proxmox VE takes every scalar for a text, and holds lists in one.
"""

import re
from typing import Final

_between: Final = re.compile(r"[,;\s\0]+")


def split_list(text: str) -> list[str]:
    """The items of a text that holds a list, as Proxmox VE takes it apart."""
    return [item for item in _between.split(text) if item]


def canonical(value: object) -> str:
    """A scalar as the contract will take it, when it takes it: JSON's 1e3 names the pool 1000."""
    return format(value, ".15g") if isinstance(value, float) else str(value)
