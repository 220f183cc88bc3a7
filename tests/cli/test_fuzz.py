"""A sample of `bench.fuzz_client`: no command line, setting or environment ends in a traceback."""

import pytest

from bench.fuzz_client import fuzz


@pytest.mark.slow
def test_no_command_line_and_no_environment_ends_in_a_traceback() -> None:
    assert fuzz(300, seed=2026).finds == []
