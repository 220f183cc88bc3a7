"""The guest agent's commands that guestwire uses, as data: name, answer, time-out, and whether it may be sent again.

Source: the QGA schema; time-outs as Proxmox VE gives them.
"""

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
class Ask(Generic[T]):
    """A command together with the type of its answer."""

    command: Command
    answer: type[T] | Any


def _reads(name: str, answer: type[T] | Any) -> Ask[T]:
    return Ask(Command(name, repeatable=True), answer)


def _changes(name: str, answer: type[T] | Any, timeout: float = 5.0, reply_limit: int = 4 * MIB) -> Ask[T]:
    return Ask(Command(name, timeout=timeout, reply_limit=reply_limit), answer)


def _mute(name: str, timeout: float = 5.0) -> Ask[None]:
    return Ask(Command(name, answers=False, timeout=timeout), None)


PING: Final[Ask[Done]] = _reads("guest-ping", Done)
INFO: Final[Ask[AgentInfo]] = _reads("guest-info", AgentInfo)
GET_HOST_NAME: Final[Ask[HostName]] = _reads("guest-get-host-name", HostName)
GET_OSINFO: Final[Ask[OsInfo]] = _reads("guest-get-osinfo", OsInfo)
GET_TIME: Final[Ask[int]] = _reads("guest-get-time", int)
GET_TIMEZONE: Final[Ask[TimeZone]] = _reads("guest-get-timezone", TimeZone)
GET_USERS: Final[Ask[list[User]]] = _reads("guest-get-users", list[User])
GET_VCPUS: Final[Ask[list[Vcpu]]] = _reads("guest-get-vcpus", list[Vcpu])
GET_FSINFO: Final[Ask[list[FileSystem]]] = _reads("guest-get-fsinfo", list[FileSystem])
GET_MEMORY_BLOCKS: Final[Ask[list[MemoryBlock]]] = _reads("guest-get-memory-blocks", list[MemoryBlock])
GET_MEMORY_BLOCK_INFO: Final[Ask[MemoryBlockInfo]] = _reads("guest-get-memory-block-info", MemoryBlockInfo)
NETWORK_GET_INTERFACES: Final[Ask[list[Interface]]] = _reads("guest-network-get-interfaces", list[Interface])

FSFREEZE_STATUS: Final[Ask[str]] = _reads("guest-fsfreeze-status", str)
FSFREEZE_FREEZE: Final[Ask[int]] = _changes("guest-fsfreeze-freeze", int, timeout=3600)
FSFREEZE_THAW: Final[Ask[int]] = _changes("guest-fsfreeze-thaw", int, timeout=180)
FSTRIM: Final[Ask[TrimResult]] = _changes("guest-fstrim", TrimResult, timeout=600)

SHUTDOWN: Final = _mute("guest-shutdown", timeout=600)
SUSPEND_DISK: Final = _mute("guest-suspend-disk")
SUSPEND_HYBRID: Final = _mute("guest-suspend-hybrid")
SUSPEND_RAM: Final = _mute("guest-suspend-ram")

SET_USER_PASSWORD: Final[Ask[Done]] = _changes("guest-set-user-password", Done)

EXEC: Final[Ask[ExecStarted]] = _changes("guest-exec", ExecStarted)
# Not repeatable: the agent forgets a process the moment its end was read. Two streams of 16 MiB, in base64.
EXEC_STATUS: Final[Ask[ProcessStatus]] = _changes("guest-exec-status", ProcessStatus, reply_limit=48 * MIB)

# A handle's position moves with every read, so none of these may be repeated.
FILE_OPEN: Final[Ask[int]] = _changes("guest-file-open", int)
FILE_SEEK: Final[Ask[FilePosition]] = _changes("guest-file-seek", FilePosition)
FILE_READ: Final[Ask[FilePiece]] = _changes("guest-file-read", FilePiece)
FILE_WRITE: Final[Ask[FileWritten]] = _changes("guest-file-write", FileWritten)
FILE_CLOSE: Final[Ask[Done]] = _changes("guest-file-close", Done)
