"""The guest agent's commands that guestwire uses, as data: name, answer, time-out, and whether it may be sent again.

Source: the QGA schema; time-outs as Proxmox VE gives them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from guestwire.agent.results import (
    AgentInfo,
    Done,
    ExecStarted,
    FilePiece,
    FilePosition,
    FileSystem,
    FileWritten,
    HostName,
    Interface,
    MemoryBlock,
    MemoryBlockInfo,
    OsInfo,
    ProcessStatus,
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

FSFREEZE_STATUS: Final[TypedCommand[str]] = _reads("guest-fsfreeze-status", str)
FSFREEZE_FREEZE: Final[TypedCommand[int]] = _changes("guest-fsfreeze-freeze", int, timeout=3600)
FSFREEZE_FREEZE_LIST: Final[TypedCommand[int]] = _changes("guest-fsfreeze-freeze-list", int, timeout=3600)
FSFREEZE_THAW: Final[TypedCommand[int]] = _changes("guest-fsfreeze-thaw", int, timeout=180)
FSTRIM: Final[TypedCommand[TrimResult]] = _changes("guest-fstrim", TrimResult, timeout=600)

SHUTDOWN: Final = _no_reply("guest-shutdown", timeout=600)
SUSPEND_DISK: Final = _no_reply("guest-suspend-disk")
SUSPEND_HYBRID: Final = _no_reply("guest-suspend-hybrid")
SUSPEND_RAM: Final = _no_reply("guest-suspend-ram")

SET_USER_PASSWORD: Final[TypedCommand[Done]] = _changes("guest-set-user-password", Done)

EXEC: Final[TypedCommand[ExecStarted]] = _changes("guest-exec", ExecStarted)
# Not repeatable: the agent forgets a process the moment its end was read. Two streams of 16 MiB, in base64.
EXEC_STATUS: Final[TypedCommand[ProcessStatus]] = _changes("guest-exec-status", ProcessStatus, reply_limit=48 * MIB)

# A handle's position moves with every read, so none of these may be repeated.
FILE_OPEN: Final[TypedCommand[int]] = _changes("guest-file-open", int)
FILE_SEEK: Final[TypedCommand[FilePosition]] = _changes("guest-file-seek", FilePosition)
FILE_READ: Final[TypedCommand[FilePiece]] = _changes("guest-file-read", FilePiece)
FILE_WRITE: Final[TypedCommand[FileWritten]] = _changes("guest-file-write", FileWritten)
FILE_CLOSE: Final[TypedCommand[Done]] = _changes("guest-file-close", Done)

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


def exec_arguments(command: Sequence[str], input_data: bytes | None = None) -> dict[str, Any]:
    """Arguments of guest-exec; its output is captured."""
    arguments: dict[str, Any] = {"capture-output": True}
    if command:
        arguments |= {"path": command[0], "arg": list(command[1:])}
    if input_data is not None:
        arguments["input-data"] = input_data
    return arguments
