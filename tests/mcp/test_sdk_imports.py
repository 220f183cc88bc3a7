"""What is left out of the SDK on standard input and output: the server does not need it, and is ready more quickly."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LOADED = "import sys; print(*sys.modules)"


def modules(code: str) -> set[str]:
    """The modules that are loaded behind the code."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{LOADED}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_server_loads_a_fifth_less() -> None:
    server = "import guestwire.mcp.serve\nfrom mcp.server.stdio import stdio_server"
    whole = modules(server)
    lean = modules(f"from guestwire.mcp.sdk_imports import load_lean\nload_lean()\n{server}")

    assert "mcp.client.client" in whole
    assert "mcp.client.client" not in lean
    assert len(whole - lean) > 100


def test_an_sdk_that_is_loaded_stays_as_it_is() -> None:
    assert "mcp.client.client" in modules(
        "import mcp\nfrom guestwire.mcp.sdk_imports import load_lean\nload_lean()\nmcp.Client"
    )
