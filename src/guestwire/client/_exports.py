"""The public names of `guestwire.client`, and of `guestwire` too.

Each is loaded when it is used, for a command needs few of them.
"""

from importlib import import_module
from typing import Any, Final

NAMES: Final = {
    "CallFailed": "errors",
    "CompletedProcess": "processes",
    "Guest": "guests",
    "GuestInfo": "protocols",
    "Host": "hosts",
    "Stream": "streams",
    "SyncGuest": "sync",
    "SyncHost": "sync",
    "SyncStream": "sync",
    "connect": "hosts",
    "connect_sync": "sync",
}
"""By name, the module below `guestwire.client`; for type checkers they stand in `__init__.pyi` too."""


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name not in NAMES:
        raise AttributeError(f"module 'guestwire.client' has no attribute '{name}'")
    return getattr(import_module(f"guestwire.client.{NAMES[name]}"), name)


def __dir__() -> list[str]:
    # As import sorters have it: classes, then functions.
    return sorted(NAMES, key=lambda name: (name[0].islower(), name))
