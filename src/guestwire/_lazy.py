"""The public names of `guestwire`: those of the client, which is loaded when one of them is used."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # Python asks here also for names that are none of the client: parts that are not loaded yet.
    if name.startswith("_") or name not in __dir__():
        raise AttributeError(f"module 'guestwire' has no attribute '{name}'")
    return getattr(import_module("guestwire.client"), name)


def __dir__() -> list[str]:
    return sorted(import_module("guestwire.client._exports").NAMES)
