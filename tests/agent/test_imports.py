"""What is loaded with a module: a client of a server needs the results, and nothing that opens a socket to a guest."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("guestwire.agent.results", "guestwire.channels"),
        ("guestwire.agent.results", "guestwire.wire"),
        ("guestwire.agent.commands", "guestwire.channels"),
        ("guestwire.channels", "qemu"),
    ],
)
def test_a_module_does_not_load_what_it_does_not_need(module: str, without: str) -> None:
    program = f"import sys, {module}; sys.exit({without!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)

    assert done.returncode == 0
