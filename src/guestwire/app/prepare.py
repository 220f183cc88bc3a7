"""What is done before the service runs: the state directory, the certificate and the administrator's token."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

from guestwire.access.control import Access
from guestwire.app.admin_token import ensure_admin_token
from guestwire.app.state import STORE
from guestwire.counting import counted
from guestwire.errors import ConfigurationError
from guestwire.inventory import Config, read_config
from guestwire.server.certificate_maker import ensure_certificate
from guestwire.stores import SqliteStore

SMALL: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(264 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 1024),
}
"""Environment that keeps the service small, where nothing else is set. glibc: pieces of files are mapped, and so go back to the
system at once; the 256 KiB that uvloop asks for with each read from TLS are not."""


def describe(path: Path | None) -> str:
    """What a configuration file means, in a sentence; None: nothing is configured.

    Raises:
        ConfigurationError: it can't be used.
    """
    config = read_config(path)
    server = config.server
    vms = counted(len(config.vm), "VM") + (" and those that are found" if config.source else "")
    return f"{path or 'no configuration'}: {vms} of node {server.node}, on {server.listen}, with state in {server.state_dir}"


def serve(path: Path | None) -> NoReturn:
    """Prepares, then becomes the service (`python -m guestwire.app`), which needs less memory than what prepares it.

    Raises:
        ConfigurationError: the file or the state directory can't be used.
    """
    prepare(read_config(path))
    command = [sys.executable, "-m", "guestwire.app", *([str(path)] if path else [])]
    os.execve(sys.executable, command, SMALL | os.environ)  # noqa: S606  # no shell is wanted


def prepare(config: Config) -> None:
    """Makes what is not there yet.

    Raises:
        ConfigurationError: the state directory can't be used.
    """
    state_dir = Path(config.server.state_dir)
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{state_dir}: {error.strerror}; guestwire keeps its state there ('state_dir')"
        ) from error
    if config.server.tls:
        ensure_certificate(state_dir, config.server.node, config.server.address[0])
    asyncio.run(_prepare_access(state_dir))


async def _prepare_access(state_dir: Path) -> None:
    store = await SqliteStore.open(state_dir / STORE)
    try:
        await ensure_admin_token(state_dir, store)
        await Access(store).rotate_keys()
    finally:
        await store.close()
