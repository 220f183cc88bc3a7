"""What `ansible-test sanity` finds, as far as it runs without a network; `python -m devtools.sanity` runs all of it."""

from pathlib import Path

import pytest

from devtools.sanity import OFFLINE, sanity

pytestmark = pytest.mark.slow


def test_ansibles_own_tests_find_nothing(tmp_path: Path) -> None:
    done = sanity(tmp_path, OFFLINE)

    assert done.returncode == 0, done.stdout + done.stderr
    for name in OFFLINE:
        assert f'Running sanity test "{name}"' in done.stdout, done.stdout
