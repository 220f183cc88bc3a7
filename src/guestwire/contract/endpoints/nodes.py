"""The server itself, its node, and the VMs on it."""

import asyncio
from typing import Annotated, Final

import msgspec

import guestwire
from guestwire.access.checks import Privileges
from guestwire.contract.context import FreezeNote, HostFigures, MachineContext, NodeContext, NodeStatus, VmState
from guestwire.contract.endpoint import OWN, Registry
from guestwire.contract.parameters import NodeParameters, Parameters, Role, parameter
from guestwire.contract.results import Name, Subdirectory
from guestwire.errors import AccessRefused

endpoints = Registry()

SUBDIRECTORIES = ("version", "cluster", "nodes", "storage", "access", "pools")
"""What Proxmox VE lists, in its order: clients look for names here, and get 501 for what is not served."""

INDEX: Final = (
    "aplinfo", "apt", "capabilities", "ceph", "certificates", "config", "disks", "dns", "firewall", "hardware", "hosts", "journal",
    "lxc", "migrateall", "netstat", "network", "qemu", "query-oci-repo-tags", "query-url-metadata", "replication", "report", "rrd",
    "rrddata", "scan", "sdn", "services", "spiceshell", "startall", "status", "stopall", "storage", "subscription", "suspendall",
    "syslog", "tasks", "termproxy", "time", "version", "vncshell", "vzdump", "wakeonlan",
)  # fmt: skip
"""The names that Proxmox VE's index of a node lists; most are not served here."""

SYS_AUDIT: Final = Privileges("/nodes/{node}", ("Sys.Audit",))
ROOT_AUDIT: Final = Privileges("/", ("Sys.Audit",))

SLICE: Final = 100
"""VMs that permissions are asked about in one turn of the loop."""

API_VERSION = "9.2"
"""The release of Proxmox VE whose agent API this is: clients compare it to know which privileges exist."""


class Version(msgspec.Struct, frozen=True):
    """As Proxmox VE's: `version` is compared by clients; `repoid` names what really answers, in hexadecimal digits."""

    version: str
    release: str
    repoid: str
    guestwire: str


class FrozenVm(FreezeNote, frozen=True, omit_defaults=True, kw_only=True):
    """A VM whose file systems are frozen."""

    vmid: int
    name: str


class Node(HostFigures, frozen=True, omit_defaults=True, kw_only=True):
    """One node. Its load is for those with `Sys.Audit` on it; `level` is that of a subscription."""

    node: str
    id: str
    type: str = msgspec.field(default_factory=lambda: "node")
    status: str = msgspec.field(default_factory=lambda: "online")
    level: str = msgspec.field(default_factory=lambda: "")
    ssl_fingerprint: str | None = None


class VmList(NodeParameters, frozen=True, kw_only=True):
    """Parameters of the list of VMs."""

    full: Annotated[bool, parameter("With what QEMU says of running VMs.")] = False


class ListStorage(NodeParameters, frozen=True, kw_only=True):
    """Parameters of the list of a node's storage."""

    content: Annotated[str, parameter("Only what keeps this.", Role.TEXT)] | None = None
    enabled: Annotated[bool, parameter("Only what is enabled.")] = False
    format: Annotated[bool, parameter("With formats.")] = False
    storage: Annotated[str, parameter("Only this one.", Role.TEXT)] | None = None
    target: Annotated[str, parameter("Only what this node has, too.", Role.TEXT)] | None = None


class ListAllStorage(Parameters, frozen=True, kw_only=True):
    """Parameters of the list of storage."""

    type: Annotated[str, parameter("Only storage of this kind.", Role.TEXT)] | None = None


class OneStorage(Parameters, frozen=True, kw_only=True):
    """A storage."""

    storage: Annotated[str, parameter("Its name.", Role.TEXT)]


class Replication(NodeParameters, frozen=True, kw_only=True):
    """Parameters of the list of replication jobs."""

    guest: Annotated[int, parameter("Only jobs of this VM.", ge=100, le=999_999_999, format="pve-vmid")] | None = None


class NodeConfigParameters(NodeParameters, frozen=True, kw_only=True):
    """Parameters of a node's configuration."""

    property: Annotated[str, parameter("Only this value.", Role.TEXT)] | None = None


class Subscription(msgspec.Struct, frozen=True):
    """guestwire sells none."""

    status: str = "notfound"
    message: str = "There is no subscription key"


@endpoints.endpoint("GET", "/", Parameters)
async def index(_context: object, _parameters: Parameters) -> list[Subdirectory]:
    """Names the parts of the API."""
    return [Subdirectory(name) for name in SUBDIRECTORIES]


@endpoints.endpoint("GET", "/version", Parameters)
async def version(_context: object, _parameters: Parameters) -> Version:
    """Says which API this is."""
    return _version()


def _version() -> Version:
    own = guestwire.__version__
    return Version(version=API_VERSION, release=API_VERSION, repoid=own.encode().hex().ljust(8, "0"), guestwire=own)


@endpoints.endpoint("GET", "/nodes", Parameters)
async def nodes(context: NodeContext, _parameters: Parameters) -> list[Node]:
    """Lists the nodes."""
    may_see_load = context.may(f"/nodes/{context.node}", ("Sys.Audit",))
    load = msgspec.structs.asdict(await context.figures()) if may_see_load else {}
    return [Node(node=context.node, id=f"node/{context.node}", ssl_fingerprint=context.fingerprint, **load)]


@endpoints.endpoint("GET", "/nodes/{node}", NodeParameters)
async def node_index(_context: object, _parameters: NodeParameters) -> list[Name]:
    """Names the parts of a node's API."""
    return [Name(name) for name in INDEX]


@endpoints.endpoint("GET", "/nodes/{node}/status", NodeParameters, check=SYS_AUDIT)
async def node_status(context: MachineContext, _parameters: NodeParameters) -> NodeStatus:
    """Shows the state of a node: processors, memory, disk, load."""
    own = guestwire.__version__
    return msgspec.structs.replace(await context.node_status(), pveversion=f"pve-manager/{API_VERSION}/guestwire-{own}")


@endpoints.endpoint("GET", "/nodes/{node}/version", NodeParameters)
async def node_version(_context: object, _parameters: NodeParameters) -> Version:
    """Says which API this is."""
    return _version()


@endpoints.endpoint("GET", "/nodes/{node}/config", NodeConfigParameters, check=ROOT_AUDIT)
async def node_config(_context: object, _parameters: NodeConfigParameters) -> dict[str, str]:
    """Shows what is set for a node: nothing is here."""
    return {}


@endpoints.endpoint("GET", "/nodes/{node}/lxc", NodeParameters)
async def containers(_context: object, _parameters: NodeParameters) -> list[dict[str, str]]:
    """Lists containers: there are none here."""
    return []


@endpoints.endpoint("GET", "/nodes/{node}/storage", ListStorage)
async def node_storage(_context: object, _parameters: ListStorage) -> list[dict[str, str]]:
    """Lists a node's storage: none is managed here."""
    return []


@endpoints.endpoint("GET", "/nodes/{node}/replication", Replication)
async def replication(_context: object, _parameters: Replication) -> list[dict[str, str]]:
    """Lists replication jobs: there are none here."""
    return []


@endpoints.endpoint("GET", "/nodes/{node}/subscription", NodeParameters)
async def subscription(_context: object, _parameters: NodeParameters) -> Subscription:
    """Says that there is no subscription."""
    return Subscription()


@endpoints.endpoint("GET", "/storage", ListAllStorage)
async def storage(_context: object, _parameters: ListAllStorage) -> list[dict[str, str]]:
    """Lists storage: none is managed here."""
    return []


@endpoints.endpoint(
    "GET", "/storage/{storage}", OneStorage, check=Privileges("/storage/{storage}", ("Datastore.Allocate",))
)
async def one_storage(_context: object, parameters: OneStorage) -> None:
    """Shows a storage: none is managed here."""
    raise AccessRefused(f"storage '{parameters.storage}' does not exist")


@endpoints.endpoint("GET", f"/nodes/{{node}}/{OWN}/frozen", NodeParameters)
async def frozen_vms(context: NodeContext, _parameters: NodeParameters) -> list[FrozenVm]:
    """Lists the VMs on a node that are frozen, of those that the caller may see (`VM.Audit`)."""
    return [
        FrozenVm(vmid=vm.vmid, name=vm.name, **msgspec.structs.asdict(vm.frozen))
        for vm in await context.vms()
        if vm.frozen and context.may(f"/vms/{vm.vmid}", ("VM.Audit",))
    ]


@endpoints.endpoint("GET", "/nodes/{node}/qemu", VmList)
async def vms(context: MachineContext, parameters: VmList) -> list[VmState]:
    """Lists the VMs on a node that the caller may see (`VM.Audit`)."""
    seen = []
    for position, vm in enumerate(await context.vms()):
        if position % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        if context.may(f"/vms/{vm.vmid}", ("VM.Audit",)):
            seen.append(vm)
    return await context.details([vm.vmid for vm in seen]) if parameters.full else seen
