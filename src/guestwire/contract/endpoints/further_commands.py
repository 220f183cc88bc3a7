"""The agent's commands that Proxmox VE's API lacks, under our own path: `/nodes/{node}/qemu/{vmid}/guestwire`.

Names, privileges and answers are as those of Proxmox VE; the freeze of single mount points stands in
`leases.py`, `exec` in `processes.py` and `file-append` in `files.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from guestwire.access.values import split_list
from guestwire.agent import commands as qga
from guestwire.agent.missing_commands import explain_missing
from guestwire.agent.results import (
    AuthorizedKeys,
    CpuStats,
    Device,
    Disk,
    DiskStats,
    Done,
    Load,
    MemoryBlockChange,
    Route,
    TrimResult,
)
from guestwire.contract.context import GuestContext
from guestwire.contract.endpoint import OWN, VM, Effect, Registry
from guestwire.contract.endpoints.agent import AUDIT, EVERYTHING, FILE_SYSTEMS, POWER, ask, fault_in, within
from guestwire.contract.faces import Column, CommandView, Level, Table, ToolView
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.contract.results import Forwarded
from guestwire.counting import counted
from guestwire.errors import AgentError, CommandFailed, InvalidParameters

endpoints = Registry()

OURS: Final = f"{VM}/{OWN}"

MOST_NUMBERS: Final = 4096
"""Processors or blocks of memory in one call."""

LATEST: Final = 2**63 - 1
"""Nanoseconds since the epoch, in the year 2262."""

DISKS: Final = Table(
    (
        Column("DISK", "name"),
        Column("PARTITION", "partition", "yes-no"),
        Column("STANDS ON", "dependencies", "lines"),
        Column("BUS", "address", "bus"),
        Column("SERIAL", "address", "serial"),
        Column("ALIAS", "alias"),
        Column("SMART", "smart", "smart"),
    ),
    sort="name",
)
DISK_COUNTERS: Final = Table(
    (
        Column("DISK", "name"),
        Column("READ", "stats", "read-bytes"),
        Column("READS", "stats", "read-ios"),
        Column("WRITTEN", "stats", "written-bytes"),
        Column("WRITES", "stats", "write-ios"),
        Column("BUSY", "stats", "busy"),
    )
)
PROCESSOR_TIMES: Final = Table(
    (
        Column("CPU", "cpu"),
        Column("USER", "user", "milliseconds"),
        Column("SYSTEM", "system", "milliseconds"),
        Column("IDLE", "idle", "milliseconds"),
        Column("WAITING", "iowait", "milliseconds"),
        Column("STOLEN", "steal", "milliseconds"),
    )
)
DRIVERS: Final = Table(
    (
        Column("DRIVER", "driver-name"),
        Column("VERSION", "driver-version"),
        Column("DATE", "driver-date", "day"),
        Column("DEVICE", "id", "device-id"),
    ),
    sort="driver-name",
)


@endpoints.endpoint(
    "GET", f"{OURS}/get-disks", VmParameters, check=AUDIT, timeout=within(qga.GET_DISKS), tool=ToolView(),
    command=CommandView("disks", "Show a guest's disks, partitions and volumes.", DISKS),
    instead="guestwire exec GUEST -- lsblk",
)  # fmt: skip
async def get_disks(context: GuestContext, parameters: VmParameters) -> Forwarded[list[Disk]]:
    """Lists the guest's disks, partitions and volumes, and what they stand on."""
    return await ask(context, parameters, qga.GET_DISKS)


@endpoints.endpoint(
    "GET", f"{OURS}/get-diskstats", VmParameters, check=AUDIT, timeout=within(qga.GET_DISKSTATS), tool=ToolView(),
    command=CommandView("diskstats", "Show what a guest's disks have read and written.", DISK_COUNTERS),
    instead="guestwire cat GUEST:/proc/diskstats",
)  # fmt: skip
async def get_diskstats(context: GuestContext, parameters: VmParameters) -> Forwarded[list[DiskStats]]:
    """Reads the counters of the guest's disks."""
    return await ask(context, parameters, qga.GET_DISKSTATS)


@endpoints.endpoint(
    "GET", f"{OURS}/get-cpustats", VmParameters, check=AUDIT, timeout=within(qga.GET_CPUSTATS), tool=ToolView(),
    command=CommandView("cpustats", "Show what a guest's processors have done.", PROCESSOR_TIMES),
    instead="guestwire cat GUEST:/proc/stat",
)  # fmt: skip
async def get_cpustats(context: GuestContext, parameters: VmParameters) -> Forwarded[list[CpuStats]]:
    """Reads the time that each of the guest's processors has spent, in milliseconds."""
    return await ask(context, parameters, qga.GET_CPUSTATS)


@endpoints.endpoint(
    "GET", f"{OURS}/get-load", VmParameters, check=AUDIT, timeout=within(qga.GET_LOAD), tool=ToolView(),
    instead="guestwire cat GUEST:/proc/loadavg",
)  # fmt: skip
async def get_load(context: GuestContext, parameters: VmParameters) -> Forwarded[Load]:
    """Reads the guest's load."""
    return await ask(context, parameters, qga.GET_LOAD)


@endpoints.endpoint(
    "GET", f"{OURS}/network-get-route", VmParameters, check=AUDIT, timeout=within(qga.NETWORK_GET_ROUTE), tool=ToolView(),
    instead="guestwire exec GUEST -- ip route",
)  # fmt: skip
async def network_get_route(context: GuestContext, parameters: VmParameters) -> Forwarded[list[Route]]:
    """Lists the guest's routes."""
    return await ask(context, parameters, qga.NETWORK_GET_ROUTE)


@endpoints.endpoint(
    "GET", f"{OURS}/get-devices", VmParameters, check=AUDIT, timeout=within(qga.GET_DEVICES), tool=ToolView(),
    command=CommandView("drivers", "Show a Windows guest's devices and their drivers.", DRIVERS),
    instead="guestwire exec GUEST -- pnputil /enum-drivers",
)  # fmt: skip
async def get_devices(context: GuestContext, parameters: VmParameters) -> Forwarded[list[Device]]:
    """Lists a Windows guest's devices and their drivers."""
    return await ask(context, parameters, qga.GET_DEVICES)


# Keys. What opens a door of the guest is seen by all who may look, and changed by those who may do everything.

USER: Final = parameter("The user in the guest.", Role.TEXT, examples=["root"], ends_at_nul=True)
KEYS: Final = parameter("Public keys, as in authorized_keys.", Role.TEXT, ends_at_nul=True)


class KeysOfUser(VmParameters, frozen=True, kw_only=True):
    """Parameters of ssh-get-authorized-keys."""

    username: Annotated[str, USER]


class RemoveKeys(KeysOfUser, frozen=True, kw_only=True):
    """Parameters of ssh-remove-authorized-keys."""

    keys: Annotated[list[str], KEYS]


class AddKeys(RemoveKeys, frozen=True, kw_only=True):
    """Parameters of ssh-add-authorized-keys."""

    reset: Annotated[bool, parameter("These keys are all: others are removed.")] = False


@endpoints.endpoint(
    "GET", f"{OURS}/ssh-get-authorized-keys", KeysOfUser, check=AUDIT, timeout=within(qga.SSH_GET_AUTHORIZED_KEYS),
    tool=ToolView(), instead="guestwire cat GUEST:/home/USER/.ssh/authorized_keys",
)  # fmt: skip
async def ssh_get_authorized_keys(context: GuestContext, parameters: KeysOfUser) -> Forwarded[AuthorizedKeys]:
    """Reads the SSH keys that may log in as a user of the guest."""
    return await ask(context, parameters, qga.SSH_GET_AUTHORIZED_KEYS, {"username": parameters.username})


# A key is a login, as a password is: it needs the same privilege and level.
@endpoints.endpoint(
    "POST", f"{OURS}/ssh-add-authorized-keys", AddKeys, check=EVERYTHING, effect=Effect.WRITES,
    timeout=within(qga.SSH_ADD_AUTHORIZED_KEYS),
    tool=ToolView(Level.MANAGE, hint="Whoever has the keys can log in then; with reset, nobody else by key."),
    instead="guestwire edit GUEST:/home/USER/.ssh/authorized_keys",
)  # fmt: skip
async def ssh_add_authorized_keys(context: GuestContext, parameters: AddKeys) -> Forwarded[Done]:
    """Lets SSH keys log in as a user of the guest."""
    arguments = {"username": parameters.username, "keys": parameters.keys, "reset": parameters.reset}
    return await ask(context, parameters, qga.SSH_ADD_AUTHORIZED_KEYS, arguments)


@endpoints.endpoint(
    "POST", f"{OURS}/ssh-remove-authorized-keys", RemoveKeys, check=EVERYTHING, effect=Effect.WRITES,
    timeout=within(qga.SSH_REMOVE_AUTHORIZED_KEYS),
    tool=ToolView(Level.MANAGE, hint="Whoever has them can't log in by them any more."),
    instead="guestwire edit GUEST:/home/USER/.ssh/authorized_keys",
)  # fmt: skip
async def ssh_remove_authorized_keys(context: GuestContext, parameters: RemoveKeys) -> Forwarded[Done]:
    """Lets SSH keys log in as a user of the guest no more."""
    arguments = {"username": parameters.username, "keys": parameters.keys}
    return await ask(context, parameters, qga.SSH_REMOVE_AUTHORIZED_KEYS, arguments)


# The machine. None of Proxmox VE's finer privileges is about clock, processors and memory of a guest, and each of them can
# harm all that runs in it: so they need the one that stands for all.


class SetTime(VmParameters, frozen=True, kw_only=True):
    """Parameters of set-time."""

    time: (
        Annotated[int, parameter("Nanoseconds since the epoch; without it, the VM's own clock.", ge=0, le=LATEST)]
        | None
    ) = None


@endpoints.endpoint(
    "POST", f"{OURS}/set-time", SetTime, check=EVERYTHING, effect=Effect.WRITES, timeout=within(qga.SET_TIME),
    tool=ToolView(Level.MANAGE, hint="Programs in the guest may take a jump of its clock badly."),
    instead="guestwire exec GUEST -- hwclock --hctosys, or date --set",
)  # fmt: skip
async def set_time(context: GuestContext, parameters: SetTime) -> Forwarded[Done]:
    """Sets the guest's clock, and by it that of its VM; or the other way round."""
    arguments = {} if parameters.time is None else {"time": parameters.time}
    return await ask(context, parameters, qga.SET_TIME, arguments)


Numbers = Annotated[str, parameter("Numbers and ranges, as 0-3,5.", Role.TEXT, format="guestwire-numbers-list")]


class SetVcpus(VmParameters, frozen=True, kw_only=True):
    """Parameters of set-vcpus: those in neither of the two stay as they are."""

    online: Numbers = ""
    offline: Numbers = ""


@endpoints.endpoint(
    "POST", f"{OURS}/set-vcpus", SetVcpus, check=EVERYTHING, effect=Effect.WRITES, timeout=within(qga.SET_VCPUS),
    tool=ToolView(Level.MANAGE), instead="guestwire exec GUEST -- chcpu --enable 0-3",
)  # fmt: skip
async def set_vcpus(context: GuestContext, parameters: SetVcpus) -> Forwarded[int]:
    """Sets processors of the guest online and offline; returns how many."""
    wanted = _changes(parameters.online, parameters.offline)
    vcpus = [{"logical-id": number, "online": online} for number, online in wanted.items()]
    agent, name = await context.agent(parameters.vmid), qga.SET_VCPUS.command.name
    done = 0
    # It stops at the first that fails, and says how many were done; only where that is the first of all it says why.
    while done < len(vcpus):
        try:
            count = await agent.execute(qga.SET_VCPUS, {"vcpus": vcpus[done:]})
        except AgentError as error:
            explained = await explain_missing(agent, name, error)
            before = f" ({counted(done, 'processor was', 'processors were')} set before)" if done else ""
            answer: Any = fault_in(AgentError(explained.error_class, explained.description + before))
            return Forwarded(answer)
        if not 0 < count <= len(vcpus) - done:
            raise CommandFailed(agent.guest, name, f"{count} processors set of {len(vcpus) - done}")
        done += count
    return Forwarded(done)


class SetMemoryBlocks(VmParameters, frozen=True, kw_only=True):
    """Parameters of set-memory-blocks: those in neither of the two stay as they are."""

    online: Numbers = ""
    offline: Numbers = ""


@endpoints.endpoint(
    "POST", f"{OURS}/set-memory-blocks", SetMemoryBlocks, check=EVERYTHING, effect=Effect.WRITES,
    timeout=within(qga.SET_MEMORY_BLOCKS), tool=ToolView(Level.MANAGE, hint="Seldom of use."),
    instead="guestwire exec GUEST -- chmem --enable --blocks 0-3",
)  # fmt: skip
async def set_memory_blocks(context: GuestContext, parameters: SetMemoryBlocks) -> Forwarded[list[MemoryBlockChange]]:
    """Sets memory blocks of the guest online and offline; says of each how that ended."""
    wanted = _changes(parameters.online, parameters.offline)
    blocks = [{"phys-index": number, "online": online} for number, online in wanted.items()]
    return await ask(context, parameters, qga.SET_MEMORY_BLOCKS, {"mem-blks": blocks})


def _changes(online: str, offline: str) -> Mapping[int, bool]:
    """The numbers, and whether each is to be online.

    Raises:
        InvalidParameters: there are none, too many, or one is in both.
    """
    on, off = _numbers("online", online), _numbers("offline", offline)
    if both := on.keys() & off.keys():
        raise InvalidParameters({"offline": f"{min(both)} is to be online, too"})
    if not on and not off:
        raise InvalidParameters({"online": "one of online and offline must have numbers"})
    return dict.fromkeys(on, True) | dict.fromkeys(off, False)


def _numbers(name: str, text: str) -> dict[int, None]:
    found: dict[int, None] = {}
    for item in split_list(text):
        first, _, last = item.partition("-")
        wanted = range(int(first), int(last or first) + 1)
        if not wanted:
            raise InvalidParameters({name: f"{item}: a range begins with its smaller number"})
        if len(found) + len(wanted) > MOST_NUMBERS:
            raise InvalidParameters({name: f"more than {MOST_NUMBERS} numbers"})
        found |= dict.fromkeys(wanted)
    return found


# Proxmox VE has these, without the parameters.


class ShutdownMode(VmParameters, frozen=True, kw_only=True):
    """Parameters of our own shutdown."""

    mode: Annotated[
        str,
        parameter("The VM is off, its guest halts, or starts anew.", Role.TEXT, enum=("powerdown", "halt", "reboot")),
    ] = "powerdown"


@endpoints.endpoint(
    "POST", f"{OURS}/shutdown", ShutdownMode, check=POWER, effect=Effect.DISRUPTS, name="shutdown-mode",
    timeout=within(qga.SHUTDOWN_MODE), tool=ToolView(hint="Ends everything that runs in the guest; after halt, its VM goes on without it."),
    instead="guestwire power reboot GUEST, or guestwire shutdown GUEST",
)  # fmt: skip
async def shutdown_mode(context: GuestContext, parameters: ShutdownMode) -> Forwarded[None]:
    """Shuts the guest down, halts it, or has it start anew."""
    return await ask(context, parameters, qga.SHUTDOWN_MODE, {"mode": parameters.mode})


class TrimMinimum(VmParameters, frozen=True, kw_only=True):
    """Parameters of our own fstrim."""

    minimum: Annotated[int, parameter("Bytes: smaller free ranges are left out.", ge=0, le=LATEST)] = 0


@endpoints.endpoint(
    "POST", f"{OURS}/fstrim", TrimMinimum, check=FILE_SYSTEMS, effect=Effect.WRITES, name="fstrim-minimum",
    timeout=within(qga.FSTRIM), tool=ToolView(hint="May take minutes on large disks.", destroys=False),
    instead="guestwire trim GUEST, which leaves out nothing",
)  # fmt: skip
async def fstrim_minimum(context: GuestContext, parameters: TrimMinimum) -> Forwarded[TrimResult]:
    """Gives unused blocks of the guest's file systems back, in ranges that are long enough."""
    return await ask(context, parameters, qga.FSTRIM, {"minimum": parameters.minimum})
