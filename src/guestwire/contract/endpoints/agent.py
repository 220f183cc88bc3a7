"""The guest agent's commands as endpoints: `/nodes/{node}/qemu/{vmid}/agent`.

Source: Proxmox VE's API of the same paths.
"""

from typing import Annotated, Any, Final, TypeVar

from guestwire.access.checks import Privileges
from guestwire.agent import commands as qga
from guestwire.agent.commands import TypedCommand
from guestwire.agent.missing_commands import explain_missing
from guestwire.agent.results import (
    AgentInfo,
    Done,
    FileSystem,
    HostName,
    Interface,
    MemoryBlock,
    MemoryBlockInfo,
    OsInfo,
    TimeZone,
    TrimResult,
    User,
    Vcpu,
)
from guestwire.agent.watchdog import NO_WATCHDOG, Watchdog, arm, disarm
from guestwire.contract.context import FreezeTerms, GuestContext
from guestwire.contract.endpoint import VM, Effect, Registry
from guestwire.contract.faces import Column, CommandView, Facts, Level, Line, Table, ToolView
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.contract.results import AgentFault, Forwarded, Name
from guestwire.contract.text import to_bytes
from guestwire.errors import AgentError, InvalidParameters
from guestwire.wire import Command

endpoints = Registry()

T = TypeVar("T")

AGENT: Final = f"{VM}/agent"

UNRESTRICTED: Final = "VM.GuestAgent.Unrestricted"


def on_vm(*any_of: str) -> Privileges:
    """Any of these privileges on the VM, or the one that stands for all of them."""
    return Privileges("/vms/{vmid}", (*any_of, UNRESTRICTED))


AUDIT: Final = on_vm("VM.GuestAgent.Audit")
FILE_SYSTEMS: Final = on_vm("VM.GuestAgent.FileSystemMgmt")
FILE_SYSTEMS_STATE: Final = on_vm("VM.GuestAgent.Audit", "VM.GuestAgent.FileSystemMgmt")
POWER: Final = on_vm("VM.PowerMgmt")
EVERYTHING: Final = on_vm()

ARRIVING: Final = 60.0
"""Seconds that an answer may take beyond its command's time-out, which is extended while the answer arrives."""

AGENT_COMMANDS: Final = Table(
    (Column("COMMAND", "name"), Column("ENABLED", "enabled", "yes-no")),
    sort="name",
    of="supported_commands",
    title="agent-version",
)
SYSTEM: Final = Facts(
    {
        "pretty-name": "system",
        "id": "id",
        "version": "version",
        "variant": "variant",
        "kernel-release": "kernel",
        "kernel-version": "kernel build",
        "machine": "machine",
    }
)
USERS: Final = Table((Column("USER", "user"), Column("DOMAIN", "domain"), Column("SINCE", "login-time", "time")))
INTERFACES: Final = Table(
    (
        Column("INTERFACE", "name"),
        Column("MAC", "hardware-address"),
        Column("ADDRESSES", "ip-addresses", "addresses"),
    )
)
FILE_SYSTEMS_TABLE: Final = Table(
    (
        Column("FILE SYSTEM", "name"),
        Column("TYPE", "type"),
        Column("SIZE", "total-bytes", "size"),
        Column("USED", "used-bytes", "size"),
        Column("FREE", "", "free-bytes"),
        Column("USE", "", "use-percent"),
        Column("MOUNTED ON", "mountpoint"),
    ),
    sort="mountpoint",
    only="total-bytes",
)
PROCESSORS: Final = Table(
    (
        Column("CPU", "logical-id"),
        Column("ONLINE", "online", "yes-no"),
        Column("CAN GO OFFLINE", "can-offline", "yes-no"),
    )
)


FREEZES: Final[tuple[TypedCommand[Any], ...]] = (qga.FSFREEZE_FREEZE, qga.FSFREEZE_THAW, qga.FSFREEZE_STATUS)


def within(command: TypedCommand[Any]) -> float:
    """Seconds that an endpoint may take that hands on this command."""
    return command.command.timeout + ARRIVING


async def forward(context: GuestContext, parameters: VmParameters, command: TypedCommand[T]) -> Forwarded[T]:
    """The answer to a command without arguments; an error of the agent's own is an answer, too."""
    agent = await context.agent(parameters.vmid)
    answer: Any
    if command in FREEZES:
        if command is qga.FSFREEZE_FREEZE and (lease := context.freeze_lease):
            answer, _ = await freeze_for(context, parameters.vmid, command.command, lease)
            return Forwarded(answer)
        return Forwarded(await freeze_or_thaw(context, parameters.vmid, command.command))
    try:
        answer = await agent.execute_raw(command.command)
    except AgentError as error:
        answer = fault_in(error)
    return Forwarded(answer)


async def freeze_for(
    context: GuestContext,
    vmid: int,
    command: Command,
    lease: float | None,
    arguments: dict[str, Any] | None = None,
    *,
    connected: bool = False,
) -> tuple[Any, Watchdog]:
    """The answer to a freeze with a lease (None: without), and the process in the guest that ends it."""
    agent = await context.agent(vmid)
    async with agent.freeze_turn:  # the watchdog of one freeze ends that of another
        watchdog = NO_WATCHDOG if lease is None else await arm(agent, lease)
        try:
            answer = await freeze_or_thaw(
                context, vmid, command, FreezeTerms(lease, connected, watchdog.process), arguments
            )
        except InvalidParameters:  # nothing was frozen; after any other error something may be
            disarm(agent, watchdog.process)
            raise
        return answer, watchdog


async def freeze_or_thaw(
    context: GuestContext,
    vmid: int,
    command: Command,
    terms: FreezeTerms | None = None,
    arguments: dict[str, Any] | None = None,
) -> Any:
    """The answer to a command about freezes, of which notes are kept; an error of the agent's own is an answer, too.

    The note of a freeze says FREEZE, whichever command it was.
    """
    agent = await context.agent(vmid)
    terms = FreezeTerms() if terms is None else terms  # an object of this call's own: notes are told apart by it
    name = qga.FSFREEZE_FREEZE.command.name if command is qga.FSFREEZE_FREEZE_LIST.command else command.name
    await context.note_sent(vmid, name, terms)
    answer: Any
    try:
        answer = await agent.execute_raw(command, arguments)
    except AgentError as error:
        answer = fault_in(error)
    disarm(agent, await context.note_answer(vmid, name, answer, terms))
    return answer


async def ask(
    context: GuestContext, parameters: VmParameters, command: TypedCommand[T], arguments: dict[str, Any] | None = None
) -> Forwarded[T]:
    """The answer to a command that only our own endpoints have: of its type, and nothing else that the guest sends.

    An error of the agent's own is an answer, too, and says why where the agent lacks the command.
    """
    agent = await context.agent(parameters.vmid)
    try:
        return Forwarded(await agent.execute(command, arguments))
    except AgentError as error:
        explained = await explain_missing(agent, command.command.name, error)
        answer: Any = fault_in(explained)
        return Forwarded(answer)


def fault_in(error: AgentError) -> dict[str, AgentFault]:
    """An agent's error as an answer."""
    return {"error": AgentFault(error.error_class, error.description)}


@endpoints.endpoint(
    "POST",
    f"{AGENT}/fsfreeze-freeze",
    VmParameters,
    check=FILE_SYSTEMS,
    effect=Effect.DISRUPTS,
    timeout=within(qga.FSFREEZE_FREEZE),
    tool=ToolView(
        core=True,
        hint="Everything that writes in the guest waits until fsfreeze_thaw: call that soon.",
        repeatable=True,
        undo="fsfreeze-thaw",
    ),
)
async def fsfreeze_freeze(context: GuestContext, parameters: VmParameters) -> Forwarded[int]:
    """Freezes the guest's file systems; returns how many."""
    return await forward(context, parameters, qga.FSFREEZE_FREEZE)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/fsfreeze-status",
    VmParameters,
    check=FILE_SYSTEMS_STATE,
    timeout=within(qga.FSFREEZE_STATUS),
    tool=ToolView(core=True),
    command=CommandView(
        "freeze-status", "Show if file systems are frozen or thawed.", Line("text"), section="Change a guest"
    ),
)
async def fsfreeze_status(context: GuestContext, parameters: VmParameters) -> Forwarded[str]:
    """Says whether the guest's file systems are frozen or thawed."""
    return await forward(context, parameters, qga.FSFREEZE_STATUS)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/fsfreeze-thaw",
    VmParameters,
    check=FILE_SYSTEMS,
    effect=Effect.WRITES,
    timeout=within(qga.FSFREEZE_THAW),
    tool=ToolView(core=True),
)
async def fsfreeze_thaw(context: GuestContext, parameters: VmParameters) -> Forwarded[int]:
    """Thaws the guest's file systems; returns how many."""
    return await forward(context, parameters, qga.FSFREEZE_THAW)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/fstrim",
    VmParameters,
    check=FILE_SYSTEMS,
    effect=Effect.WRITES,
    timeout=within(qga.FSTRIM),
    tool=ToolView(core=True, hint="May take minutes on large disks.", destroys=False),
)
async def fstrim(context: GuestContext, parameters: VmParameters) -> Forwarded[TrimResult]:
    """Gives unused blocks of the guest's file systems back."""
    return await forward(context, parameters, qga.FSTRIM)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-fsinfo",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_FSINFO),
    tool=ToolView(core=True, hint="Sizes in bytes; use it when a disk may be full."),
    command=CommandView("df", "Show how full a guest's file systems are.", FILE_SYSTEMS_TABLE),
)
async def get_fsinfo(context: GuestContext, parameters: VmParameters) -> Forwarded[list[FileSystem]]:
    """Lists the guest's file systems with their use and disks."""
    return await forward(context, parameters, qga.GET_FSINFO)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-host-name",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_HOST_NAME),
    tool=ToolView(),
    command=CommandView("hostname", "Show a guest's host name.", Line("host-name")),
)
async def get_host_name(context: GuestContext, parameters: VmParameters) -> Forwarded[HostName]:
    """Reads the guest's host name."""
    return await forward(context, parameters, qga.GET_HOST_NAME)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-memory-block-info",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_MEMORY_BLOCK_INFO),
    tool=ToolView(hint="Seldom of use."),
)
async def get_memory_block_info(context: GuestContext, parameters: VmParameters) -> Forwarded[MemoryBlockInfo]:
    """Reads the size of the guest's memory blocks."""
    return await forward(context, parameters, qga.GET_MEMORY_BLOCK_INFO)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-memory-blocks",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_MEMORY_BLOCKS),
    tool=ToolView(hint="Seldom of use."),
)
async def get_memory_blocks(context: GuestContext, parameters: VmParameters) -> Forwarded[list[MemoryBlock]]:
    """Lists the guest's memory blocks."""
    return await forward(context, parameters, qga.GET_MEMORY_BLOCKS)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-osinfo",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_OSINFO),
    tool=ToolView(core=True),
    command=CommandView("osinfo", "Show a guest's operating system.", SYSTEM),
)
async def get_osinfo(context: GuestContext, parameters: VmParameters) -> Forwarded[OsInfo]:
    """Says which operating system the guest runs."""
    return await forward(context, parameters, qga.GET_OSINFO)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-time",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_TIME),
    tool=ToolView(),
    command=CommandView("time", "Show a guest's clock. JSON: nanoseconds since the epoch.", Line("clock")),
)
async def get_time(context: GuestContext, parameters: VmParameters) -> Forwarded[int]:
    """Reads the guest's clock in nanoseconds since the epoch."""
    return await forward(context, parameters, qga.GET_TIME)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-timezone",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_TIMEZONE),
    tool=ToolView(),
    command=CommandView("timezone", "Show a guest's time zone.", Line("zone")),
)
async def get_timezone(context: GuestContext, parameters: VmParameters) -> Forwarded[TimeZone]:
    """Reads the guest's time zone."""
    return await forward(context, parameters, qga.GET_TIMEZONE)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-users",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_USERS),
    tool=ToolView(hint="guest_overview has it, too."),
    command=CommandView("users", "Show who is logged in to a guest.", USERS),
)
async def get_users(context: GuestContext, parameters: VmParameters) -> Forwarded[list[User]]:
    """Lists who is logged in to the guest."""
    return await forward(context, parameters, qga.GET_USERS)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/get-vcpus",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.GET_VCPUS),
    tool=ToolView(),
    command=CommandView("vcpus", "Show a guest's processors.", PROCESSORS),
)
async def get_vcpus(context: GuestContext, parameters: VmParameters) -> Forwarded[list[Vcpu]]:
    """Lists the guest's processors."""
    return await forward(context, parameters, qga.GET_VCPUS)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/info",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.INFO),
    tool=ToolView(hint="Use it when a command is refused as disabled."),
    command=CommandView("info", "Show the agent's version and commands.", AGENT_COMMANDS),
)
async def info(context: GuestContext, parameters: VmParameters) -> Forwarded[AgentInfo]:
    """Says which version the agent has and which commands it supports."""
    return await forward(context, parameters, qga.INFO)


@endpoints.endpoint(
    "GET",
    f"{AGENT}/network-get-interfaces",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.NETWORK_GET_INTERFACES),
    tool=ToolView(core=True),
    command=CommandView("ip", "Show a guest's network interfaces and addresses.", INTERFACES),
)
async def network_get_interfaces(context: GuestContext, parameters: VmParameters) -> Forwarded[list[Interface]]:
    """Lists the guest's network interfaces and addresses."""
    return await forward(context, parameters, qga.NETWORK_GET_INTERFACES)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/ping",
    VmParameters,
    check=AUDIT,
    timeout=within(qga.PING),
    tool=ToolView(core=True, hint="Cheap."),
    command=CommandView("ping", "Check that a guest's agent answers.", Line("answers")),
)
async def ping(context: GuestContext, parameters: VmParameters) -> Forwarded[Done]:
    """Checks that the agent answers."""
    return await forward(context, parameters, qga.PING)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/shutdown",
    VmParameters,
    check=POWER,
    effect=Effect.DISRUPTS,
    timeout=within(qga.SHUTDOWN),
    tool=ToolView(core=True, hint="Ends everything that runs in the guest."),
)
async def shutdown(context: GuestContext, parameters: VmParameters) -> Forwarded[None]:
    """Shuts the guest down."""
    return await forward(context, parameters, qga.SHUTDOWN)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/suspend-disk",
    VmParameters,
    check=POWER,
    effect=Effect.DISRUPTS,
    timeout=within(qga.SUSPEND_DISK),
    tool=ToolView(core=True, hint="It is off until somebody on the host starts it."),
)
async def suspend_disk(context: GuestContext, parameters: VmParameters) -> Forwarded[None]:
    """Suspends the guest to disk."""
    return await forward(context, parameters, qga.SUSPEND_DISK)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/suspend-hybrid",
    VmParameters,
    check=POWER,
    effect=Effect.DISRUPTS,
    timeout=within(qga.SUSPEND_HYBRID),
    tool=ToolView(core=True, hint="It answers no more until somebody on the host wakes it."),
)
async def suspend_hybrid(context: GuestContext, parameters: VmParameters) -> Forwarded[None]:
    """Suspends the guest to disk and memory."""
    return await forward(context, parameters, qga.SUSPEND_HYBRID)


@endpoints.endpoint(
    "POST",
    f"{AGENT}/suspend-ram",
    VmParameters,
    check=POWER,
    effect=Effect.DISRUPTS,
    timeout=within(qga.SUSPEND_RAM),
    tool=ToolView(core=True, hint="It answers no more until somebody on the host wakes it."),
)
async def suspend_ram(context: GuestContext, parameters: VmParameters) -> Forwarded[None]:
    """Suspends the guest to memory."""
    return await forward(context, parameters, qga.SUSPEND_RAM)


INDEX: Final = (
    "exec", "exec-status", "file-read", "file-write", "fsfreeze-freeze", "fsfreeze-status", "fsfreeze-thaw", "fstrim", "get-fsinfo",
    "get-host-name", "get-memory-block-info", "get-memory-blocks", "get-osinfo", "get-time", "get-timezone", "get-users", "get-vcpus",
    "info", "network-get-interfaces", "ping", "set-user-password", "shutdown", "suspend-disk", "suspend-hybrid", "suspend-ram",
)  # fmt: skip
"""The names that Proxmox VE's index lists, and no others: it does not grow with this API."""

COMMANDS: Final[dict[str, TypedCommand[Any]]] = {
    "fsfreeze-freeze": qga.FSFREEZE_FREEZE,
    "fsfreeze-status": qga.FSFREEZE_STATUS,
    "fsfreeze-thaw": qga.FSFREEZE_THAW,
    "fstrim": qga.FSTRIM,
    "get-fsinfo": qga.GET_FSINFO,
    "get-host-name": qga.GET_HOST_NAME,
    "get-memory-block-info": qga.GET_MEMORY_BLOCK_INFO,
    "get-memory-blocks": qga.GET_MEMORY_BLOCKS,
    "get-osinfo": qga.GET_OSINFO,
    "get-time": qga.GET_TIME,
    "get-timezone": qga.GET_TIMEZONE,
    "get-users": qga.GET_USERS,
    "get-vcpus": qga.GET_VCPUS,
    "info": qga.INFO,
    "network-get-interfaces": qga.NETWORK_GET_INTERFACES,
    "ping": qga.PING,
    "shutdown": qga.SHUTDOWN,
    "suspend-disk": qga.SUSPEND_DISK,
    "suspend-hybrid": qga.SUSPEND_HYBRID,
    "suspend-ram": qga.SUSPEND_RAM,
}
"""The commands that Proxmox VE's POST agent takes, and no others."""


class IndexParameters(VmParameters, frozen=True, kw_only=True):
    """Parameters of the index: others are ignored."""

    ignore_unknown = True


@endpoints.endpoint(
    "GET", AGENT, IndexParameters,
    tool=ToolView(Level.READ, hint="Of little use here: each of them is a tool.", name="agent_index"),
)  # fmt: skip
async def index(_context: object, _parameters: IndexParameters) -> list[Name]:
    """Names the endpoints below; the VM need not exist."""
    return [Name(name) for name in INDEX]


class CommandParameters(VmParameters, frozen=True, kw_only=True):
    """Parameters of the old way to give a command."""

    command: Annotated[str, parameter("The command.", Role.TEXT, enum=tuple(COMMANDS))]


@endpoints.endpoint(
    "POST", AGENT, CommandParameters,
    check=on_vm(UNRESTRICTED),  # Proxmox VE names it twice here, and so does its refusal
    effect=Effect.DISRUPTS,
    timeout=max(map(within, COMMANDS.values())),
)  # fmt: skip
async def execute_command(context: GuestContext, parameters: CommandParameters) -> Forwarded[Any]:
    """Executes a command that has no parameters; each has an endpoint of its own too."""
    return await forward(context, parameters, COMMANDS[parameters.command])


class SetUserPassword(VmParameters, frozen=True, kw_only=True):
    """Parameters of set-user-password."""

    username: Annotated[str, parameter("The user in the guest.", Role.TEXT, examples=["root"], ends_at_nul=True)]
    password: Annotated[
        str, parameter("The new password.", Role.SECRET, min_length=5, max_length=1024, ends_at_nul=True)
    ]
    crypted: Annotated[bool, parameter("The password is a hash already.")] = False


@endpoints.endpoint(
    "POST", f"{AGENT}/set-user-password", SetUserPassword, check=EVERYTHING, effect=Effect.WRITES,
    tool=ToolView(Level.MANAGE, core=True, hint="Whoever uses the old one is locked out."),
)  # fmt: skip
async def set_user_password(context: GuestContext, parameters: SetUserPassword) -> Forwarded[Done]:
    """Sets the password of a user in the guest."""
    agent = await context.agent(parameters.vmid)
    arguments = {
        "username": parameters.username,
        "password": to_bytes(parameters.password),
        "crypted": parameters.crypted,
    }
    return Forwarded(await agent.execute(qga.SET_USER_PASSWORD, arguments))
