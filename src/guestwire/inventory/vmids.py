"""Ids for VMs that have none: the same VM has the same one as long as the store is kept."""

import hashlib
import logging
from collections.abc import Iterable
from typing import Final

from guestwire.errors import StoreError
from guestwire.inventory.config import MAX_VMID, MIN_VMID
from guestwire.inventory.found import FoundVm
from guestwire.stores import Change, Put, Snapshot, Store, VmIdentity, update

log = logging.getLogger("guestwire")

FIRST_MADE: Final = 1_000_000
"""Ids that are made of a key, where no store keeps them: they stay out of the way of those that people give."""


class Vmids:
    """Gives ids, and keeps them.

    Args:
        store: keeps them; None: an id is made of the VM's key, the same on each call.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store

    async def give(self, found: Iterable[FoundVm], taken: set[int]) -> dict[str, int]:
        """Ids by key, none of which is in `taken`. A VM that has a number of its own keeps that, where it is free."""
        given, used = {}, set(taken)
        vms = sorted(found, key=lambda vm: (vm.vmid is None, vm.key))
        kept = {one.key: one.vmid for one in self._store.snapshot.vmids.values()} if self._store else {}
        new: list[VmIdentity] = []
        for vm in vms:
            wanted = vm.vmid or kept.get(vm.key)
            if wanted is None or wanted in used:
                wanted = self._new(vm.key, used | set(kept.values()))
                new.append(VmIdentity(vm.key, wanted))
            given[vm.key] = wanted
            used.add(wanted)
        if new and self._store:
            await self._keep(self._store, new)
        return given

    def _new(self, key: str, used: set[int]) -> int:
        if self._store:
            return next(vmid for vmid in range(MIN_VMID, MAX_VMID + 1) if vmid not in used)
        digest = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8])
        vmid = FIRST_MADE + digest % (MAX_VMID - FIRST_MADE)
        while vmid in used:
            vmid = vmid + 1 if vmid < MAX_VMID else FIRST_MADE
        return vmid

    async def _keep(self, store: Store, new: list[VmIdentity]) -> None:
        def decide(_: Snapshot) -> list[Change]:
            return [Put(one) for one in new]

        try:
            await update(store, decide)
        except StoreError as error:  # they are used all the same; the next start may give others
            log.error("ids of VMs can't be written: %s", error)  # noqa: TRY400  # the text says it all
