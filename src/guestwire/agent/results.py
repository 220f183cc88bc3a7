"""What the guest agent answers, typed. Fields that an agent may leave out have a default; unknown ones are ignored.

Only what the first agents with a command sent is required of its answer, whatever the newest schema says: agents of
0.12 to 11 are in use.

Source: the QGA schema and its history; field names are its own with `-` written `_`.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

LARGEST_NUMBER: Final = 2**64
"""The agent's own numbers have 64 bits; all that is larger is made up, and would break what calculates with it."""


class NumberTooLarge(ValueError):
    """A number in an answer is larger than an agent has any."""


def check_numbers(value: T) -> T:
    """The answer itself, when all numbers in it are such as an agent can have.

    Raises:
        NumberTooLarge: one is not.
    """
    if isinstance(value, int | float):
        if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
            raise NumberTooLarge("a number of more than 64 bits")
        return value
    parts: Iterable[Any] = ()
    if isinstance(value, msgspec.Struct):
        parts = (getattr(value, name) for name in value.__struct_fields__)
    elif isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    for part in parts:
        if part is not None and not isinstance(part, str):
            check_numbers(part)
    return value


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


class Disk(Result, frozen=True):
    """guest-get-disks: a disk, a partition, or what is made of them (LVM, LUKS), with those that it stands on.

    `smart` is there for an NVMe disk: its `type`, and its values by the names of the schema, large ones in halves (`…-lo`,
    `…-hi`).
    """

    name: str
    partition: bool
    dependencies: list[str] = msgspec.field(default_factory=_empty)
    address: DiskAddress | None = None
    alias: str | None = None
    smart: dict[str, Any] | None = None


class DiskCounters(Result, frozen=True):
    """Counters of a disk since it is there: sectors of 512 bytes, operations (`…_ios`), and milliseconds (`…_ticks`)."""

    read_sectors: int | None = None
    read_ios: int | None = None
    read_merges: int | None = None
    read_ticks: int | None = None
    write_sectors: int | None = None
    write_ios: int | None = None
    write_merges: int | None = None
    write_ticks: int | None = None
    discard_sectors: int | None = None
    discard_ios: int | None = None
    discard_merges: int | None = None
    discard_ticks: int | None = None
    flush_ios: int | None = None
    flush_ticks: int | None = None
    ios_pgr: int | None = None
    total_ticks: int | None = None
    weight_ticks: int | None = None


class DiskStats(Result, frozen=True):
    """guest-get-diskstats: what one disk or partition has read and written."""

    name: str
    major: int
    minor: int
    stats: DiskCounters


class CpuStats(Result, frozen=True):
    """guest-get-cpustats: milliseconds that one processor has spent since the guest was started; `type` is `linux`."""

    type: str
    cpu: int
    user: int
    nice: int
    system: int
    idle: int
    iowait: int | None = None
    irq: int | None = None
    softirq: int | None = None
    steal: int | None = None
    guest: int | None = None
    guestnice: int | None = None


class Load(Result, frozen=True):
    """guest-get-load: processes that run or wait for it, on average over 1, 5 and 15 minutes."""

    load1m: float
    load5m: float
    load15m: float


class Route(Result, frozen=True):
    """guest-network-get-route: one line of a routing table. IPv4 has `mask` and `gateway`, IPv6 `desprefixlen` and `nexthop`."""

    iface: str
    destination: str
    metric: int
    version: int
    gateway: str | None = None
    mask: str | None = None
    irtt: int | None = None
    flags: int | None = None
    refcnt: int | None = None
    use: int | None = None
    window: int | None = None
    mtu: int | None = None
    desprefixlen: str | None = None
    source: str | None = None
    srcprefixlen: str | None = None
    nexthop: str | None = None


class DeviceId(Result, frozen=True):
    """The kind of a device; `type` is `pci`."""

    type: str
    vendor_id: int | None = None
    device_id: int | None = None


class Device(Result, frozen=True):
    """guest-get-devices: a device of a Windows guest and its driver; `driver_date` in nanoseconds since the epoch."""

    driver_name: str
    driver_date: int | None = None
    driver_version: str | None = None
    id: DeviceId | None = None


class AuthorizedKeys(Result, frozen=True):
    """guest-ssh-get-authorized-keys: lines of a user's authorized_keys, without comments."""

    keys: list[str]


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


class MemoryBlockChange(Result, frozen=True):
    """guest-set-memory-blocks: how the change of one block ended.

    `response` is `success`, `not-found`, `operation-not-supported` or `operation-failed`, the last with an `error_code`.
    """

    phys_index: int
    response: str
    error_code: int | None = None


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
