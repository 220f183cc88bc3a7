"""Loads less of the SDK.

Its packages import client, server and HTTP whole, of which standard input and output need half.

A fifth of the time until the server is ready. The packages stand there without having run, so that only the modules
that are asked for do. Should the SDK change what is relied on here, a test tells.
"""

import importlib.util
import sys
from typing import Final

PACKAGES: Final = ("mcp", "mcp.server")


def load_lean() -> None:
    """From now on the SDK's modules are loaded one by one. Where it is loaded already, nothing happens.

    Raises:
        ModuleNotFoundError: the SDK is not installed.
    """
    if PACKAGES[0] in sys.modules:
        return
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.modules[name] = importlib.util.module_from_spec(spec)
