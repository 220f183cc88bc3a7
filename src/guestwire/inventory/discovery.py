"""VMs that come and go by themselves: the sources are looked at again and again, and the inventory follows."""

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from guestwire.inventory.config import VmConfig
from guestwire.inventory.found import FoundVm, Source
from guestwire.inventory.sources import Libvirts
from guestwire.inventory.vm_ids import give_ids
from guestwire.inventory.vms import Inventory
from guestwire.stores import Store

log = logging.getLogger("guestwire.discovery")

EVERY: Final = 1.0
"""Seconds from one look to the next."""

FIND_WITHIN: Final = 5.0
"""Seconds that a look waits for a source."""


class Discovery:
    """Finds VMs for an inventory.

    Args:
        inventory: gets those that can be used, beside the ones that the configuration names.
        sources: what is asked, in this order: of a VM that two find, the first counts.
        store: keeps the ids of VMs that have none; None: they are made of what tells one from all others.
        named: see below.
        libvirts: see below.

    Attributes:
        named: what the configuration names; it counts before what is found.
        sources: as above; another list counts from the next look on.
        libvirts: those whose VMs the inventory follows by itself.
        unusable: what was found and can't be used, at the last look.
    """

    def __init__(
        self, inventory: Inventory, sources: Sequence[Source], store: Store | None = None, named: Iterable[VmConfig] = (),
        libvirts: Libvirts | None = None,
    ) -> None:  # fmt: skip
        self.named = list(named)
        self.sources = sources
        self.libvirts = libvirts or Libvirts()
        self.unusable: list[FoundVm] = []
        self._inventory = inventory
        self._store = store
        self._applied: tuple[list[VmConfig], list[str]] | None = None
        self._troubles: Mapping[str, str] = {}
        self._found_last: dict[str, list[FoundVm]] = {}
        """By source; kept while it can't be read: a moment without descriptors ends no VM."""
        self._finding: dict[Source, asyncio.Future[tuple[list[FoundVm], str]]] = {}
        self._logged: set[str] = set()
        """Keys of those that can't be used."""
        self._turn = asyncio.Lock()

    @property
    def served(self) -> int:
        """How many VMs there are."""
        return len(self._inventory.vms)

    async def look(self) -> None:
        """Asks all sources, and makes the inventory what they say."""
        async with self._turn:
            now, troubles = await self._find_all()
            found = await asyncio.to_thread(self._choose, now)
            libvirts = await asyncio.to_thread(self.libvirts.look)
            for name in troubles.keys() - self._troubles.keys():
                log.warning("VMs of %s are not known: %s", name, troubles[name])
            self._troubles = troubles
            usable = [vm for vm in found if vm.agent or vm.qmp]
            unusable = [vm for vm in found if vm.problem]
            for vm in unusable:
                if vm.key not in self._logged:
                    log.info("%a (%s) can't be used: %a; %a", vm.name, vm.source, vm.problem, vm.hint)
            self._logged = {vm.key for vm in unusable}
            vmids = await self._ids_of(usable)
            wanted = [*self.named, *(vm.config(vmids[vm.key]) for vm in usable)], libvirts
            if wanted != self._applied:
                await self._inventory.apply(*wanted)
                if self._applied:
                    self._log_changes(wanted[0])
                self._applied = wanted
            here = {vm.libvirt.domain.uuid for vm in self._inventory.vms.values() if vm.libvirt}
            self.unusable = [vm for vm in unusable if vm.key.lower() not in here]

    async def _ids_of(self, vms: Sequence[FoundVm]) -> dict[str, int]:
        """By key. A VM that has a number of its own keeps that, where it is free."""
        taken, own = {vm.vmid for vm in self.named}, {}
        for vm in vms:
            if vm.vmid is not None and vm.vmid not in taken:
                own[vm.key] = vm.vmid
                taken.add(vm.vmid)
        return own | await give_ids(self._store, sorted(vm.key for vm in vms if vm.key not in own), taken)

    async def follow(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            if not self.sources:
                continue
            try:
                await self.look()
            except Exception:  # a source's own fault must not end the others
                log.exception("unexpected error while VMs are looked for")

    async def _find_all(self) -> tuple[list[list[FoundVm]], dict[str, str]]:
        """What each source finds, and by their names why it does not.

        One that hangs (its folder is on a server that is gone) delays no other, and is not asked again before it has
        answered: each question would hold a thread.
        """
        finding = self._finding
        for source in self.sources:
            if source not in finding:
                finding[source] = asyncio.ensure_future(asyncio.to_thread(self._find, source))
        if self.sources:
            await asyncio.wait([finding[source] for source in self.sources], timeout=FIND_WITHIN)
        last, self._found_last = self._found_last, {}
        found: list[list[FoundVm]] = []
        troubles: dict[str, str] = {}
        for source in self.sources:
            is_done = finding[source].done()
            vms, why = finding.pop(source).result() if is_done else (last.get(source.name, []), "no answer")
            found.append(vms)
            self._found_last[source.name] = vms
            if why:
                troubles[source.name] = why
        return found, troubles

    def _choose(self, now: Sequence[Sequence[FoundVm]]) -> list[FoundVm]:
        """Each VM once, and each socket: one that takes a single client is spoilt by two."""
        found: dict[str, FoundVm] = {}
        folders: dict[str, str] = {}
        used = {socket for vm in self.named for socket in _sockets(vm, folders)}
        for vms in now:
            for vm in vms:
                sockets, other = _sockets(vm, folders), found.get(vm.key)
                # Another user's process may have the UUID of a VM on its command line: what can be used counts.
                if not sockets & used and (other is None or (sockets and not _sockets(other, folders))):
                    found[vm.key] = vm
                    used |= sockets
        return list(found.values())

    def _find(self, source: Source) -> tuple[list[FoundVm], str]:
        try:
            return source.find(), ""
        except FileNotFoundError as error:
            return [], str(error.strerror)
        except OSError as error:
            why = str(error.strerror or error)
        except Exception as error:  # noqa: BLE001  # one source's own fault must not end the others
            why = f"unexpected error: {error!r}"
        return self._found_last.get(source.name, []), why

    def _log_changes(self, configs: Iterable[VmConfig]) -> None:
        before = {vm.vmid: vm.name for vm in (self._applied or ([], []))[0]}
        after = {vm.vmid: vm.name for vm in configs}
        for vmid in sorted(after.keys() - before.keys()):
            log.info("VM %d (%s) is there", vmid, ascii(after[vmid]))
        for vmid in sorted(before.keys() - after.keys()):
            log.info("VM %d (%s) is gone", vmid, ascii(before[vmid]))


def _sockets(vm: FoundVm | VmConfig, folders: dict[str, str]) -> set[str]:
    """Where a VM is reached, by the true names of folders (`/var/run` is `/run`), which `folders` keeps."""
    found = set()
    for path in (address.removeprefix("unix:") for address in (vm.agent, vm.qmp) if address):
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.add(f"{folders[folder]}/{name}")
    return found
