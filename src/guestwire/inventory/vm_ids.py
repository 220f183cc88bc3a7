"""Ids of VMs that have none where they are defined. One that was given stays with its VM: it is in ACLs, pools, scripts and minds."""

import hashlib
import itertools
import logging
from collections.abc import Collection, Iterable
from typing import Final

from guestwire.errors import StoreError
from guestwire.stores import Change, Put, Snapshot, Store, VmIdentity, update

log = logging.getLogger("guestwire")

FIRST: Final = 100
DERIVED: Final = 100_000_000
"""Where ids begin that are made of a uuid; they have nine digits."""


async def give_ids(store: Store | None, uuids: Iterable[str], taken: Collection[int]) -> dict[str, int]:
    """The id of each VM.

    Args:
        store: keeps them, and new ones are the smallest that are free; without it they are made of the uuids, and so the
            same everywhere and always.
        uuids: of VMs, in the order in which new ids are given.
        taken: ids of other VMs. What such a one has got meanwhile is given anew.
    """
    if store is None:
        return _derived(uuids, taken)
    uuids = list(uuids)
    found: dict[str, int] = {}

    def decide(snapshot: Snapshot) -> list[Change]:
        known = {uuid: kept.vmid for uuid, kept in snapshot.vmids.items() if kept.vmid not in taken}
        used = {*known.values(), *taken}
        free = (vmid for vmid in itertools.count(FIRST) if vmid not in used)
        new = {uuid: next(free) for uuid in uuids if uuid not in known}
        found.update({uuid: {**known, **new}[uuid] for uuid in uuids})
        return [Put(VmIdentity(uuid, vmid)) for uuid, vmid in new.items()]

    try:
        await update(store, decide)
    except StoreError as error:  # a full disk hides no VM
        log.error("the ids of VMs can't be written: %s", error)  # noqa: TRY400  # the text says it all
    return found or _derived(uuids, taken)


def _derived(uuids: Iterable[str], taken: Collection[int]) -> dict[str, int]:
    used, found = set(taken), {}
    for uuid in sorted(uuids):
        digest = int.from_bytes(hashlib.sha256(uuid.encode()).digest()[:8])
        vmid = DERIVED + digest % (9 * DERIVED)
        while vmid in used:
            vmid += 1
        used.add(vmid)
        found[uuid] = vmid
    return found
