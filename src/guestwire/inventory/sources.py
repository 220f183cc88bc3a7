"""The sources that a configuration names, as what looks for their VMs."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from guestwire.channels.libvirt import binding
from guestwire.errors import ConfigurationError
from guestwire.inventory.config import SourceConfig
from guestwire.inventory.found import Source
from guestwire.inventory.qemu_processes import QemuProcesses
from guestwire.inventory.socket_folders import SocketFolder

log = logging.getLogger("guestwire.discovery")

LIBVIRTS: Final = {
    "qemu:///system": ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"),
    "qemu:///session": ("{runtime}/libvirt/libvirt-sock", "{runtime}/libvirt/virtqemud-sock"),
}
"""By URI, the sockets of which one is there while it runs."""


class Libvirts:
    """The URIs of the libvirts that a configuration names, and of those that run here, where it wants them found.

    A session's libvirt starts by being connected to, so that only one that runs is. One that was seen stays: while it is
    started again, its VMs keep their channels.
    """

    def __init__(self, configs: Iterable[SourceConfig] = ()) -> None:
        wanted = [config.libvirt for config in configs if config.libvirt]
        self._finds = True in wanted
        self._uris = dict.fromkeys(one for one in wanted if isinstance(one, str))
        self._is_noted = False

    def look(self) -> list[str]:
        """The URIs now, once each. Looks for sockets: for a thread."""
        if not self._finds:
            return list(self._uris)
        here = _libvirts_here()
        try:
            if here:
                binding()
        except ConfigurationError as error:
            self._note(logging.WARNING, f"the VMs of {' and '.join(here)} are not found: {error}")
            return list(self._uris)
        self._uris |= dict.fromkeys(here)
        if not self._uris:
            self._note(logging.INFO, "no libvirt runs here; its VMs are found as soon as it does")
        return list(self._uris)

    def _note(self, level: int, what: str) -> None:
        if not self._is_noted:
            self._is_noted = True
            log.log(level, "%s", what)


def _libvirts_here() -> list[str]:
    """Those whose sockets are there, for this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return [
        uri
        for uri, sockets in LIBVIRTS.items()
        if any(Path(socket.format(runtime=runtime)).exists() for socket in sockets)
    ]


def sources_of(configs: Iterable[SourceConfig]) -> list[Source]:
    """The sources, in this order, but for libvirts (see `Libvirts`): an inventory follows those by itself."""
    return [source_of(config) for config in configs if not config.libvirt]


def source_of(config: SourceConfig) -> Source:
    """One source."""
    return SocketFolder(Path(config.folder), config.pattern) if config.folder else QemuProcesses()
