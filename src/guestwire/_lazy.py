"""The public names of `guestwire`: those of the client, which is loaded when one of them is used, and the version."""

from functools import cache
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "__all__":
        return __dir__()
    # Python asks here also for names that are none of the client: parts that are not loaded yet.
    if name.startswith("_") or name not in __dir__():
        raise AttributeError(f"module 'guestwire' has no attribute '{name}'")
    return getattr(import_module("guestwire.client"), name)


@cache
def _version() -> str:
    # It stands in pyproject.toml alone. To read what was installed takes 20 ms, more than some commands have.
    return str(import_module("importlib.metadata").version("guestwire"))


def __dir__() -> list[str]:
    exported: list[str] = import_module("guestwire.client").__all__
    return exported
