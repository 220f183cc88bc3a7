"""What `guestwire.client` hands on, and `guestwire` too: each name is loaded when somebody asks for it, for a command needs few of them."""

from importlib import import_module
from typing import Any, Final

NAMES: Final = {
    "CallFailed": "errors",
    "Ended": "processes",
    "Guest": "guests",
    "GuestInfo": "parts",
    "Host": "hosts",
    "Stream": "streams",
    "SyncGuest": "sync",
    "SyncHost": "connecting_sync",
    "SyncStream": "sync",
    "connect": "connecting",
    "connect_sync": "connecting_sync",
}
"""By name, the module below `guestwire.client`; for type checkers they stand in `__init__.pyi` too."""


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'guestwire.client' has no attribute '{name}'")
    return getattr(import_module(f"guestwire.client.{NAMES[name]}"), name)
