"""What `guestwire` hands on: the client, loaded when somebody asks for it."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """What `guestwire.client` hands on under this name."""
    # Python asks here too for what is no name of the client: parts that are not loaded yet.
    if name.startswith("_") or name not in import_module("guestwire.client._exports").NAMES:
        raise AttributeError(f"module 'guestwire' has no attribute '{name}'")
    return getattr(import_module("guestwire.client"), name)
