"""The sources that a configuration names, and those that are looked at where none does."""

from collections.abc import Iterable
from pathlib import Path

from guestwire.inventory.config import SourceConfig
from guestwire.inventory.found import Source
from guestwire.inventory.qemu_processes import QemuProcesses
from guestwire.inventory.socket_folders import SocketFolder

UNASKED = (SourceConfig(qemu=True),)
"""What is looked at where nothing is configured."""


def sources_of(configs: Iterable[SourceConfig]) -> list[Source]:
    """The sources, in this order."""
    return [source_of(config) for config in configs]


def source_of(config: SourceConfig) -> Source:
    """One source."""
    return SocketFolder(Path(config.folder), config.pattern) if config.folder else QemuProcesses()
