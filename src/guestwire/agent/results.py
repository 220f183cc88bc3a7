"""What the guest agent answers, typed. Fields that an agent may leave out have a default; unknown ones are ignored.

Only what the first agents with a command sent is required of its answer, whatever the newest schema says: agents of
0.12 to 11 are in use.

Source: the QGA schema and its history; field names are its own with `-` written `_`.
"""

from typing import Any

import msgspec


class Result(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """Base: the schema's names have dashes, and what a guest left out is left out again."""


def _empty() -> list[Any]:
    """No items; unlike `list` it is no default that is left out again."""
    return []


def _yes() -> bool:
    """True, but unlike `True` no default that is left out again."""
    return True


class Done(Result, frozen=True):
    """`{}`: it is done."""


class SupportedCommand(Result, frozen=True):
    """One command of this agent; `success_response` is False for one that says nothing on success, None where the agent is too old to tell."""

    name: str
    enabled: bool = msgspec.field(default_factory=_yes)
    success_response: bool | None = msgspec.field(name="success-response", default=None)


class AgentInfo(Result, frozen=True):
    """guest-info: the agent's version and what it supports; that of 0.15 does not list its commands."""

    version: str
    supported_commands: list[SupportedCommand] = msgspec.field(name="supported_commands", default_factory=_empty)


class HostName(Result, frozen=True):
    """guest-get-host-name."""

    host_name: str


class OsInfo(Result, frozen=True):
    """guest-get-osinfo: as in the guest's os-release, and its kernel."""

    id: str | None = None
    kernel_release: str | None = None
    kernel_version: str | None = None
    machine: str | None = None
    name: str | None = None
    pretty_name: str | None = None
    variant: str | None = None
    variant_id: str | None = None
    version: str | None = None
    version_id: str | None = None


class TimeZone(Result, frozen=True):
    """guest-get-timezone: seconds east of UTC, and the zone's name where it is known."""

    offset: int
    zone: str | None = None


class User(Result, frozen=True):
    """guest-get-users: somebody who is logged in since `login_time` (seconds since the epoch)."""

    user: str
    login_time: float
    domain: str | None = None


class Vcpu(Result, frozen=True):
    """guest-get-vcpus: one logical processor."""

    logical_id: int
    online: bool
    can_offline: bool | None = None


class DiskAddress(Result, frozen=True):
    """Where a file system's disk is attached."""

    bus_type: str
    bus: int
    target: int
    unit: int
    serial: str | None = None
    dev: str | None = None


class FileSystem(Result, frozen=True):
    """guest-get-fsinfo: one mounted file system; sizes in bytes."""

    name: str
    mountpoint: str
    type: str
    disk: list[DiskAddress] = msgspec.field(default_factory=_empty)
    used_bytes: int | None = None
    total_bytes: int | None = None
    total_bytes_privileged: int | None = None


class MemoryBlock(Result, frozen=True):
    """guest-get-memory-blocks: one block that can be plugged."""

    phys_index: int
    online: bool
    can_offline: bool | None = None


class MemoryBlockInfo(Result, frozen=True):
    """guest-get-memory-block-info: bytes of a block."""

    size: int


class Address(Result, frozen=True):
    """An IP address with the length of its prefix."""

    ip_address: str
    ip_address_type: str
    prefix: int


class InterfaceStatistics(Result, frozen=True):
    """Counters of an interface since it came up."""

    rx_bytes: int
    rx_packets: int
    rx_errs: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errs: int
    tx_dropped: int


class Interface(Result, frozen=True):
    """guest-network-get-interfaces: one network interface."""

    name: str
    hardware_address: str | None = None
    ip_addresses: list[Address] | None = None
    statistics: InterfaceStatistics | None = None


class Trimmed(Result, frozen=True):
    """What fstrim did to one mount point; sizes in bytes."""

    path: str
    trimmed: int | None = None
    minimum: int | None = None
    error: str | None = None


class TrimResult(Result, frozen=True):
    """guest-fstrim; agents before 2.4 say nothing of each file system."""

    paths: list[Trimmed] = msgspec.field(default_factory=_empty)


class ExecStarted(Result, frozen=True):
    """guest-exec: the process's id in the guest."""

    pid: int


class ProcessStatus(Result, frozen=True):
    """guest-exec-status: output is there only when the process has exited; the agent keeps 16 MiB of each stream."""

    exited: bool
    exitcode: int | None = None
    signal: int | None = None
    out_data: bytes | None = None
    err_data: bytes | None = None
    out_truncated: bool | None = None
    err_truncated: bool | None = None


class FilePiece(Result, frozen=True):
    """guest-file-read: `count` bytes, and whether the end of the file was seen."""

    count: int
    data: bytes = msgspec.field(name="buf-b64")
    eof: bool = False


class FileWritten(Result, frozen=True):
    """guest-file-write: how many bytes were taken."""

    count: int
    eof: bool = False


class FilePosition(Result, frozen=True):
    """guest-file-seek: bytes from the beginning."""

    position: int
    eof: bool = False
