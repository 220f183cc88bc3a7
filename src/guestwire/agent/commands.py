"""The guest agent's commands that guestwire uses, as data: name, answer, time-out, and whether it may be sent again; and since when agents have them.

Source: the QGA schema; time-outs as Proxmox VE gives them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from guestwire.agent.results import (
    AgentInfo,
    AuthorizedKeys,
    CpuStats,
    Device,
    Disk,
    DiskStats,
    Done,
    ExecStarted,
    FilePiece,
    FilePosition,
    FileSystem,
    FileWritten,
    HostName,
    Interface,
    Load,
    MemoryBlock,
    MemoryBlockChange,
    MemoryBlockInfo,
    OsInfo,
    ProcessStatus,
    Route,
    TimeZone,
    TrimResult,
    User,
    Vcpu,
)
from guestwire.wire import Command

T = TypeVar("T")

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TypedCommand(Generic[T]):
    """A command together with the type of its answer."""

    command: Command
    answer: type[T] | Any


def _reads(name: str, answer: type[T] | Any) -> TypedCommand[T]:
    return TypedCommand(Command(name, repeatable=True), answer)


def _changes(name: str, answer: type[T] | Any, timeout: float = 5.0, reply_limit: int = 4 * MIB) -> TypedCommand[T]:
    return TypedCommand(Command(name, timeout=timeout, reply_limit=reply_limit), answer)


def _no_reply(name: str, timeout: float = 5.0) -> TypedCommand[None]:
    return TypedCommand(Command(name, answers=False, timeout=timeout), None)


PING: Final[TypedCommand[Done]] = _reads("guest-ping", Done)
INFO: Final[TypedCommand[AgentInfo]] = _reads("guest-info", AgentInfo)
GET_HOST_NAME: Final[TypedCommand[HostName]] = _reads("guest-get-host-name", HostName)
GET_OSINFO: Final[TypedCommand[OsInfo]] = _reads("guest-get-osinfo", OsInfo)
GET_TIME: Final[TypedCommand[int]] = _reads("guest-get-time", int)
GET_TIMEZONE: Final[TypedCommand[TimeZone]] = _reads("guest-get-timezone", TimeZone)
GET_USERS: Final[TypedCommand[list[User]]] = _reads("guest-get-users", list[User])
GET_VCPUS: Final[TypedCommand[list[Vcpu]]] = _reads("guest-get-vcpus", list[Vcpu])
GET_FSINFO: Final[TypedCommand[list[FileSystem]]] = _reads("guest-get-fsinfo", list[FileSystem])
GET_MEMORY_BLOCKS: Final[TypedCommand[list[MemoryBlock]]] = _reads("guest-get-memory-blocks", list[MemoryBlock])
GET_MEMORY_BLOCK_INFO: Final[TypedCommand[MemoryBlockInfo]] = _reads("guest-get-memory-block-info", MemoryBlockInfo)
NETWORK_GET_INTERFACES: Final[TypedCommand[list[Interface]]] = _reads("guest-network-get-interfaces", list[Interface])
GET_DISKS: Final[TypedCommand[list[Disk]]] = _reads("guest-get-disks", list[Disk])
GET_DISKSTATS: Final[TypedCommand[list[DiskStats]]] = _reads("guest-get-diskstats", list[DiskStats])
GET_CPUSTATS: Final[TypedCommand[list[CpuStats]]] = _reads("guest-get-cpustats", list[CpuStats])
GET_LOAD: Final[TypedCommand[Load]] = _reads("guest-get-load", Load)
GET_DEVICES: Final[TypedCommand[list[Device]]] = _reads("guest-get-devices", list[Device])
NETWORK_GET_ROUTE: Final[TypedCommand[list[Route]]] = _reads("guest-network-get-route", list[Route])
SSH_GET_AUTHORIZED_KEYS: Final[TypedCommand[AuthorizedKeys]] = _reads("guest-ssh-get-authorized-keys", AuthorizedKeys)

FSFREEZE_STATUS: Final[TypedCommand[str]] = _reads("guest-fsfreeze-status", str)
FSFREEZE_FREEZE: Final[TypedCommand[int]] = _changes("guest-fsfreeze-freeze", int, timeout=3600)
FSFREEZE_FREEZE_LIST: Final[TypedCommand[int]] = _changes("guest-fsfreeze-freeze-list", int, timeout=3600)
FSFREEZE_THAW: Final[TypedCommand[int]] = _changes("guest-fsfreeze-thaw", int, timeout=180)
FSTRIM: Final[TypedCommand[TrimResult]] = _changes("guest-fstrim", TrimResult, timeout=600)

SHUTDOWN: Final = _no_reply("guest-shutdown", timeout=600)
# A guest that halts stays connected, and one that starts anew may: an agent that refuses it says so at once.
SHUTDOWN_MODE: Final = _no_reply("guest-shutdown", timeout=20)
SUSPEND_DISK: Final = _no_reply("guest-suspend-disk")
SUSPEND_HYBRID: Final = _no_reply("guest-suspend-hybrid")
SUSPEND_RAM: Final = _no_reply("guest-suspend-ram")

SET_USER_PASSWORD: Final[TypedCommand[Done]] = _changes("guest-set-user-password", Done)
SSH_ADD_AUTHORIZED_KEYS: Final[TypedCommand[Done]] = _changes("guest-ssh-add-authorized-keys", Done)
SSH_REMOVE_AUTHORIZED_KEYS: Final[TypedCommand[Done]] = _changes("guest-ssh-remove-authorized-keys", Done)
# It runs hwclock, which waits for the next whole second.
SET_TIME: Final[TypedCommand[Done]] = _changes("guest-set-time", Done, timeout=30)
SET_VCPUS: Final[TypedCommand[int]] = _changes("guest-set-vcpus", int, timeout=60)
# What is in a block that goes offline is moved first.
SET_MEMORY_BLOCKS: Final[TypedCommand[list[MemoryBlockChange]]] = _changes(
    "guest-set-memory-blocks", list[MemoryBlockChange], timeout=120
)

EXEC: Final[TypedCommand[ExecStarted]] = _changes("guest-exec", ExecStarted)
# Not repeatable: the agent forgets a process the moment its end was read. Two streams of 16 MiB, in base64.
EXEC_STATUS: Final[TypedCommand[ProcessStatus]] = _changes("guest-exec-status", ProcessStatus, reply_limit=48 * MIB)

# A handle's position moves with every read, so none of these may be repeated.
FILE_OPEN: Final[TypedCommand[int]] = _changes("guest-file-open", int)
FILE_SEEK: Final[TypedCommand[FilePosition]] = _changes("guest-file-seek", FilePosition)
FILE_READ: Final[TypedCommand[FilePiece]] = _changes("guest-file-read", FilePiece)
FILE_WRITE: Final[TypedCommand[FileWritten]] = _changes("guest-file-write", FileWritten)
FILE_FLUSH: Final[TypedCommand[Done]] = _changes("guest-file-flush", Done)
FILE_CLOSE: Final[TypedCommand[Done]] = TypedCommand(Command("guest-file-close", releases=True), Done)

ABSENT: Final[dict[str, frozenset[str]]] = {
    "mswindows": frozenset(
        f"guest-{name}"
        for name in (
            "suspend-hybrid", "set-vcpus", "get-memory-blocks", "set-memory-blocks", "get-memory-block-info", "get-diskstats",
            "get-cpustats", "network-get-route", "ssh-get-authorized-keys", "ssh-add-authorized-keys", "ssh-remove-authorized-keys",
        )
    ),
    "freebsd": frozenset(
        f"guest-{name}"
        for name in (
            "get-devices", "fstrim", "get-fsinfo", "get-disks", "suspend-disk", "suspend-ram", "suspend-hybrid", "get-vcpus", "set-vcpus",
            "get-memory-blocks", "set-memory-blocks", "get-memory-block-info", "get-diskstats", "get-cpustats", "get-load",
            "network-get-route",
        )
    ),
}  # fmt: skip
"""Commands that no agent of a system has, by the system's id; the older list them as disabled."""

ABSENT_ELSEWHERE: Final = frozenset({"guest-get-devices"})
"""As above, for Linux and all others."""


def absent_from(system: str | None) -> frozenset[str]:
    """The commands that no agent of the system with this id has."""
    return ABSENT.get(system or "", ABSENT_ELSEWHERE)


SINCE: Final[dict[str, str]] = {
    "guest-sync": "0.15", "guest-ping": "0.15", "guest-info": "0.15", "guest-shutdown": "0.15", "guest-file-open": "0.15",
    "guest-file-close": "0.15", "guest-file-read": "0.15", "guest-file-write": "0.15", "guest-file-seek": "0.15", "guest-file-flush": "0.15",
    "guest-fsfreeze-status": "0.15", "guest-fsfreeze-freeze": "0.15", "guest-fsfreeze-thaw": "0.15", "guest-sync-delimited": "1.1",
    "guest-suspend-disk": "1.1", "guest-suspend-ram": "1.1", "guest-suspend-hybrid": "1.1", "guest-network-get-interfaces": "1.1",
    "guest-fstrim": "1.2", "guest-get-time": "1.5", "guest-set-time": "1.5", "guest-get-vcpus": "1.5", "guest-set-vcpus": "1.5",
    "guest-fsfreeze-freeze-list": "2.2", "guest-get-fsinfo": "2.2", "guest-set-user-password": "2.3", "guest-get-memory-blocks": "2.3",
    "guest-set-memory-blocks": "2.3", "guest-get-memory-block-info": "2.3", "guest-exec": "2.5", "guest-exec-status": "2.5",
    "guest-get-host-name": "2.10", "guest-get-users": "2.10", "guest-get-timezone": "2.10", "guest-get-osinfo": "2.10",
    "guest-get-disks": "5.2", "guest-get-devices": "5.2", "guest-ssh-get-authorized-keys": "5.2", "guest-ssh-add-authorized-keys": "5.2",
    "guest-ssh-remove-authorized-keys": "5.2", "guest-get-diskstats": "7.1", "guest-get-cpustats": "7.1",
    "guest-network-get-route": "9.1 (in Windows 11.0)", "guest-get-load": "10.0",
}  # fmt: skip
"""The version of QEMU whose agent was the first with a command: all that there are."""

MERGES_SINCE: Final = "8.0"
"""The first version whose guest-exec makes one of both outputs."""

Capture = Literal["none", "separated", "merged"]
"""The outputs of a process that its agent keeps; merged: both as one, in the order of what was written.

The schema has `stdout` and `stderr`, too. With them an agent of 10.0 never says that a process has ended: it waits for
the end of the other output.
"""


def exec_arguments(
    command: Sequence[str],
    input_data: bytes | None = None,
    *,
    env: Sequence[str] | None = None,
    capture: Capture = "separated",
) -> dict[str, Any]:
    """Arguments of guest-exec.

    Args:
        command: program and arguments.
        input_data: its standard input.
        env: its whole environment, as `NAME=VALUE`; None: the agent's own.
        capture: see `Capture`. Agents of all versions take a boolean for both outputs or none.
    """
    arguments: dict[str, Any] = {"capture-output": {"separated": True, "none": False}.get(capture, capture)}
    if command:
        arguments |= {"path": command[0], "arg": list(command[1:])}
    if input_data is not None:
        arguments["input-data"] = input_data
    if env is not None:
        arguments["env"] = list(env)
    return arguments
