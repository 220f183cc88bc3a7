"""The guest agent: everything under `/nodes/{node}/qemu/{vmid}/agent`.

Source: Proxmox VE's API of the same paths.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from guestwire.access.checks import Privileges
from guestwire.agent import commands as qga
from guestwire.agent.commands import TypedCommand
from guestwire.contract.context import Context
from guestwire.contract.endpoint import DEFAULT_TIMEOUT, Effect, Endpoint, Registry
from guestwire.contract.parameters import Audited, OfVm
from guestwire.contract.text import ByteText, PlainText, to_bytes
from guestwire.errors import AgentError, GuestError

endpoints = Registry()

PATH: Final = "/nodes/{node}/qemu/{vmid}/agent"

MAX_READ: Final = 16 * 1024 * 1024
MAX_CONTENT: Final = 60 * 1024
MAX_INPUT: Final = 64 * 1024

UNRESTRICTED: Final = "VM.GuestAgent.Unrestricted"


def _on_vm(*any_of: str) -> Privileges:
    return Privileges("/vms/{vmid}", (*any_of, UNRESTRICTED))


AUDIT: Final = _on_vm("VM.GuestAgent.Audit")
FILE_READ: Final = _on_vm("VM.GuestAgent.FileRead")
FILE_WRITE: Final = _on_vm("VM.GuestAgent.FileWrite")
FILE_SYSTEMS: Final = _on_vm("VM.GuestAgent.FileSystemMgmt")
FILE_SYSTEMS_STATE: Final = _on_vm("VM.GuestAgent.Audit", "VM.GuestAgent.FileSystemMgmt")
POWER: Final = _on_vm("VM.PowerMgmt")
EVERYTHING: Final = _on_vm()
EVERYTHING_TWICE: Final = _on_vm(UNRESTRICTED)
"""Proxmox VE's POST agent names it twice, and so does its refusal."""


class Forwarded(msgspec.Struct, frozen=True):
    """What the agent answered, as it answered; its error too, as `{"error": {"class": …, "desc": …}}`."""

    result: Any


class AgentFault(msgspec.Struct, frozen=True):
    """An agent's error inside an answer."""

    error_class: str = msgspec.field(name="class")
    desc: str


@dataclass(frozen=True, slots=True)
class Simple:
    """An endpoint that hands on one command without arguments, and its answer."""

    method: str
    name: str
    ask: TypedCommand[Any]
    check: Privileges
    effect: Effect
    summary: str


SIMPLE: Final = (
    Simple("POST", "fsfreeze-freeze", qga.FSFREEZE_FREEZE, FILE_SYSTEMS, Effect.DISRUPTS, "Freezes the guest's file systems; returns how many."),
    Simple("POST", "fsfreeze-status", qga.FSFREEZE_STATUS, FILE_SYSTEMS_STATE, Effect.READS, "Says whether the guest's file systems are frozen or thawed."),
    Simple("POST", "fsfreeze-thaw", qga.FSFREEZE_THAW, FILE_SYSTEMS, Effect.WRITES, "Thaws the guest's file systems; returns how many."),
    Simple("POST", "fstrim", qga.FSTRIM, FILE_SYSTEMS, Effect.WRITES, "Gives unused blocks of the guest's file systems back."),
    Simple("GET", "get-fsinfo", qga.GET_FSINFO, AUDIT, Effect.READS, "Lists the guest's file systems with their use and disks."),
    Simple("GET", "get-host-name", qga.GET_HOST_NAME, AUDIT, Effect.READS, "Reads the guest's host name."),
    Simple("GET", "get-memory-block-info", qga.GET_MEMORY_BLOCK_INFO, AUDIT, Effect.READS, "Reads the size of the guest's memory blocks."),
    Simple("GET", "get-memory-blocks", qga.GET_MEMORY_BLOCKS, AUDIT, Effect.READS, "Lists the guest's memory blocks."),
    Simple("GET", "get-osinfo", qga.GET_OSINFO, AUDIT, Effect.READS, "Says which operating system the guest runs."),
    Simple("GET", "get-time", qga.GET_TIME, AUDIT, Effect.READS, "Reads the guest's clock in nanoseconds since the epoch."),
    Simple("GET", "get-timezone", qga.GET_TIMEZONE, AUDIT, Effect.READS, "Reads the guest's time zone."),
    Simple("GET", "get-users", qga.GET_USERS, AUDIT, Effect.READS, "Lists who is logged in to the guest."),
    Simple("GET", "get-vcpus", qga.GET_VCPUS, AUDIT, Effect.READS, "Lists the guest's processors."),
    Simple("GET", "info", qga.INFO, AUDIT, Effect.READS, "Says which version the agent has and which commands it supports."),
    Simple("GET", "network-get-interfaces", qga.NETWORK_GET_INTERFACES, AUDIT, Effect.READS, "Lists the guest's network interfaces and addresses."),
    Simple("POST", "ping", qga.PING, AUDIT, Effect.READS, "Checks that the agent answers."),
    Simple("POST", "shutdown", qga.SHUTDOWN, POWER, Effect.DISRUPTS, "Shuts the guest down."),
    Simple("POST", "suspend-disk", qga.SUSPEND_DISK, POWER, Effect.DISRUPTS, "Suspends the guest to disk."),
    Simple("POST", "suspend-hybrid", qga.SUSPEND_HYBRID, POWER, Effect.DISRUPTS, "Suspends the guest to disk and memory."),
    Simple("POST", "suspend-ram", qga.SUSPEND_RAM, POWER, Effect.DISRUPTS, "Suspends the guest to memory."),
)  # fmt: skip
_BY_NAME: Final = {simple.name: simple for simple in SIMPLE}


async def _forward(context: Context, vmid: int, simple: Simple) -> Forwarded:
    agent = await context.agent(vmid)
    try:
        return Forwarded(await agent.execute_raw(simple.ask.command))
    except AgentError as error:
        return Forwarded({"error": AgentFault(error.error_class, error.description)})


def _forwarding(simple: Simple) -> Callable[[Context, OfVm], Awaitable[Forwarded]]:
    async def function(context: Context, parameters: OfVm) -> Forwarded:
        return await _forward(context, parameters.vmid, simple)

    return function


for _simple in SIMPLE:
    endpoints.add(
        Endpoint(
            method=_simple.method,
            path=f"{PATH}/{_simple.name}",
            name=_simple.name,
            summary=_simple.summary,
            parameters=OfVm,
            returns=Forwarded,
            check=_simple.check,
            effect=_simple.effect,
            timeout=_simple.ask.command.timeout + DEFAULT_TIMEOUT,
            function=_forwarding(_simple),
            is_bounded=True,
        )
    )


class Name(msgspec.Struct, frozen=True):
    """One name below a path."""

    name: str


class Index(OfVm, frozen=True, kw_only=True):
    """Parameters of the index: others are ignored."""

    allows_others = True


@endpoints.endpoint("GET", PATH, Index)
async def index(_context: Context, _parameters: Index) -> list[Name]:
    """Names the endpoints below; the VM need not exist."""
    return [Name(name) for name in endpoints.children(PATH)]


class Legacy(OfVm, frozen=True, kw_only=True):
    """Parameters of the old way to give a command."""

    command: Annotated[str, Meta(description="The command.", extra={"enum": tuple(sorted(_BY_NAME))})]


@endpoints.endpoint(
    "POST",
    PATH,
    Legacy,
    check=EVERYTHING_TWICE,
    effect=Effect.DISRUPTS,
    timeout=max(simple.ask.command.timeout for simple in SIMPLE) + DEFAULT_TIMEOUT,
)
async def legacy(context: Context, parameters: Legacy) -> Forwarded:
    """Executes a command that has no parameters; each has an endpoint of its own too."""
    return await _forward(context, parameters.vmid, _BY_NAME[parameters.command])


class SetUserPassword(OfVm, frozen=True, kw_only=True):
    """Parameters of set-user-password."""

    username: Annotated[str, Meta(description="The user in the guest.", examples=["root"])]
    password: Annotated[
        str, Meta(description="The new password.", min_length=5, max_length=1024, extra={"secret": True})
    ]
    crypted: Annotated[bool, Meta(description="The password is a hash already.")] = False


@endpoints.endpoint("POST", f"{PATH}/set-user-password", SetUserPassword, check=EVERYTHING, effect=Effect.WRITES)
async def set_user_password(context: Context, parameters: SetUserPassword) -> Forwarded:
    """Sets the password of a user in the guest."""
    agent = await context.agent(parameters.vmid)
    arguments = {
        "username": parameters.username,
        "password": to_bytes(parameters.password),
        "crypted": parameters.crypted,
    }
    return Forwarded(await agent.execute(qga.SET_USER_PASSWORD, arguments))


class Exec(OfVm, frozen=True, kw_only=True):
    """Parameters of exec."""

    command: Annotated[
        list[str],
        Meta(
            description="Program and arguments; a single text is a program's name, not a command line.",
            examples=[["systemctl", "is-active", "ssh"]],
            extra={"audited": Audited.COMMAND},
        ),
    ]
    input_data: (
        Annotated[
            str,
            Meta(
                description="What the program reads from standard input.",
                max_length=MAX_INPUT,
                extra={"secret": True, "audited": Audited.SIZE},
            ),
        ]
        | None
    ) = None


class Started(msgspec.Struct, frozen=True):
    """A process that was started; `pid` is its id in the guest."""

    pid: int


@endpoints.endpoint("POST", f"{PATH}/exec", Exec, check=EVERYTHING, effect=Effect.DISRUPTS)
async def execute(context: Context, parameters: Exec) -> Started:
    """Starts a program in the guest; exec-status tells how it ends."""
    agent = await context.agent(parameters.vmid)
    if not parameters.command and not parameters.input_data:
        raise GuestError("command or input-data (or both) required")
    input_data = None if parameters.input_data is None else to_bytes(parameters.input_data)
    return Started(await agent.processes.start(parameters.command, input_data))


class ExecStatus(OfVm, frozen=True, kw_only=True):
    """Parameters of exec-status."""

    pid: Annotated[int, Meta(description="The process's id in the guest, as exec returned it.")]


class ProcessState(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """How a process does; flags are 1 and 0, output is there only when there was some, a code point each byte."""

    exited: int
    exitcode: int | None = None
    signal: int | None = None
    out_data: ByteText | None = None
    out_truncated: int | None = None
    err_data: ByteText | None = None
    err_truncated: int | None = None


@endpoints.endpoint("GET", f"{PATH}/exec-status", ExecStatus, check=EVERYTHING, timeout=120)
async def exec_status(context: Context, parameters: ExecStatus) -> ProcessState:
    """Tells whether a process still runs, or how it ended and what it wrote."""
    agent = await context.agent(parameters.vmid)
    status = await agent.processes.status(parameters.pid)
    return ProcessState(
        exited=int(status.exited),
        exitcode=status.exitcode,
        signal=status.signal,
        out_data=_text(status.out_data),
        out_truncated=_flag(status.out_data, status.out_truncated),
        err_data=_text(status.err_data),
        err_truncated=_flag(status.err_data, status.err_truncated),
    )


def _text(data: bytes | None) -> ByteText | None:
    return ByteText([data]) if data is not None else None


def _flag(data: bytes | None, truncated: bool | None) -> int | None:  # noqa: FBT001  # as the agent gives it
    return int(bool(truncated)) if data is not None else None


class FileRead(OfVm, frozen=True, kw_only=True):
    """Parameters of file-read."""

    file: Annotated[str, Meta(description="The path in the guest.", examples=["/etc/hostname"])]
    count: Annotated[int, Meta(description="Bytes to read at most.", ge=1, le=MAX_READ)] = MAX_READ
    offset: Annotated[int, Meta(description="Bytes to skip first.", ge=0)] = 0
    decode: Annotated[bool, Meta(description="Answer text, a code point each byte; otherwise base64.")] = True


class FileContent(msgspec.Struct, frozen=True, rename="kebab"):
    """What was read; `truncated` is 1 when the end of the file was not seen, else absent."""

    content: ByteText
    bytes_read: int
    truncated: int | UnsetType = msgspec.field(name="truncated", default=UNSET)


@endpoints.endpoint("GET", f"{PATH}/file-read", FileRead, check=FILE_READ, timeout=600)
async def file_read(context: Context, parameters: FileRead) -> FileContent:
    """Reads a file, 16 MiB at most; offset and count read a part."""
    agent = await context.agent(parameters.vmid)
    contents = await agent.files.read(parameters.file, offset=parameters.offset, count=parameters.count)
    text = ByteText(contents.pieces) if parameters.decode else PlainText(contents.base64())
    return FileContent(text, contents.size, 1 if contents.truncated else UNSET)


class FileWrite(OfVm, frozen=True, kw_only=True):
    """Parameters of file-write."""

    file: Annotated[str, Meta(description="The path in the guest.", examples=["/etc/hostname"])]
    content: Annotated[
        str,
        Meta(
            description="The whole file.",
            max_length=MAX_CONTENT,
            extra={"secret": True, "audited": Audited.DIGEST},
        ),
    ]
    encode: Annotated[bool, Meta(description="The content is text; otherwise it is base64 already.")] = True


@endpoints.endpoint("POST", f"{PATH}/file-write", FileWrite, check=FILE_WRITE, effect=Effect.WRITES, timeout=60)
async def file_write(context: Context, parameters: FileWrite) -> None:
    """Writes a whole file."""
    agent = await context.agent(parameters.vmid)
    if parameters.encode:
        await agent.files.write(parameters.file, to_bytes(parameters.content))
    else:
        await agent.files.write_encoded(parameters.file, parameters.content)
