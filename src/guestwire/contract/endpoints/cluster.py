"""The cluster, which here is one node: its VMs, pools and node in one list, as most clients of Proxmox VE begin.

Source: Proxmox VE's API under `/cluster`.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from guestwire.access.checks import Privileges
from guestwire.contract.context import ClusterContext, FreezeNote, NodeContext, PoolContext, VmState
from guestwire.contract.endpoint import Registry
from guestwire.contract.parameters import Parameters, Role, parameter
from guestwire.contract.results import Name
from guestwire.errors import InvalidParameters

endpoints = Registry()

SYS_AUDIT: Final = Privileges("/", ("Sys.Audit",))

CGROUP_MODE: Final = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1

FIRST_VMID: Final = 100

INDEX: Final = (
    "acme", "backup", "backup-info", "bulk-action", "ceph", "config", "firewall", "ha", "jobs", "log", "mapping", "metrics",
    "notifications", "nextid", "options", "qemu", "replication", "resources", "status", "tasks", "sdn",
)  # fmt: skip
"""The names that Proxmox VE's index lists; most are not served here."""


class Resource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"cgroup_mode": "cgroup-mode"}):
    """A VM, a pool or a node; `id` tells them apart. Figures as in the lists of VMs and nodes; those of a pool are sums."""

    id: str
    type: str
    node: str | None = None
    vmid: int | None = None
    name: str | None = None
    pool: str | None = None
    status: str | None = None
    template: int | None = None
    tags: str | None = None
    uptime: int | None = None
    cpu: float | None = None
    maxcpu: int | None = None
    mem: int | None = None
    memhost: int | None = None
    maxmem: int | None = None
    disk: int | None = None
    maxdisk: int | None = None
    diskread: int | None = None
    diskwrite: int | None = None
    netin: int | None = None
    netout: int | None = None
    level: str | None = None
    cgroup_mode: int | None = None
    frozen: FreezeNote | None = None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the cluster."""

    id: str
    name: str
    ip: str
    nodeid: int = 0
    local: int = 1
    online: int = 1
    level: str = ""
    type: str = "node"


class ListResources(Parameters, frozen=True, kw_only=True):
    """Parameters of the list of resources."""

    type: (
        Annotated[str, parameter("Only resources of this kind.", Role.TEXT, enum=("vm", "storage", "node", "sdn"))]
        | None
    ) = None


class NextId(Parameters, frozen=True, kw_only=True):
    """Parameters of the next free id."""

    vmid: Annotated[int, parameter("The id to be tried.", ge=100, le=999_999_999, format="pve-vmid")] | None = None


@endpoints.endpoint("GET", "/cluster", Parameters)
async def index(_context: object, _parameters: Parameters) -> list[Name]:
    """Names the parts of the cluster's API."""
    return [Name(name) for name in INDEX]


@endpoints.endpoint("GET", "/cluster/resources", ListResources)
async def resources(context: ClusterContext, parameters: ListResources) -> list[Resource]:
    """Lists the pools, VMs and nodes that the caller may see."""
    found: list[Resource] = []
    if parameters.type in (None, "vm"):
        vms = {
            vm.vmid: vm_resource(context, vm) for vm in await context.details([vm.vmid for vm in await context.vms()])
        }
        if parameters.type is None:
            found += _pools(context, vms)
        found += [vm for vmid, vm in vms.items() if context.may(f"/vms/{vmid}", ("VM.Audit",))]
    if parameters.type in (None, "node"):
        found.append(await _node(context))
    return found


def vm_resource(context: PoolContext, vm: VmState) -> Resource:
    """A VM, as the cluster's list and those of pools have it; without a status it is known by its id alone."""
    if not vm.status:
        return Resource(id=f"qemu/{vm.vmid}", type="qemu", node=context.node, vmid=vm.vmid)
    return Resource(
        id=f"qemu/{vm.vmid}",
        type="qemu",
        node=context.node,
        vmid=vm.vmid,
        name=vm.name,
        pool=context.access.snapshot.pool_of.get(vm.vmid),
        status=vm.status,
        template=0,
        tags=vm.tags,
        uptime=vm.uptime,
        cpu=vm.cpu,
        maxcpu=vm.cpus,
        mem=vm.mem,
        memhost=vm.memhost,
        maxmem=vm.maxmem,
        disk=vm.disk,
        maxdisk=vm.maxdisk,
        diskread=vm.diskread or 0,
        diskwrite=vm.diskwrite or 0,
        netin=vm.netin,
        netout=vm.netout,
        frozen=vm.frozen,
    )


def _pools(context: ClusterContext, vms: Mapping[int, Resource]) -> Iterator[Resource]:
    for poolid, pool in sorted(context.access.snapshot.pools.items()):
        if context.may(f"/pool/{poolid}", ("Pool.Audit",)):
            running = [vms[vmid] for vmid in pool.vms if vmid in vms and vms[vmid].status == "running"]
            yield Resource(id=f"/pool/{poolid}", type="pool", pool=poolid, **(_sums(running) if running else {}))


def _sums(running: Iterable[Resource]) -> dict[str, Any]:
    total: dict[str, Any] = {"uptime": 0, "maxcpu": 0, "cpu": 0.0, "mem": 0, "maxmem": 0}
    for vm in running:
        total["uptime"] = max(total["uptime"], vm.uptime or 0)
        for name in ("maxcpu", "mem", "maxmem"):
            total[name] += getattr(vm, name) or 0
        total["cpu"] += (vm.cpu or 0) * (vm.maxcpu or 0)
    return total | {"cpu": total["cpu"] / max(total["maxcpu"], 1)}


async def _node(context: NodeContext) -> Resource:
    may_see_load = context.may(f"/nodes/{context.node}", ("Sys.Audit",))
    load = msgspec.structs.asdict(await context.figures()) if may_see_load else {}
    return Resource(
        id=f"node/{context.node}",
        type="node",
        node=context.node,
        status="online",
        level="",
        cgroup_mode=CGROUP_MODE,
        **load,
    )


@endpoints.endpoint("GET", "/cluster/status", Parameters, check=SYS_AUDIT)
async def status(context: ClusterContext, _parameters: Parameters) -> list[Member]:
    """Lists the nodes with their addresses."""
    return [Member(id=f"node/{context.node}", name=context.node, ip=await context.node_address())]


@endpoints.endpoint("GET", "/cluster/nextid", NextId)
async def next_id(context: NodeContext, parameters: NextId) -> str:
    """Says which id is free, or whether one is."""
    taken = {vm.vmid for vm in await context.vms()}
    if parameters.vmid is None:
        vmid = FIRST_VMID
        while vmid in taken:
            vmid += 1
        return str(vmid)
    if parameters.vmid in taken:
        raise InvalidParameters({"vmid": f"VM {parameters.vmid} already exists"})
    return str(parameters.vmid)


class ClusterOptions(msgspec.Struct, frozen=True, rename="kebab"):
    """The tags that the caller may see."""

    allowed_tags: list[str]


@endpoints.endpoint("GET", "/cluster/options", Parameters)
async def options(context: NodeContext, _parameters: Parameters) -> ClusterOptions:
    """Shows what is set for the whole cluster: the tags in use."""
    tags = {
        tag
        for vm in await context.vms()
        if vm.tags and context.may(f"/vms/{vm.vmid}", ("VM.Audit",))
        for tag in vm.tags.split(";")
    }
    return ClusterOptions(sorted(tags))


Nothing = list[dict[str, str]]
"""A list that is always empty: what Proxmox VE would list there is not here."""


@endpoints.endpoint("GET", "/cluster/backup", Parameters, check=SYS_AUDIT)
async def backup_jobs(_context: object, _parameters: Parameters) -> Nothing:
    """Lists backup jobs: there are none here."""
    return []


@endpoints.endpoint("GET", "/cluster/backup-info/not-backed-up", Parameters, check=SYS_AUDIT)
async def not_backed_up(_context: object, _parameters: Parameters) -> Nothing:
    """Lists the VMs that no backup job has: backups are nothing that is known here."""
    return []


@endpoints.endpoint("GET", "/cluster/replication", Parameters)
async def replication_jobs(_context: object, _parameters: Parameters) -> Nothing:
    """Lists replication jobs: there are none here."""
    return []


@endpoints.endpoint("GET", "/cluster/ha/status/current", Parameters, check=SYS_AUDIT)
async def ha_status(_context: object, _parameters: Parameters) -> Nothing:
    """Lists what is highly available: nothing is here."""
    return []
