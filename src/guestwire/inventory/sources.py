"""The sources that a configuration names, and those that are looked at where none does."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from guestwire.inventory.config import SourceConfig
from guestwire.inventory.found import Source
from guestwire.inventory.qemu_processes import QemuProcesses
from guestwire.inventory.socket_folders import SocketFolder

LIBVIRTS: Final = {
    "qemu:///system": ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"),
    "qemu:///session": ("{runtime}/libvirt/libvirt-sock", "{runtime}/libvirt/virtqemud-sock"),
}
"""By URI, the sockets of which one is there while it runs."""


def libvirts_here() -> list[str]:
    """The libvirts that run on this machine, for this user; none where their binding is not installed."""
    if find_spec("libvirt") is None:
        return []
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return [
        uri
        for uri, sockets in LIBVIRTS.items()
        if any(Path(socket.format(runtime=runtime)).exists() for socket in sockets)
    ]


UNASKED = (SourceConfig(qemu=True),)
"""What is looked at where nothing is configured."""


def sources_of(configs: Iterable[SourceConfig]) -> list[Source]:
    """The sources, in this order, but for libvirts: an inventory follows those by itself."""
    return [source_of(config) for config in configs if not config.libvirt]


def source_of(config: SourceConfig) -> Source:
    """One source."""
    return SocketFolder(Path(config.folder), config.pattern) if config.folder else QemuProcesses()
