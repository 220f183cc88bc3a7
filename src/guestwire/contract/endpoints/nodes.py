"""The server itself, its node, and the VMs on it."""

import asyncio
from typing import Annotated, Final

import msgspec

import guestwire
from guestwire.contract.context import HostFigures, NodeContext, VmSummary
from guestwire.contract.endpoint import Registry
from guestwire.contract.parameters import NodeParameters, Parameters, parameter
from guestwire.contract.results import Subdirectory

endpoints = Registry()

SUBDIRECTORIES = ("version", "cluster", "nodes", "storage", "access", "pools")
"""What Proxmox VE lists, in its order: clients look for names here, and get 501 for what is not served."""

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

    full: Annotated[bool, parameter("As clients of Proxmox VE send it; the list is the same.")] = False


@endpoints.endpoint("GET", "/", Parameters)
async def index(_context: object, _parameters: Parameters) -> list[Subdirectory]:
    """Names the parts of the API."""
    return [Subdirectory(name) for name in SUBDIRECTORIES]


@endpoints.endpoint("GET", "/version", Parameters)
async def version(_context: object, _parameters: Parameters) -> Version:
    """Says which API this is."""
    own = guestwire.__version__
    return Version(version=API_VERSION, release=API_VERSION, repoid=own.encode().hex().ljust(8, "0"), guestwire=own)


@endpoints.endpoint("GET", "/nodes", Parameters)
async def nodes(context: NodeContext, _parameters: Parameters) -> list[Node]:
    """Lists the nodes."""
    may_see_load = context.may(f"/nodes/{context.node}", ("Sys.Audit",))
    load = msgspec.structs.asdict(await context.figures()) if may_see_load else {}
    return [Node(node=context.node, id=f"node/{context.node}", ssl_fingerprint=context.fingerprint, **load)]


@endpoints.endpoint("GET", "/nodes/{node}/qemu", VmList)
async def vms(context: NodeContext, _parameters: VmList) -> list[VmSummary]:
    """Lists the VMs on a node that the caller may see (`VM.Audit`)."""
    seen = []
    for position, vm in enumerate(await context.vms()):
        if position % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        if context.may(f"/vms/{vm.vmid}", ("VM.Audit",)):
            seen.append(vm)
    return seen
