"""The VM itself, beside the agent in it: its state and what it is.

What Proxmox VE reads from a VM's configuration file comes from guestwire's own, and from QEMU while the VM runs.

Source: Proxmox VE's API under `/nodes/{node}/qemu/{vmid}`.
"""

import hashlib
from typing import Annotated, Any, Final

import msgspec
from msgspec import field

from guestwire.access.checks import Privileges
from guestwire.contract.context import MachineContext, VmDefinition, VmState
from guestwire.contract.endpoint import VM, Registry
from guestwire.contract.faces import CommandView, Facts, Level, ToolView
from guestwire.contract.parameters import Role, VmParameters, parameter
from guestwire.contract.results import Subdirectory
from guestwire.errors import GuestError, VmNotFound

endpoints = Registry()

AUDIT: Final = Privileges("/vms/{vmid}", ("VM.Audit",))
SNAPSHOT: Final = Privileges("/vms/{vmid}", ("VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit"))

INDEX: Final = (
    "config", "cloudinit", "pending", "status", "unlink", "vncproxy", "termproxy", "migrate", "resize", "move", "rrd",
    "rrddata", "monitor", "agent", "snapshot", "spiceproxy", "sendkey", "firewall", "mtunnel", "remote_migrate",
)  # fmt: skip
STATUS_INDEX: Final = ("current", "start", "stop", "reset", "shutdown", "suspend", "reboot")
"""The names that Proxmox VE's indexes list, in its order."""

CURRENT: Final = "current"
"""The name of the state that is no snapshot."""


class CurrentStatus(VmState, frozen=True, kw_only=True, omit_defaults=True):
    """A VM's state, with whether it has an agent, and that nothing makes it highly available."""

    agent: int | None = None
    ha: dict[str, int] = field(default_factory=lambda: {"managed": 0})


class VmConfiguration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a VM is, in the words of Proxmox VE's configuration; `memory` in MiB. What is not known is left out."""

    digest: str
    name: str | None = None
    agent: str | None = None
    description: str | None = None
    tags: str | None = None
    cores: int | None = None
    memory: str | None = None
    machine: str | None = None
    smbios1: str | None = None
    net0: str | None = None
    net1: str | None = None
    net2: str | None = None
    net3: str | None = None


class PendingValue(msgspec.Struct, frozen=True):
    """A value of the configuration; none waits for a restart here."""

    key: str
    value: str | int


class Snapshot(msgspec.Struct, frozen=True):
    """The present state: there are no snapshots here."""

    digest: str
    running: int
    name: str = CURRENT
    description: str = "You are here!"


class SnapshotCommand(msgspec.Struct, frozen=True):
    """What can be asked of a snapshot."""

    cmd: str


SnapshotName = Annotated[str, parameter("The name of a snapshot.", Role.TEXT, format="pve-configid", max_length=40)]


class ShowConfig(VmParameters, frozen=True, kw_only=True):
    """Parameters of the configuration."""

    current: Annotated[
        bool, parameter("Values that hold now, not after a restart: here they are the same.", means_nothing=True)
    ] = False
    snapshot: SnapshotName | None = None


class OneSnapshot(VmParameters, frozen=True, kw_only=True):
    """A snapshot."""

    snapname: SnapshotName


@endpoints.endpoint("GET", VM, VmParameters)
async def index(_context: object, _parameters: VmParameters) -> list[Subdirectory]:
    """Names the parts of a VM's API."""
    return [Subdirectory(name) for name in INDEX]


@endpoints.endpoint("GET", f"{VM}/status", VmParameters)
async def status_index(_context: object, _parameters: VmParameters) -> list[Subdirectory]:
    """Names what can be asked about a VM's state, and done to it."""
    return [Subdirectory(name) for name in STATUS_INDEX]


@endpoints.endpoint(
    "GET", f"{VM}/status/current", VmParameters, check=AUDIT, name="vm-status",
    tool=ToolView(Level.READ, hint="What the host sees; works without an agent, too."),
    command=CommandView("vm", "Show the VM itself: its state, load and memory.", Facts({
        "name": "name", "status": "status", "qmpstatus": "state in QEMU", "uptime": "runs for", "cpus": "processors",
        "cpu": "of them in use", "mem": "memory in use", "maxmem": "memory", "netin": "received", "netout": "sent",
        "diskread": "read from disks", "diskwrite": "written to disks", "tags": "tags", "pid": "process",
        "running-machine": "machine", "running-qemu": "QEMU",
    }, {
        "uptime": "duration", "cpu": "percent",
        **dict.fromkeys(("mem", "maxmem", "netin", "netout", "diskread", "diskwrite"), "size"),
    })),
)  # fmt: skip
async def current(context: MachineContext, parameters: VmParameters) -> CurrentStatus:
    """Shows the state of a VM: whether it runs, and what it uses."""
    details = await _details(context, parameters.vmid)
    definition = await context.definition(parameters.vmid)
    return CurrentStatus(**msgspec.structs.asdict(details), agent=1 if definition.has_agent else None)


@endpoints.endpoint("GET", f"{VM}/config", ShowConfig, check=AUDIT, name="vm-config", tool=ToolView(Level.READ))
async def config(context: MachineContext, parameters: ShowConfig) -> VmConfiguration:
    """Shows what a VM is."""
    if parameters.snapshot is not None:
        await context.definition(parameters.vmid)
        raise GuestError(f"snapshot '{parameters.snapshot}' does not exist")
    return await _configuration(context, parameters.vmid)


@endpoints.endpoint("GET", f"{VM}/pending", VmParameters, check=AUDIT, name="vm-pending")
async def pending(context: MachineContext, parameters: VmParameters) -> list[PendingValue]:
    """Lists the values of a VM's configuration; none waits for a restart here."""
    return [PendingValue(key, value) for key, value in _values(await _configuration(context, parameters.vmid)).items()]


@endpoints.endpoint("GET", f"{VM}/snapshot", VmParameters, check=AUDIT, name="vm-snapshots", tool=ToolView(Level.READ))
async def snapshots(context: MachineContext, parameters: VmParameters) -> list[Snapshot]:
    """Lists a VM's snapshots: only its present state, for guestwire makes none."""
    details = await _details(context, parameters.vmid)
    found = await _configuration(context, parameters.vmid)
    return [Snapshot(found.digest, int(details.status == "running"))]


@endpoints.endpoint("GET", f"{VM}/snapshot/{{snapname}}", OneSnapshot)
async def snapshot_index(_context: object, _parameters: OneSnapshot) -> list[SnapshotCommand]:
    """Names what can be asked of a snapshot."""
    return [SnapshotCommand("rollback"), SnapshotCommand("config")]


@endpoints.endpoint("GET", f"{VM}/snapshot/{{snapname}}/config", OneSnapshot, check=SNAPSHOT)
async def snapshot_config(context: MachineContext, parameters: OneSnapshot) -> VmConfiguration:
    """Shows what a VM was when a snapshot was made: there are none here."""
    await context.definition(parameters.vmid)
    raise GuestError(f"snapshot '{parameters.snapname}' does not exist")


async def _details(context: MachineContext, vmid: int) -> VmState:
    found = await context.details([vmid])
    if not found:
        raise VmNotFound(vmid, context.node)
    return found[0]


async def _configuration(context: MachineContext, vmid: int) -> VmConfiguration:
    known = await context.definition(vmid)
    found = VmConfiguration(digest="", **_known(known))
    digest = hashlib.sha1(msgspec.json.encode(found), usedforsecurity=False).hexdigest()
    return msgspec.structs.replace(found, digest=digest)


def _known(vm: VmDefinition) -> dict[str, Any]:
    return {
        "name": vm.name,
        "agent": "1" if vm.has_agent else None,
        "description": vm.description,
        "tags": ";".join(vm.tags) or None,
        "cores": vm.cpus or None,
        "memory": str(vm.memory // 1024**2) if vm.memory else None,
        "machine": vm.machine,
        "smbios1": f"uuid={vm.uuid}" if vm.uuid else None,
        **{f"net{position}": f"virtio={mac}" for position, mac in enumerate(vm.mac_addresses[:4])},
    }


def _values(found: VmConfiguration) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not None}
