"""VMs that are found, and not named by a configuration: what a source says of one."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

import msgspec

from guestwire.inventory.config import MAX_VMID, MIN_VMID, TAG, VmConfig

HAS_QMP: Final = find_spec("qemu") is not None
"""Without the extra `guestwire[server]` nothing is asked of QEMU: its VMs are found all the same."""

_number: Final = re.compile(r"[1-9][0-9]{2,8}")


class FoundVm(msgspec.Struct, frozen=True, kw_only=True):
    """One VM that was found.

    Attributes:
        key: the same for the same VM, whatever else is found: its UUID, or the path of its socket.
        name: as it is defined, or made of its socket's name.
        source: who found it, as messages say it.
        vmid: where the place that defines it has such a number.
        agent, qmp: addresses, as a configuration has them.
        running: None: its sockets tell.
        problem: why it can't be used, or its guest can't; "": it can.
        hint: what helps.
    """

    key: str
    name: str
    source: str
    vmid: int | None = None
    agent: str | None = None
    qmp: str | None = None
    running: bool | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""

    def config(self, vmid: int) -> VmConfig:
        """As if a configuration had named it."""
        tags = [tag for tag in self.tags if re.fullmatch(TAG, tag)]
        qmp = self.qmp if HAS_QMP else None
        return VmConfig(
            vmid=vmid, name=self.name, agent=self.agent, qmp=qmp, running=None if qmp else self.running,
            description=self.description, tags=tags,
        )  # fmt: skip


class Source(Protocol):
    """A place where VMs are found."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def find(self) -> list[FoundVm]:
        """The VMs that are there now, also those that can't be used. Called in a thread, one call at a time.

        Raises:
            OSError: the place can't be read.
        """
        ...


def added_channel(qmp: Path) -> Path:
    """The agent's socket of a VM that has got its channel from guestwire: beside the QMP socket, so that it is found again."""
    return qmp.with_name(f"{qmp.name}.qga")


def number_in(name: str) -> int | None:
    """The VMID that a name is, as `100` of `100.qga`."""
    return int(name) if _number.fullmatch(name) and MIN_VMID <= int(name) <= MAX_VMID else None
