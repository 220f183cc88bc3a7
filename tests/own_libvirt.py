"""A libvirt of the tests' own."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devtools.libvirt_host import LibvirtHost, why_not


@contextlib.asynccontextmanager
async def own_libvirt() -> AsyncIterator[LibvirtHost]:
    """One that runs; the test is skipped, with the reason, where none can."""
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="gw-", ignore_cleanup_errors=True) as name:
        async with LibvirtHost(Path(name)) as host:
            yield host
