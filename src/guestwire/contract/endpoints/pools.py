"""Pools: VMs that are meant together in permissions.

Source: Proxmox VE's API under `/pools`.
"""

from typing import Annotated, Final

import msgspec

from guestwire.access import administration as admin
from guestwire.access.checks import Privileges
from guestwire.access.values import split_list
from guestwire.contract.context import PoolContext
from guestwire.contract.endpoint import Effect, Registry
from guestwire.contract.endpoints.cluster import Resource, vm_resource
from guestwire.contract.parameters import Parameters, Role, parameter
from guestwire.errors import AccessRefused, Forbidden
from guestwire.stores.records import Pool

endpoints = Registry()

AUDIT: Final = Privileges("/pool/{poolid}", ("Pool.Audit",))
ALLOCATE: Final = Privileges("/pool/{poolid}", ("Pool.Allocate",))

Poolid = Annotated[str, parameter("The pool.", Role.TEXT, format="pve-poolid", examples=["web"])]
Kind = Annotated[str, parameter("Only members of this kind.", Role.TEXT, enum=("qemu", "lxc", "storage"))]


class PoolInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pool with its members."""

    poolid: str
    members: list[Resource]
    comment: str | None = None


class ListedPool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pool in the list; members only when one pool was asked for."""

    poolid: str
    comment: str | None = None
    members: list[Resource] | None = None


class ListPools(Parameters, frozen=True, kw_only=True):
    """Parameters of the list of pools."""

    poolid: Poolid | None = None
    type: (
        Annotated[
            str,
            parameter("Only members of this kind.", Role.TEXT, enum=("qemu", "lxc", "storage"), requires="poolid"),
        ]
        | None
    ) = None


class OnePool(Parameters, frozen=True, kw_only=True):
    """A pool."""

    poolid: Poolid


class ShowPool(OnePool, frozen=True, kw_only=True):
    """A pool to be shown."""

    type: Kind | None = None


class CreatePool(OnePool, frozen=True, kw_only=True):
    """Parameters of a new pool."""

    comment: Annotated[str, parameter("A comment.", Role.TEXT)] | None = None


class UpdatePool(CreatePool, frozen=True, kw_only=True):
    """Parameters of a change to a pool."""

    vms: Annotated[str, parameter("VMs, separated by commas.", Role.TEXT, format="pve-vmid-list")] | None = None
    storage: Annotated[str, parameter("There is no storage here.", Role.TEXT, format="pve-storage-id-list")] | None = (
        None
    )
    delete: Annotated[bool, parameter("Takes the VMs out of the pool instead of putting them in.")] = False
    allow_move: Annotated[bool, parameter("Takes VMs out of other pools for this one.")] = False


async def _members(context: PoolContext, pool: Pool, kind: str | None) -> list[Resource]:
    if kind not in (None, "qemu"):
        return []
    members = [vm.vmid for vm in await context.vms() if vm.vmid in pool.vms]
    return [
        msgspec.structs.replace(vm_resource(context, vm), pool=None, tags=None) for vm in await context.details(members)
    ]


@endpoints.endpoint("GET", "/pools", ListPools)
async def pools(context: PoolContext, parameters: ListPools) -> list[ListedPool]:
    """Lists the pools that the caller may see, or one of them with its members."""
    snapshot = context.access.snapshot
    if parameters.poolid is not None:
        pool = admin.existing_pool(snapshot, parameters.poolid)
        if not context.access.may(context.subject, f"/pool/{pool.poolid}", AUDIT.any_of):
            raise Forbidden(f"/pool/{pool.poolid}", AUDIT.any_of)
        members = await _members(context, pool, parameters.type)
        return [ListedPool(pool.poolid, pool.comment or None, members)]
    return [
        ListedPool(poolid, pool.comment or None)
        for poolid, pool in sorted(snapshot.pools.items())
        if context.access.may(context.subject, f"/pool/{poolid}", AUDIT.any_of)
    ]


@endpoints.endpoint("POST", "/pools", CreatePool, check=ALLOCATE, effect=Effect.WRITES)
async def create_pool(context: PoolContext, parameters: CreatePool) -> None:
    """Makes a pool."""
    pool = Pool(parameters.poolid, parameters.comment or "")
    with admin.failing("create pool failed"):
        await context.access.update(lambda snapshot: admin.add_pool(snapshot, pool))


@endpoints.endpoint("GET", "/pools/{poolid}", ShowPool, check=AUDIT)
async def pool_page(context: PoolContext, parameters: ShowPool) -> PoolInfo:
    """Shows a pool with its members."""
    pool = admin.existing_pool(context.access.snapshot, parameters.poolid)
    return PoolInfo(pool.poolid, await _members(context, pool, parameters.type), pool.comment or None)


async def _update(context: PoolContext, parameters: UpdatePool) -> None:
    for storage in split_list(parameters.storage or ""):
        raise AccessRefused(f"update pools failed: storage '{storage}' does not exist")
    vms = [int(vmid) for vmid in split_list(parameters.vms or "")]
    for vmid in vms:
        if not context.access.may_modify_acl(context.subject, f"/vms/{vmid}"):
            raise Forbidden(f"/vms/{vmid}", ("Permissions.Modify", "VM.Allocate"))
    if parameters.allow_move and not parameters.delete:
        _check_may_take(context, vms)
    add, remove = ((), vms) if parameters.delete else (vms, ())
    with admin.failing("update pools failed"):
        await context.access.update(
            lambda snapshot: admin.change_pool(
                snapshot, parameters.poolid, comment=parameters.comment, add=add, remove=remove,
                move=parameters.allow_move,
            )
        )  # fmt: skip


async def _delete(context: PoolContext, parameters: OnePool) -> None:
    vms = [vm.vmid for vm in await context.vms()]
    with admin.failing("delete pool failed"):
        await context.access.update(lambda snapshot: admin.remove_pool(snapshot, parameters.poolid, vms))


def _check_may_take(context: PoolContext, vms: list[int]) -> None:
    """The holders of the pool that a VM is in lose the VM: that takes a right on that pool, too."""
    pools = context.access.snapshot.pool_of
    for poolid in sorted({pools[vmid] for vmid in vms if vmid in pools}):
        if not context.access.may(context.subject, f"/pool/{poolid}", ALLOCATE.any_of):
            raise Forbidden(f"/pool/{poolid}", ALLOCATE.any_of)


@endpoints.endpoint("PUT", "/pools", UpdatePool, check=ALLOCATE, effect=Effect.WRITES)
async def update_pool(context: PoolContext, parameters: UpdatePool) -> None:
    """Changes a pool: its comment, and which VMs are in it."""
    await _update(context, parameters)


@endpoints.endpoint("PUT", "/pools/{poolid}", UpdatePool, check=ALLOCATE, effect=Effect.WRITES)
async def update_pool_page(context: PoolContext, parameters: UpdatePool) -> None:
    """Changes a pool: its comment, and which VMs are in it."""
    await _update(context, parameters)


@endpoints.endpoint("DELETE", "/pools", OnePool, check=ALLOCATE, effect=Effect.WRITES)
async def delete_pool(context: PoolContext, parameters: OnePool) -> None:
    """Removes an empty pool."""
    await _delete(context, parameters)


@endpoints.endpoint("DELETE", "/pools/{poolid}", OnePool, check=ALLOCATE, effect=Effect.WRITES)
async def delete_pool_page(context: PoolContext, parameters: OnePool) -> None:
    """Removes an empty pool."""
    await _delete(context, parameters)
